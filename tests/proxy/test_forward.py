"""An answer reaches the client unchanged and whole, or the client is told that it is not."""

import asyncio
import json
import logging
from functools import partial

import pytest

from meshllm.core.engines import EngineEndpoint, EngineState
from meshllm.core.health import FIRST_TOKEN_STEPS_S
from meshllm.core.ids import ModelId
from meshllm.daemon.logs import PlainFormatter
from tests.proxy.builders import (
    CHAT,
    STREAM_END,
    STREAM_HEAD,
    Answer,
    EngineDouble,
    House,
    Reply,
    Request,
    a_chat,
    a_get,
    a_house,
    a_model,
    a_post,
    answer_ok,
    chunk,
    event,
    until,
    whole,
)

ERROR_KEYS = {"message", "type", "param", "code"}


@pytest.mark.rows("PRX-10")
async def test_an_answer_keeps_its_bytes_and_says_who_gave_it() -> None:
    """PRX-10: node, model, reason and attempts stand in the head."""
    body = '{"text":"\u0645\u0631\u062d\u0628\u0627 \\u0645"}'.encode()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(body, X_Engine="kept"))

    async with a_house(answer) as house:
        reply = await house.chat()

    assert reply.body == body
    assert reply.headers["x-engine"] == "kept"
    assert "server" not in reply.headers
    assert {name: reply.headers[name] for name in ("x-mesh-model", "x-mesh-route-reason", "x-mesh-attempts")} == {
        "x-mesh-model": "tiny", "x-mesh-route-reason": "local", "x-mesh-attempts": "1",
    }  # fmt: skip


@pytest.mark.rows("HLT-2")
async def test_streams_are_timed_to_their_first_piece_and_whole_answers_are_not() -> None:
    """On the straight lane, which the second of two equal requests takes, and off it."""
    async with a_house() as house:
        client = await house.connect()
        for is_stream in (True, True, False, False):
            await client.send(a_post(a_chat(stream=is_stream)))
            await client.receive()
        timed = house.door.traffic.of(ModelId("tiny")).first_tokens_since

        assert sum(timed.values()) == 2
        assert max(FIRST_TOKEN_STEPS_S[step] for step in timed) < 5.0


@pytest.mark.rows("API-9")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
async def test_the_body_reaches_the_engine_byte_for_byte(path: str) -> None:
    """API-9: escapes, blanks and scripts as the client wrote them."""
    text = "\u0645\u0631\u062d\u0628\u0627 \\u0645 \\/"
    body = f'{{ "model":"tiny",\n"messages" : [{{"role":"user","content":"{text}"}}]}}'.encode()

    async with a_house() as house:
        await house.ask(a_post(body, path))

    (request,) = house.engine.requests
    assert request.body == body
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["authorization"] == "Bearer engine-key"


@pytest.mark.rows("ADR-2", "ADR-3", "PRX-10")
async def test_the_answer_names_the_model_really_used() -> None:
    """Whatever name was asked for, in the body and in the head."""
    async with a_house(models=lambda socket: (a_model("Tiny-Q4", socket=socket),)) as house:
        replies = [await house.chat(model=name) for name in ("default", "", None, "tiny", "auto", "Tiny-Q4")]

    assert {reply.json["model"] for reply in replies} == {"Tiny-Q4"}
    assert {reply.headers["x-mesh-model"] for reply in replies} == {"Tiny-Q4"}


async def test_a_stream_passes_through_as_it_came() -> None:
    """Chunk by chunk, without the engine's own idea of CORS."""
    async with a_house() as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)))
        head = await client.until(b"\r\n\r\n")
        body = await client.until(b"0\r\n\r\n")

    assert body == event(0) + event(1) + event(2) + STREAM_END
    assert b"transfer-encoding: chunked\r\n" in head.lower()
    assert b"access-control" not in head.lower()


@pytest.mark.parametrize("step", [1, 7, 100])
async def test_answers_may_come_in_any_pieces(step: int) -> None:
    """Heads, lengths and chunks cut anywhere."""
    wire = {False: whole({"model": "tiny", "x": "y" * 300}), True: STREAM_HEAD + event(1) + event(2) + STREAM_END}

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        data = wire[bool(request.json.get("stream"))]
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
            await writer.drain()
            await asyncio.sleep(0)

    async with a_house(answer) as house:
        plain, stream = await house.chat(), await house.chat(stream=True)

    assert plain.json["x"] == "y" * 300
    assert stream.body.endswith(b"data: [DONE]\n\n")


async def test_an_interim_answer_is_skipped() -> None:
    """Also several; they are not for the client."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + whole({"model": "tiny"}))

    async with a_house(answer) as house:
        assert (await house.chat()).status == 200


@pytest.mark.parametrize("big", [100, 300_000, 3_000_000])
async def test_an_answer_of_any_size_is_whole(big: int) -> None:
    """Held until it is complete, or passed on as it comes."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b"x" * big))
        await writer.drain()

    async with a_house(answer) as house:
        assert (await house.chat()).body == b"x" * big


async def test_an_answer_that_ends_with_its_connection_is_chunked() -> None:
    """RFC 9112 allows it; a client could not tell its end from a loss."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end")
        writer.close()

    async with a_house(answer) as house:
        reply = await house.chat()

    assert (reply.headers["transfer-encoding"], reply.body) == ("chunked", b"to the end")


async def test_an_old_client_gets_a_stream_without_chunks() -> None:
    """HTTP/1.0 ends it with the connection."""
    async with a_house() as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        answer = await client.rest()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"Connection: close" in head
    assert body == b'data: {"n":0}\n\ndata: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n'


async def test_an_old_client_may_keep_its_connection() -> None:
    """`ab -k` does that."""
    request = a_post(a_chat(), CHAT, "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0", 1)

    async with a_house() as house:
        client = await house.connect()
        for _ in range(2):
            await client.send(request)
            reply = await client.receive()
            assert (reply.status, reply.headers["connection"]) == (200, "keep-alive")


async def test_errors_of_the_engine_come_in_our_shape() -> None:
    """The status stays, the code becomes a word."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        error = {
            "code": 400,
            "message": "too long",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 9,
            "n_ctx": 5,
        }
        writer.write(whole({"error": error}, "400 Bad Request", Connection="close"))
        writer.close()

    async with a_house(answer) as house:
        replies = [await house.chat(), await house.chat(stream=True)]

    for reply in replies:
        assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")


# -- errors inside streams -------------------------------------------------------------------------------

FULL = b'data: {"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}\n\n'
STREAMS = {
    "in one write": [STREAM_HEAD + event(1) + chunk(FULL) + STREAM_END],
    "in a write of its own": [STREAM_HEAD + event(1), chunk(FULL), b"0\r\n\r\n"],
    "with the event before": [STREAM_HEAD, event(1) + chunk(FULL), STREAM_END],
    "known in its size": [
        STREAM_HEAD + event(1),
        chunk(b": " + b"x" * (len(FULL) - 4) + b"\n\n"),
        chunk(FULL),
        b"0\r\n\r\n",
    ],
    "in pieces": [STREAM_HEAD + event(1), chunk(FULL)[:30], chunk(FULL)[30:] + STREAM_END[:4], STREAM_END[4:]],
}


def writes(pieces: list[bytes], *, breaks_off: bool = False) -> Answer:
    """Return the answer of an engine that writes those pieces, each on its own."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            for _ in range(20):
                await asyncio.sleep(0)
        if breaks_off:
            writer.close()

    return answer


@pytest.mark.parametrize("case", STREAMS)
@pytest.mark.parametrize("minor", [0, 1])
async def test_an_engines_error_event_ends_the_stream_in_our_words(case: str, minor: int) -> None:
    """What came before stays, nothing comes behind, and the connection goes on."""
    async with a_house(writes(STREAMS[case])) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.%d" % minor, 1))
        reply = await client.receive()
        if minor:
            await client.send(a_get("/v1/models"))
            assert (await client.receive()).status == 200

    first, *_, last, end = reply.body.split(b"\n\n")
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (reply.status, first, end) == (200, b'data: {"n":1}', b"")
    assert (error["code"], error["type"], set(error)) == (
        "context_length_exceeded",
        "invalid_request_error",
        ERROR_KEYS,
    )
    assert "2048" in error["message"]


async def test_an_engines_error_event_is_told_also_when_it_breaks_off_behind_it() -> None:
    """That is the better reason of the two."""
    async with a_house(writes([STREAM_HEAD + event(1), chunk(FULL)], breaks_off=True)) as house:
        reply = await house.chat(stream=True)

    assert json.loads(reply.body.rpartition(b"data: ")[2])["error"]["code"] == "context_length_exceeded"
    assert house.door.counters()["streams_lost"] == 0


async def test_an_error_event_that_comes_first_is_an_error_answer() -> None:
    """No byte is out: there is still a status to tell it with."""
    async with a_house(writes([STREAM_HEAD + chunk(FULL) + STREAM_END])) as house:
        reply = await house.chat(stream=True)

    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")


async def test_anthropic_streams_end_in_an_engines_error_in_their_own_words() -> None:
    """Its SDK looks for an event called error, and there is one, not two."""
    full = b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"Compute error."}}\n\n'
    start = b"event: message_start\ndata: {}\n\n"

    async with a_house(writes([STREAM_HEAD + chunk(start) + chunk(full) + STREAM_END])) as house:
        reply = await house.ask(a_post(a_chat(stream=True, max_tokens=5), "/v1/messages"))

    assert reply.body.startswith(start + b"event: error\ndata: ")
    assert reply.body.count(b"event: error") == 1
    assert json.loads(reply.body.rpartition(b"data: ")[2])["error"]["code"] == "engine_error"


async def test_a_text_about_errors_passes_through_as_it_came() -> None:
    """Chunk by chunk, like any other."""
    text = chunk(b'data: {"choices":[{"delta":{"content":"\\"error\\":{"}}]}\n\n')

    async with a_house(writes([STREAM_HEAD + event(1), text, text + STREAM_END])) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)))
        await client.until(b"\r\n\r\n")
        body = await client.until(b"0\r\n\r\n")

    assert body == event(1) + text + text + STREAM_END


# -- losses --------------------------------------------------------------------------------------------


def dies(after: bytes, times: int = 10**9) -> tuple[list[int], Answer]:
    """Return (log, answer) of an engine that breaks off after those bytes, the first few times."""
    log: list[int] = []

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        log.append(1)
        if len(log) > times:
            writer.write(whole({"model": request.json["model"]}))
            return
        writer.write(after)
        await writer.drain()
        writer.close()

    return log, answer


@pytest.mark.parametrize(
    "after",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        whole({"model": "tiny", "x": "y" * 99})[:-5],
        STREAM_HEAD,
        STREAM_HEAD + event(1)[:9],
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        whole({}) + b"more than was announced",
    ],
    ids=["nothing", "half a head", "half a body", "a head", "half a chunk", "nonsense", "too much"],
)
async def test_a_loss_before_the_first_byte_is_repaired_unseen(after: bytes) -> None:
    """F19: the client sees one answer, and how often it was tried."""
    log, answer = dies(after, times=1)

    async with a_house(answer) as house:
        reply = await house.chat()
        counted = house.door.counters()["retries"]

    assert (reply.status, reply.headers["x-mesh-attempts"]) == (200, "2")
    assert (len(log), counted) == (2, 1)


async def test_a_connection_that_went_stale_is_replaced_unseen() -> None:
    """The engine closed it while it was idle; that cannot be told from an engine that died of the request."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(house.engine.requests) == 2:
            writer.close()
            return
        writer.write(whole({"model": "tiny"}))

    async with a_house(answer) as house:
        first, second = await house.chat(), await house.chat()

    assert (first.status, second.status, second.headers["x-mesh-attempts"]) == (200, 200, "2")
    assert house.engine.connections == 2


def has_tried(log: list[int], tries: int, task: asyncio.Task[Reply]) -> bool:
    """Tell whether the engine saw the request so often, or never will again."""
    return task.done() or len(log) >= tries


async def restart_until_answered(house: House, log: list[int], task: asyncio.Task[Reply]) -> None:
    """Restart the engine after every loss, as a node does."""
    for tries, key in enumerate(("first", "second", "third"), start=1):
        await until(partial(has_tried, log, tries, task), "an answer or another try")
        house.views.publish(a_model(state=EngineState.BACKING_OFF))
        house.views.publish(a_model(socket=house.engine.socket, key=key))


@pytest.mark.parametrize("is_used", [False, True], ids=["over a new connection", "over a used one"])
async def test_a_request_that_kills_engines_kills_two_at_most(*, is_used: bool) -> None:
    """A poisoned prompt is given one more chance, not every engine that there is."""
    log, dying = dies(b"")

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.json["messages"][0]["content"] == "hi":
            await answer_ok(request, writer)
        else:
            await dying(request, writer)

    async with a_house(answer) as house:
        if is_used:
            await house.chat()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(house.chat(messages=[{"role": "user", "content": "poison"}]))
            await restart_until_answered(house, log, task)
            reply = await task

    assert (reply.status, reply.error["code"]) == (502, "host_lost")
    assert "2 times" in reply.error["message"]
    assert len(log) == 2


async def test_a_request_that_killed_two_engines_does_not_wait_for_a_third() -> None:
    """It is answered at once, while its model is still being restarted."""
    _, answer = dies(b"")

    async with a_house(answer) as house:
        reply = await house.chat()

    assert (reply.status, reply.error["code"]) == (502, "host_lost")


@pytest.mark.rows("PRX-8")
async def test_a_stream_that_breaks_ends_with_one_error_event() -> None:
    """F20 and the SDK's rules: an error object, no `[DONE]`, a proper last chunk."""
    _, answer = dies(STREAM_HEAD + event(1) + event(2) + event(3)[:7])

    async with a_house(answer) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)))
        reply = await client.receive()
        await client.send(a_get("/v1/models"))
        after = await client.receive()
        counted = house.door.counters()["streams_lost"]

    *events, last, _ = reply.body.split(b"\n\n")
    assert events == [b'data: {"n":1}', b'data: {"n":2}']
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"], set(error)) == ("host_lost", "server_error", ERROR_KEYS)
    assert "after 2 events" in error["message"]
    assert b"[DONE]" not in reply.body
    assert (after.status, counted) == (200, 1)


HUGE = b'data: {"n":2,"x":"' + b"x" * 200_000


@pytest.mark.parametrize(
    "after",
    [
        STREAM_HEAD + event(1) + b"fffff\r\n" + HUGE,
        STREAM_HEAD + event(1) + chunk(HUGE) + b"fffff\r\n" + b"x" * 99_999,
        STREAM_HEAD + event(1) + b"".join(chunk(HUGE[at : at + 9000]) for at in range(0, len(HUGE), 9000)),
    ],
    ids=["in a chunk", "in the second chunk", "in many chunks"],
)
@pytest.mark.parametrize("minor", [0, 1])
async def test_a_stream_that_breaks_inside_a_huge_event_ends_with_an_error_event(after: bytes, minor: int) -> None:
    """Half an event is out and no JSON; behind it the reason stands, and the body ends properly."""
    _, answer = dies(after)

    async with a_house(answer) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.%d" % minor, 1))
        reply = await client.receive()
        if minor:
            await client.send(a_get("/v1/models"))
            assert (await client.receive()).status == 200

    first, half, last, _ = reply.body.split(b"\n\n")
    assert (first, half[:9], half.count(b"\r")) == (b'data: {"n":1}', b'data: {"n', 0)
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "host_lost"
    assert b"[DONE]" not in reply.body


async def test_a_huge_chunk_reaches_clients_old_and_new() -> None:
    """In chunks of ours, or in none."""
    whole_event = HUGE + b'"}\n\n'

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + event(1) + chunk(whole_event) + event(3) + STREAM_END)
        await writer.drain()

    async with a_house(answer) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        old, new = await client.receive(), await house.chat(stream=True)

    assert old.body == new.body == b'data: {"n":1}\n\n' + whole_event + b'data: {"n":3}\n\ndata: [DONE]\n\n'


async def test_a_stream_of_announced_length_that_breaks_is_cut() -> None:
    """Its client counts; nothing more could be said."""
    _, answer = dies(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 900000\r\n\r\ndata: {}\n\n"
    )

    async with a_house(answer) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=True)))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.receive()


async def test_a_lost_stream_is_one_line_that_begins_with_what_happened(caplog: pytest.LogCaptureFixture) -> None:
    """Fields follow the words, as in every other line."""
    caplog.set_level(logging.INFO)
    _, answer = dies(STREAM_HEAD + event(1))

    async with a_house(answer) as house:
        await house.ask(a_post(a_chat(stream=True), CHAT, "X-Request-ID: r1"))

    lines = [PlainFormatter().format(record) for record in caplog.records if record.name.startswith("meshllm")]
    assert [line.partition(" INFO  ")[2] for line in lines] == ["stream lost model=tiny request=r1"]


async def test_a_large_answer_that_breaks_is_cut() -> None:
    """Its length was announced: the client counts."""
    _, answer = dies(whole(b"x" * 1_000_000)[:-10])

    async with a_house(answer) as house:
        client = await house.connect()
        await client.send(a_post(a_chat()))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.receive()
        counted = house.door.counters()["streams_lost"]

    assert counted == 1


async def test_anthropic_streams_break_in_their_own_words() -> None:
    """Its SDK looks for an event called error."""
    _, answer = dies(STREAM_HEAD + event(1))

    async with a_house(answer) as house:
        reply = await house.ask(a_post(a_chat(stream=True, max_tokens=5), "/v1/messages"))

    assert b"\n\nevent: error\ndata: " in reply.body
    assert json.loads(reply.body.rpartition(b"data: ")[2])["type"] == "error"


async def test_the_management_app_is_never_asked_twice_to_change_something() -> None:
    """Whether a POST that broke off was carried out is not known."""

    async def breaks_off(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with a_house() as house:
        house.management.answer = breaks_off
        reply = await house.ask(a_post({"model_id": "x"}, "/v1/models/unload"))

    assert (reply.status, reply.error["code"]) == (502, "management_lost")
    assert len(house.management.requests) == 1


async def test_no_management_app_is_an_error_and_not_a_hang() -> None:
    """Inference goes on without it."""
    async with a_house() as house:
        await house.management.stop()

        assert (await house.ask(a_get("/api/status"))).status == 502
        assert await house.is_well()


async def test_an_engine_may_listen_on_a_port() -> None:
    """Where there are no Unix sockets."""
    async with a_house() as house:
        server = await asyncio.start_server(EngineDouble(house.engine.socket)._serve, "127.0.0.1", 0)
        endpoint = EngineEndpoint(address=("127.0.0.1", server.sockets[0].getsockname()[1]), key="k")
        house.views.publish(a_model("other", state=EngineState.READY), a_model("tiny", state=EngineState.STOPPED))
        model = a_model("tcp", state=EngineState.READY)
        object.__setattr__(model, "endpoint", endpoint)
        house.views.publish(model)

        reply = await house.chat(model="tcp")

        server.close()
    assert reply.json["model"] == "tcp"


async def test_chunks_are_followed_not_searched_for() -> None:
    """A text that looks like the last chunk is a text."""
    payload = b"data: 0\r\n\r\n0\r\n\r\n\n\n"

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(payload))
        await writer.drain()
        writer.write(STREAM_END)

    async with a_house(answer) as house:
        reply = await house.chat(stream=True)

    assert reply.body == payload + b"data: [DONE]\n\n"
