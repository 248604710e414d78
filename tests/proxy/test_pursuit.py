"""Requests whose model is not there yet wait, say so, and end in one of a few ways."""

import asyncio
import json
from collections import Counter
from functools import partial
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.engines import EngineState
from meshllm.core.events import ModelWanted
from meshllm.core.view import LoadProgress
from tests.proxy.builders import (
    CHAT,
    STREAM_HEAD,
    TINY,
    House,
    Reply,
    Request,
    a_chat,
    a_get,
    a_house,
    a_model,
    a_post,
    event,
    until,
    whole,
)

LOADING = a_model(
    state=EngineState.STARTING, progress=LoadProgress(stage="loading", share=0.4, done_bytes=4, total_bytes=10)
)
ASLEEP = a_model(state=EngineState.STOPPED)


def waits_for(house: House, count: int) -> bool:
    """Tell whether so many requests wait."""
    return waiting(house) == count


def are_done(tasks: list[asyncio.Task[Reply]], count: int) -> bool:
    """Tell whether so many requests have their answer."""
    return sum(task.done() for task in tasks) == count


def in_flight_is(house: House, count: int) -> bool:
    """Tell whether so many requests are at the engine."""
    return house.door.in_flight(TINY) == count


def loading(socket: object) -> tuple[Any, ...]:
    """Return a node whose model is on its way."""
    return (LOADING,)


def with_one_slot(socket: Any) -> tuple[Any, ...]:
    """Return a node whose engine computes one request at a time."""
    return (a_model(socket=socket, slots=1),)


def asleep(socket: object) -> tuple[Any, ...]:
    """Return a node whose model nobody asked for."""
    return (ASLEEP,)


def waiting(house: House) -> int:
    """Return how many requests wait."""
    return house.door.traffic.waiting


def become_ready(house: House) -> None:
    """Let the model be ready."""
    house.views.publish(a_model(socket=house.engine.socket))


async def test_a_request_waits_for_its_model() -> None:
    """The client sees a slow 200 and nothing else."""
    async with a_house(models=loading) as house, asyncio.TaskGroup() as group:
        task = group.create_task(house.chat())
        await until(lambda: waiting(house) == 1, "the request waiting")
        house.views.publish(LOADING)
        become_ready(house)

        assert (await task).status == 200
        assert waiting(house) == 0
        assert house.events == []


async def test_a_sleeping_model_is_asked_for_once() -> None:
    """LIF-6: fifty requests are one event, one load and fifty answers (T3)."""
    async with a_house(models=asleep) as house, asyncio.TaskGroup() as group:
        tasks = [group.create_task(house.chat()) for _ in range(50)]
        await until(lambda: waiting(house) == 50, "all requests waiting")
        events = list(house.events)
        become_ready(house)
        replies = [await task for task in tasks]

    assert events == [ModelWanted(model=TINY)]
    assert [reply.status for reply in replies] == [200] * 50


async def test_waiting_ends_with_how_far_the_model_is() -> None:
    """503 with `Retry-After` and progress: the client may ask again."""
    async with a_house(models=loading, load_wait_s=0.1) as house:
        reply = await house.chat()

    assert (reply.status, reply.error["code"]) == (503, "model_loading")
    assert "40%" in reply.error["message"]
    assert 1 <= int(reply.headers["retry-after"]) <= 5


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"held": True}, 503, "model_held"),
        ({"waiting": "capacity: needs 9 GB, 3 GB are free"}, 503, "no_capacity"),
        ({"dropped": True}, 404, "model_not_found"),
    ],
)
async def test_waiting_ends_when_it_has_become_pointless(more: dict[str, Any], status: int, code: str) -> None:
    """The view says so, and the client is told at once."""
    async with a_house(models=loading) as house, asyncio.TaskGroup() as group:
        task = group.create_task(house.chat())
        await until(lambda: waiting(house) == 1, "the request waiting")
        house.views.publish(a_model(state=EngineState.STOPPED, **more))
        reply = await task

    assert (reply.status, reply.error["code"]) == (status, code)


async def start_stream(house: House) -> Any:
    """Ask for a stream and wait for the first comment."""
    client = await house.connect()
    await client.send(a_post(a_chat(stream=True)))
    head = await client.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream")
    assert b": waiting: the model 'tiny' is loading" in await client.until(b"\n\n\r\n")
    return client


async def rest_of(client: Any) -> bytes:
    """Return the payload that is left of a stream."""
    return (await client._chunks()) if client else b""


async def test_a_stream_hears_comments_while_it_waits_and_then_the_answer() -> None:
    """SDKs and proxies on the way give up on silence."""
    async with a_house(models=loading, comment_s=0.05) as house:
        client = await start_stream(house)
        await client.until(b"waiting")
        become_ready(house)

        async with asyncio.timeout(30):
            rest = await client.reader.readuntil(b"0\r\n\r\n")

        assert rest.count(b"data:") == 4
        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        await client.send(a_get("/v1/models"))
        assert (await client.receive()).status == 200


@pytest.mark.parametrize("minor", [0, 1])
async def test_anthropics_streams_are_pinged_while_they_wait(minor: int) -> None:
    """Its service sends such events, and its clients count on them."""
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    async with a_house(models=loading, comment_s=0.05) as house:
        client = await house.connect()
        request = a_post(a_chat(stream=True, max_tokens=5), "/v1/messages")
        await client.send(request.replace(b"HTTP/1.1", b"HTTP/1.%d" % minor, 1))
        head = await client.until(b"\r\n\r\n")
        waited = await client.until(ping) + await client.until(ping)
        become_ready(house)
        async with asyncio.timeout(30):
            rest = await client.reader.readuntil(b"[DONE]\n\n")

    assert b"Content-Type: text/event-stream" in head
    assert b": waiting" not in waited + rest
    assert b'data: {"n":2}' in rest


async def end_of_stream(client: Any) -> dict[str, Any]:
    """Return the error with which a stream ends."""
    async with asyncio.timeout(30):
        rest = await client.reader.readuntil(b"0\r\n\r\n")
    assert b"[DONE]" not in rest
    assert rest.count(b"data:") == 1
    error = json.loads(rest.partition(b"data: ")[2].partition(b"\n\n")[0])["error"]
    return dict(error)


async def test_a_stream_that_waited_in_vain_ends_with_one_error_event() -> None:
    """The 200 is out: only an event can still say it."""
    async with a_house(models=loading, comment_s=0.05, load_wait_s=0.3) as house:
        client = await start_stream(house)

        assert (await end_of_stream(client))["code"] == "model_loading"


async def test_an_engine_that_refuses_after_comments_becomes_an_error_event() -> None:
    """Its status cannot be shown any more."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole({"error": {"message": "too hot", "type": "invalid_request_error"}}, "400 Bad Request"))

    async with a_house(answer, models=loading, comment_s=0.05) as house:
        client = await start_stream(house)
        become_ready(house)

        assert (await end_of_stream(client))["message"] == "too hot"


async def test_an_engine_lost_after_comments_is_tried_again() -> None:
    """No byte of an answer is out yet."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(house.engine.requests) == 1:
            writer.close()
            return
        writer.write(whole({"late": True}))

    async with a_house(answer, models=loading, comment_s=0.05) as house:
        client = await start_stream(house)
        become_ready(house)
        async with asyncio.timeout(30):
            rest = await client.reader.readuntil(b"0\r\n\r\n")

    assert b'{"late": true}' in rest


async def test_quick_loads_keep_their_status() -> None:
    """Comments begin only after a while: an error before that is a real one."""
    async with a_house(models=loading, load_wait_s=0.1) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)))

        assert (await client.receive()).status == 503


async def test_an_old_client_waits_without_chunks() -> None:
    """HTTP/1.0 streams end with the connection."""
    async with a_house(models=loading, comment_s=0.05) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        await client.until(b"\n\n")
        become_ready(house)
        rest = await client.rest()

    assert rest.endswith(b'data: {"n":2}\n\ndata: [DONE]\n\n')
    assert b"\r\n" not in rest


async def test_a_client_that_leaves_while_it_waits_is_forgotten() -> None:
    """Nothing is computed for nobody."""
    async with a_house(models=loading) as house:
        client = await house.connect()
        await client.send(a_post(a_chat()))
        await until(lambda: waiting(house) == 1, "the request waiting")

        await client.close()
        await until(lambda: waiting(house) == 0, "the request being forgotten")
        become_ready(house)
        assert await house.is_well()

    assert len(house.engine.requests) == 1


async def test_only_so_many_may_wait() -> None:
    """Those beyond are told at once."""
    async with a_house(models=loading) as house:
        house.door.traffic.waiting = limits.WAITING_REQUESTS

        reply = await house.chat()

        assert (reply.status, reply.error["code"]) == (503, "overloaded")
        house.door.traffic.waiting = 0


async def test_an_engine_that_refuses_connections_is_waited_for() -> None:
    """It died a moment ago; the node is about to notice and to restart it."""
    async with a_house() as house:
        await house.engine.stop()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(house.chat())
            await until(lambda: waiting(house) == 1, "the request waiting")
            house.views.publish(a_model(state=EngineState.BACKING_OFF))
            house.views.publish(LOADING)
            await house.engine.start()
            house.views.publish(a_model(socket=house.engine.socket, key="restarted"))
            reply = await task

    assert (reply.status, reply.headers["x-mesh-attempts"]) == (200, "1")


async def test_an_engine_that_nobody_notices_to_be_gone_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong view must not become a hang."""
    monkeypatch.setattr(limits, "ENGINE_LOST_WAIT_S", 0.2)
    async with a_house() as house:
        await house.engine.stop()

        reply = await house.chat()

    assert (reply.status, reply.error["code"]) == (502, "host_lost")


async def test_more_than_an_engine_can_queue_is_refused_and_comes_back_spread() -> None:
    """429 with a jittered Retry-After: a fixed one would bring them all back together."""
    open_gate = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await open_gate.wait()
        writer.write(whole({"model": "tiny"}))

    def one_slot(socket: Any) -> tuple[Any, ...]:
        return (a_model(socket=socket, slots=1),)

    async with a_house(answer, models=one_slot) as house, asyncio.TaskGroup() as group:
        most = 1 + limits.ENGINE_QUEUE_REQUESTS
        tasks: list[asyncio.Task[Reply]] = []
        for number in range(most):
            tasks.append(group.create_task(house.chat()))
            await until(partial(in_flight_is, house, number + 1), "the request in flight")
        refused = [await house.chat() for _ in range(20)]
        open_gate.set()
        served = [(await task).status for task in tasks]

    assert {(reply.status, reply.error["code"]) for reply in refused} == {(429, "overloaded")}
    assert len({reply.headers["retry-after"] for reply in refused}) > 1
    assert served == [200] * most


async def test_requests_that_waited_for_a_model_also_wait_for_room() -> None:
    """They were promised an answer: a hundred at one slot come in turn."""
    async with a_house(models=loading) as house, asyncio.TaskGroup() as group:
        tasks = [group.create_task(house.chat()) for _ in range(100)]
        await until(lambda: waiting(house) == 100, "all requests waiting")
        house.views.publish(a_model(socket=house.engine.socket, slots=1))

        assert [(await task).status for task in tasks] == [200] * 100
    assert len(house.engine.requests) == 100


# -- unloaded under a request ----------------------------------------------------------------------------


STOPPING = a_model(state=EngineState.STOPPING, wanted=False)


@pytest.mark.parametrize("is_used", [False, True], ids=["over a new connection", "over a used one"])
async def test_a_request_that_an_unload_cut_off_does_not_load_the_model_again(*, is_used: bool) -> None:
    """It would undo what somebody ordered; another request may."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.json.get("n") == 2:
            house.views.publish(STOPPING)
            house.views.publish(ASLEEP)
            writer.close()
        else:
            writer.write(whole({"model": "tiny"}))

    async with a_house(answer) as house:
        if is_used:
            await house.chat()
        reply = await house.chat(n=2)
        events = list(house.events)

    assert (reply.status, reply.error["code"]) == (503, "model_unloaded")
    assert "another request loads it" in reply.error["message"]
    assert "retry-after" not in reply.headers
    assert ModelWanted(model=TINY) not in events


async def test_a_cut_off_request_learns_of_the_unload_also_when_the_view_is_late() -> None:
    """First it looks like a lost engine."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        house.engine.socket.unlink()
        writer.close()

    async with a_house(answer) as house, asyncio.TaskGroup() as group:
        task = group.create_task(house.chat())
        await until(lambda: waiting(house) == 1, "the request waiting")
        house.views.publish(STOPPING)
        reply = await task

    assert (reply.status, reply.error["code"], house.events) == (503, "model_unloaded", [])


async def test_a_stream_that_an_unload_cut_off_says_so_in_its_last_event() -> None:
    """Whoever reads it learns that nothing is broken."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + event(1))
        await writer.drain()
        house.views.publish(STOPPING)
        writer.close()

    async with a_house(answer) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)))
        await client.until(event(1))

        assert (await end_of_stream(client))["code"] == "model_unloaded"
        assert house.events == []


async def test_a_request_that_waits_for_a_model_does_not_undo_its_unloading() -> None:
    """Somebody changed their mind during the load; those who wait must not outvote them."""
    async with a_house(models=asleep, comment_s=0.05) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)))
        await until(lambda: house.events, "the model being asked for")
        house.views.publish(LOADING)
        await client.until(b"the model 'tiny' is loading")
        house.views.publish(STOPPING)
        house.views.publish(ASLEEP)

        assert (await end_of_stream(client))["code"] == "model_unloaded"
        assert house.events == [ModelWanted(model=TINY)]


async def test_a_request_that_comes_after_an_unload_loads_the_model_again() -> None:
    """Unloading is not holding."""
    async with a_house(models=lambda _: (STOPPING,)) as house, asyncio.TaskGroup() as group:
        task = group.create_task(house.chat())
        await until(lambda: waiting(house) == 1, "the request waiting")
        house.views.publish(ASLEEP)
        await until(lambda: house.events, "the model being asked for")
        become_ready(house)

        assert (await task).status == 200
        assert house.events == [ModelWanted(model=TINY)]


async def test_a_held_model_is_refused_with_the_way_to_lift_the_hold() -> None:
    """A person holds it: waiting is no use, so there is no time to wait either."""
    async with a_house(models=lambda _: (a_model(state=EngineState.STOPPED, held=True),)) as house:
        reply = await house.chat()

    assert (reply.status, reply.error["code"]) == (503, "model_held")
    assert "mesh-llm load tiny" in reply.error["message"]
    assert "retry-after" not in reply.headers


# -- priorities ------------------------------------------------------------------------------------------


async def test_where_priorities_meet_each_is_refused_when_its_own_queue_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An engine with one slot: two are at it, and what is less urgent takes nobody's place among those that wait."""
    monkeypatch.setattr(limits, "ENGINE_QUEUE_REQUESTS", 2)
    open_gate = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await open_gate.wait()
        writer.write(whole({"model": "tiny"}))

    def ask(priority: str) -> Any:
        return house.ask(a_post(a_chat(), CHAT, f"X-Priority: {priority}"))

    async with a_house(answer, models=with_one_slot) as house, asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask("low")) for _ in range(3)]
        await until(lambda: waiting(house) == 1, "the third low one waiting")
        await until(partial(in_flight_is, house, 2), "the other two being in")
        tasks.append(group.create_task(ask("normal")))
        await until(lambda: waiting(house) == 2, "a normal one waiting, though three are before it in time")
        refused = [await ask("normal"), await ask("low")]
        tasks += [group.create_task(ask("high")) for _ in range(2)]
        await until(lambda: waiting(house) == 4, "two high ones waiting, one of them in the reserve")
        refused.append(await ask("high"))
        assert house.door.in_flight(TINY) == 2
        open_gate.set()
        served = [(await task).status for task in tasks]

    assert [(reply.status, reply.error["code"]) for reply in refused] == [(429, "overloaded")] * 3
    assert served == [200] * 6


@pytest.mark.rows("QTA-17")
async def test_those_that_wait_for_room_share_it_by_priority() -> None:
    """Four high ones and two normal ones for each low one, whoever came first; each gets its answer.

    The engine has one slot and a long queue, of which priorities that meet make no use.
    """
    order: list[str] = []
    gate = asyncio.Semaphore(0)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        order.append(request.json["messages"][0]["content"])
        await gate.acquire()
        writer.write(whole({"model": "tiny"}))

    came = ("first", "first", *["low"] * 3, *["normal"] * 4, *["high"] * 8)
    async with a_house(answer, models=with_one_slot) as house, asyncio.TaskGroup() as group:
        tasks = []
        for number, word in enumerate(came):
            body = a_chat(messages=[{"role": "user", "content": word}])
            priority = "normal" if word == "first" else word
            tasks.append(group.create_task(house.ask(a_post(body, CHAT, f"X-Priority: {priority}"))))
            came_in = partial(in_flight_is, house, number + 1) if number < 2 else partial(waits_for, house, number - 1)
            await until(came_in, f"request {number} at the engine or waiting")
        assert not house.door.routes.known
        for number in range(len(came)):
            gate.release()
            await until(partial(are_done, tasks, number + 1), "one more answer")
        served = [(await task).status for task in tasks]

    assert order[:2] == ["first"] * 2
    assert [Counter(order[at : at + 7]) for at in (2, 9)] == [{"high": 4, "normal": 2, "low": 1}] * 2
    assert order[16:] == ["low"]
    assert served == [200] * len(came)
