"""Several hosts, one answer: what goes elsewhere, what does not, and what is said at the end."""

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.engines import EngineState
from meshllm.core.events import PathFailed
from meshllm.proxy.paths import INFERENCE
from meshllm.proxy.target import Target
from meshllm.wire.tunnel_frames import TunnelRefusal
from tests.proxy.builders import (
    NODE,
    STREAM_END,
    STREAM_HEAD,
    TINY,
    Answer,
    Request,
    a_chat,
    a_model,
    a_post,
    answer_ok,
    event,
    until,
    whole,
)
from tests.proxy.tunnels import (
    DIGEST,
    FIRST,
    FOURTH,
    SECOND,
    THIRD,
    a_mesh,
    a_replica,
    a_served_model,
)

CHAT = INFERENCE["/v1/chat/completions"]


def answering(status: str, **error: Any) -> Answer:
    """Return an engine that answers every request with that error."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole({"error": {"message": "no", "type": "t", **error}}, status))

    return answer


async def crash(request: Request, writer: asyncio.StreamWriter) -> None:
    """Die of a request."""
    writer.transport.abort()


def refusal(code: str, **facts: Any) -> TunnelRefusal:
    """Return a refusal."""
    return TunnelRefusal(code=code, message="no", **facts)


@pytest.mark.parametrize(
    "code", ["busy", "not_hosting", "draining", "loading", "not_admitted", "engine_lost", "some_new_word"]
)
async def test_a_refusal_leads_to_the_next_host(code: str) -> None:
    """The client sees one answer; overload is not death, so nobody is probed."""
    async with a_mesh(answer_ok, answer_ok) as (entry, mesh):
        mesh.refusals[FIRST] = refusal(code)
        reply = await entry.chat()

    assert reply.status == 200
    assert (reply.headers["x-mesh-node"], reply.headers["x-mesh-attempts"]) == (SECOND, "2")
    assert mesh.asked == [FIRST, SECOND]
    assert [head.attempt for _, head in mesh.heads] == [1, 2]
    assert entry.events == []
    assert entry.door.traffic.retries == 1


@pytest.mark.parametrize(
    ("codes", "status", "code"),
    [
        (("busy", "busy"), 429, "overloaded"),
        (("not_admitted", "busy"), 429, "overloaded"),
        (("draining", "not_hosting"), 503, "model_loading"),
        (("not_admitted", "not_admitted"), 502, "not_admitted"),
        (("engine_lost", "engine_lost"), 502, "host_lost"),
        (("some_new_word", "some_new_word"), 502, "host_refused"),
    ],
)
@pytest.mark.rows("PRX-6")
async def test_without_a_host_left_the_client_is_told_why(codes: tuple[str, ...], status: int, code: str) -> None:
    """With `Retry-After` where coming back helps."""
    async with a_mesh(answer_ok, answer_ok, load_wait_s=0.2) as (entry, mesh):
        mesh.refusals |= dict(zip((FIRST, SECOND), map(refusal, codes), strict=True))
        reply = await entry.chat()

        assert (reply.status, reply.error["code"]) == (status, code)
        assert reply.headers["x-mesh-attempts"] == "2"
        assert (reply.headers["x-mesh-node"] == NODE) is (code != "host_refused")
        if status in {429, 503}:
            assert 1 <= int(reply.headers["retry-after"]) <= 5
        assert entry.door.traffic.in_flight == 0
        mesh.refusals.clear()
        assert await entry.is_well()


@pytest.mark.rows("PRX-8")
async def test_no_more_than_three_hosts_are_asked() -> None:
    """Four have it, three are lost: F19."""
    async with a_mesh(*[answer_ok] * 4) as (entry, mesh):
        mesh.unreachable |= {FIRST, SECOND, THIRD}
        reply = await entry.chat()

    assert (reply.status, reply.error["code"]) == (502, "host_lost")
    assert mesh.asked == [FIRST, SECOND, THIRD]
    assert FOURTH not in mesh.asked
    assert [event.peer for event in entry.events if isinstance(event, PathFailed)] == [FIRST, SECOND, THIRD]


async def test_a_host_that_was_not_connected_yet_gets_the_request_of_one_that_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was sent to it; the connection came meanwhile."""
    monkeypatch.setattr(limits, "UNREACHED_AGAIN_S", 0.05)
    async with a_mesh(answer_ok, answer_ok) as (entry, mesh):
        mesh.unreachable.add(FIRST)

        def connect(near: object, far: Any) -> None:
            mesh.unreachable.clear()
            far.cut_after = 0

        mesh.faults[SECOND] = connect
        reply = await entry.chat()

    assert (reply.status, reply.headers["x-mesh-node"], reply.headers["x-mesh-attempts"]) == (200, FIRST, "3")
    assert mesh.asked == [FIRST, SECOND, FIRST]


@pytest.mark.rows("PRX-8")
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("cut_after", [0, 30, 120])
async def test_a_host_lost_before_the_first_byte_costs_a_retry(cut_after: int, is_stream: bool) -> None:
    """Even in the middle of its head."""
    async with a_mesh(answer_ok, answer_ok) as (entry, mesh):
        mesh.faults[FIRST] = lambda _, far: setattr(far, "cut_after", cut_after)
        reply = await entry.chat(stream=is_stream)

    assert reply.status == 200
    assert reply.headers["x-mesh-node"] == SECOND
    assert reply.body.endswith(b"[DONE]\n\n") is is_stream
    assert [type(event) for event in entry.events] == [PathFailed]


async def test_a_request_that_ends_engines_is_sent_on_once_and_no_further() -> None:
    """Two engines are what one request may cost, however many hosts there are."""
    async with a_mesh(crash, crash, answer_ok) as (entry, mesh):
        reply = await entry.chat()

    assert (reply.status, reply.error["code"]) == (502, "host_lost")
    assert mesh.asked == [FIRST, SECOND]
    assert entry.events == []


async def test_a_host_whose_engine_is_lost_costs_a_retry() -> None:
    """The host lives and says so: no probe."""
    async with a_mesh(crash, answer_ok) as (entry, mesh):
        reply = await entry.chat()

        assert (reply.status, reply.headers["x-mesh-node"]) == (200, SECOND)
        assert entry.events == []
        assert mesh.asked == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        ("400 Bad Request", {"type": "invalid_request_error"}, (400, "invalid_request")),
        ("500 Internal Server Error", {}, (500, "engine_error")),
    ],
)
async def test_an_error_of_a_request_is_passed_on_and_not_tried_again(
    status: str, error: dict[str, Any], told: tuple[int, str]
) -> None:
    """Another host would say the same."""
    async with a_mesh(answering(status, **error), answer_ok) as (entry, mesh):
        reply = await entry.chat()

    assert (reply.status, reply.error["code"]) == told
    assert reply.error["message"] == "no"
    assert reply.headers["x-mesh-node"] == FIRST
    assert mesh.asked == [FIRST]


async def test_a_far_ends_own_error_passes_unchanged() -> None:
    """Message, code and field are the far node's words."""
    async with a_mesh() as (entry, mesh):
        far = mesh.houses[FIRST]
        far.views.publish(a_served_model(far.engine.socket), node=FIRST)
        reply = await entry.ask(a_post({"model": "tiny", "input": "x"}, "/v1/embeddings"))

    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "capability_not_supported", "model")
    assert reply.head.lower().count(b"x-request-id") == 1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_an_answer_that_another_host_may_better_is_not_passed_on(status: str) -> None:
    """Unless nobody does."""
    async with a_mesh(answering(status), answer_ok) as (entry, mesh):
        reply = await entry.chat()
        mesh.refusals[SECOND] = refusal("not_admitted")
        last = await entry.chat()

    assert (reply.status, reply.headers["x-mesh-node"]) == (200, SECOND)
    assert last.status == int(status[:3])
    assert 1 <= int(last.headers["retry-after"]) <= 5


async def test_a_prompt_that_is_too_long_goes_to_a_larger_context() -> None:
    """And nowhere else; without one the client gets both numbers."""
    too_long = answering("400 Bad Request", type="exceed_context_size_error", n_prompt_tokens=3000, n_ctx=2048)
    larger = (a_replica(FIRST), a_replica(SECOND), a_replica(THIRD, context_tokens=8192))

    async with a_mesh(too_long, too_long, answer_ok, replicas=larger) as (entry, mesh):
        reply = await entry.chat()
        mesh.doors.pop(THIRD)
        entry.views.publish(replicas=larger[:2])
        alone = await entry.chat()

    assert (reply.status, reply.headers["x-mesh-node"]) == (200, THIRD)
    assert (alone.status, alone.error["code"], alone.error["param"]) == (400, "context_length_exceeded", "messages")
    assert "2048" in alone.error["message"]
    assert "3000" in alone.error["message"]


async def test_a_refusal_for_the_context_names_both_numbers() -> None:
    """From a far end that counts before it takes."""
    async with a_mesh() as (entry, mesh):
        mesh.refusals[FIRST] = refusal("context_too_long", have=2048, need=5000)
        reply = await entry.chat()

    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert "2048" in reply.error["message"]
    assert "5000" in reply.error["message"]


async def test_a_prompt_that_surely_does_not_fit_here_goes_where_it_may() -> None:
    """Without asking the smaller engine first."""
    text = "word " * 8000

    async with a_mesh(models=lambda socket: (a_served_model(socket, context_tokens=2048),)) as (entry, mesh):
        entry.views.publish(
            a_served_model(entry.engine.socket, context_tokens=2048), replicas=(a_replica(context_tokens=8192),)
        )
        far = mesh.houses[FIRST]
        far.views.publish(a_served_model(far.engine.socket, context_tokens=8192), node=FIRST)
        reply = await entry.chat(messages=[{"role": "user", "content": text}])
        hopeless = await entry.chat(messages=[{"role": "user", "content": text * 5}])

    assert (reply.status, reply.headers["x-mesh-node"]) == (200, FIRST)
    assert entry.engine.requests == []
    assert (hopeless.status, hopeless.error["code"]) == (400, "context_length_exceeded")
    assert "8192" in hopeless.error["message"]


async def test_requests_go_where_fewest_are_and_stay_here_where_that_is_no_matter() -> None:
    """Two slots here, two there: four are computed at once, the fifth queues here."""
    release = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(whole({"model": "tiny"}))

    async with a_mesh(slow, models=lambda socket: (a_served_model(socket),)) as (entry, mesh):
        entry.engine.answer = slow
        here, there = entry.engine, mesh.houses[FIRST].engine

        def have_come(counts: tuple[int, int]) -> bool:
            return (len(here.requests), len(there.requests)) == counts

        async with asyncio.TaskGroup() as group:
            tasks = []
            for here_count, there_count in ((1, 0), (1, 1), (2, 1), (2, 2), (3, 2)):
                tasks.append(group.create_task(entry.chat()))
                await until(partial(have_come, (here_count, there_count)), "arrival")
            release.set()
        replies = [task.result() for task in tasks]

    assert [reply.headers["x-mesh-node"] for reply in replies] == [NODE, FIRST, NODE, FIRST, NODE]
    assert {reply.headers["x-mesh-route-reason"] for reply in replies} == {"least_loaded"}


async def test_an_engine_lost_here_costs_a_retry_elsewhere() -> None:
    """Before the first byte; the client sees one answer."""
    async with a_mesh(models=lambda socket: (a_served_model(socket),)) as (entry, mesh):
        entry.engine.answer = crash
        reply = await entry.chat()

    assert (reply.status, reply.headers["x-mesh-node"]) == (200, FIRST)
    assert mesh.asked == [FIRST]


async def test_this_nodes_engine_is_waited_for_when_no_other_host_is_left() -> None:
    """A restart here takes seconds; the client may have those."""
    async with a_mesh(models=lambda socket: (a_served_model(socket),)) as (entry, mesh):
        mesh.refusals[FIRST] = refusal("draining")
        await entry.engine.stop()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(entry.chat())
            await until(lambda: entry.door.traffic.waiting == 1, "the request waiting")
            await entry.engine.start()
            entry.views.publish(a_served_model(entry.engine.socket, key="another"), replicas=(a_replica(),))
        reply = task.result()

    assert (reply.status, reply.headers["x-mesh-node"]) == (200, NODE)


async def test_a_host_that_is_gone_from_the_view_is_lost_and_not_unknown() -> None:
    """404 would say that the model never existed."""
    async with a_mesh() as (entry, mesh):

        def vanish(near: object, far: object) -> None:
            entry.views.publish()
            far.loop.call_soon(far.break_off)  # type: ignore[attr-defined]

        mesh.faults[FIRST] = vanish
        reply = await entry.chat()

    assert (reply.status, reply.error["code"]) == (502, "host_lost")


async def test_a_model_that_sleeps_here_and_is_lost_there_was_not_unloaded() -> None:
    """Only a request that this node's engine had can be told that it was unloaded."""
    async with a_mesh(models=lambda _: (a_served_model(_, state=EngineState.STOPPED),)) as (entry, mesh):
        asleep = a_model(state=EngineState.STOPPED, spec=entry.views.newest.local[TINY].spec)
        entry.views.publish(asleep, replicas=(a_replica(),))
        mesh.unreachable.add(FIRST)
        reply = await entry.chat()

    assert (reply.status, reply.error["code"]) == (502, "host_lost")


async def test_a_node_that_fails_three_times_in_a_row_is_left_out() -> None:
    """Requests stop paying for it; the other replica is never left out."""
    async with a_mesh(answer_ok, answer_ok) as (entry, mesh):
        mesh.unreachable.add(FIRST)
        replies = [await entry.chat() for _ in range(5)]

    assert [reply.status for reply in replies] == [200] * 5
    assert mesh.asked == [FIRST, SECOND, FIRST, SECOND, FIRST, SECOND, SECOND, SECOND]


async def test_the_last_replica_is_asked_however_often_it_failed() -> None:
    """A bad chance is better than none."""
    async with a_mesh() as (entry, mesh):
        mesh.unreachable.add(FIRST)
        statuses = [(await entry.chat()).status for _ in range(5)]
        mesh.unreachable.clear()

        assert statuses == [502] * 5
        assert await entry.is_well()


@pytest.mark.rows("MSH-16")
async def test_requests_spread_over_hosts_between_two_announcements() -> None:
    """What was sent since counts, or all would go to the one that was free last."""
    release = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(whole({"model": "tiny"}))

    async with a_mesh(slow, slow) as (entry, mesh), asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(entry.chat())
        await until(lambda: len(mesh.asked) == 6, "six tunnels")
        release.set()

    assert mesh.asked.count(FIRST) == mesh.asked.count(SECOND) == 3


async def test_all_ways_are_prepared_once_for_a_view() -> None:
    """And stay prepared when only something else changes."""
    async with a_mesh(answer_ok, answer_ok, models=lambda socket: (a_served_model(socket),)) as (entry, _):
        first = entry.door.routes.find("tiny", CHAT)
        again = entry.door.routes.find("tiny", CHAT)
        here = entry.door.routes.find_here("tiny", CHAT)
        pinned = entry.door.routes.find_here(f"tiny@{DIGEST}", CHAT)

    assert isinstance(first, Target)
    assert again is first
    assert [way.node for way in first.others] == [FIRST, SECOND]
    assert [way.peer for way in first.others] == [FIRST, SECOND]
    assert isinstance(here, Target)
    assert here.others == ()
    assert isinstance(pinned, Target)


async def test_a_far_engine_that_dies_in_a_stream_that_cannot_be_resumed_is_told_once() -> None:
    """The tunnel breaks with the reason; the entry node, which alone could go on, says what happened."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + event(0))
        await writer.drain()
        writer.transport.close()

    async with a_mesh(answer, answer_ok) as (entry, mesh):
        reply = await entry.chat(stream=True)

    before, _, error = reply.body.partition(b'data: {"error"')
    assert before == b'data: {"n":0}\n\n'
    assert json.loads(b'{"error"' + error)["error"]["code"] == "host_lost"
    assert STREAM_END not in reply.body
    assert mesh.asked == [FIRST]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_engine_that_breaks_off_far_away_is_no_lost_path(is_stream: bool) -> None:
    """In the middle of a chunk nothing can be said in the answer; the tunnel says it."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if is_stream:
            writer.write(STREAM_HEAD + event(0) + b"fffff\r\ndata: " + b"x" * 300_000)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n" + b"x" * 300_000)
        await writer.drain()
        writer.transport.close()

    async with a_mesh(answer) as (entry, _):
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=is_stream)))
        rest = await (client.until(b"0\r\n\r\n") if is_stream else client.rest())

        assert b"[DONE]" not in rest
        assert entry.door.traffic.lost == 1
        assert (b"host_lost" in rest) is is_stream
        assert entry.events == []


async def test_too_many_tunnels_of_this_node_are_no_lost_path() -> None:
    """The transport refuses by itself; another host is asked."""
    async with a_mesh(answer_ok, answer_ok) as (entry, mesh):
        mesh.crowded.add(FIRST)
        reply = await entry.chat()
        mesh.crowded.add(SECOND)
        busy = await entry.chat()

    assert (reply.status, reply.headers["x-mesh-node"]) == (200, SECOND)
    assert (busy.status, busy.error["code"]) == (429, "overloaded")
    assert entry.events == []
