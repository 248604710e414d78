"""A tunnel as an engine's connection: the request goes in as it is taken, what comes back is an answer."""

import asyncio
import json
from typing import cast

import pytest

from meshllm.core import limits
from meshllm.core.events import PathFailed
from meshllm.wire.tunnel_frames import TunnelProgress, TunnelRefusal
from tests.proxy.builders import (
    STREAM_END,
    STREAM_HEAD,
    TINY,
    Request,
    a_chat,
    a_house,
    a_post,
    chunk,
    event,
    until,
    whole,
)
from tests.proxy.test_client import Gate, leave
from tests.proxy.tunnels import DIGEST, FIRST, HIGH_BYTES, Half, a_mesh, a_replica

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.rows("PRX-4")
async def test_an_answer_comes_through_a_tunnel_as_it_was() -> None:
    """PRX-4: the body is the engine's, the head says which node answered and why."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b'{"model": "tiny", "x": 1}', X_Engine="kept"))

    async with a_mesh(answer) as (entry, mesh):
        reply = await entry.ask(a_post(a_chat(), "/v1/chat/completions", "X-Request-ID: mine", f"Traceparent: {TRACE}"))
        (request,) = mesh.houses[FIRST].engine.requests

    assert reply.body == b'{"model": "tiny", "x": 1}'
    assert reply.headers["x-engine"] == "kept"
    assert {name: value for name, value in reply.headers.items() if name.startswith("x-mesh")} == {
        "x-mesh-node": FIRST, "x-mesh-model": "tiny", "x-mesh-route-reason": "remote", "x-mesh-attempts": "1",
    }  # fmt: skip
    assert reply.head.lower().count(b"x-request-id: mine\r\n") == 1
    assert b"connection" not in reply.head.lower()
    assert request.headers["authorization"] == "Bearer engine-key"
    assert request.headers["x-request-id"] == "mine"
    ((_, head),) = mesh.heads
    assert (head.request_id, head.model, head.digest, head.attempt, head.traceparent) == (
        "mine", "tiny", DIGEST, 1, TRACE,
    )  # fmt: skip
    assert 3500 < head.deadline_s <= 3600


async def test_a_name_becomes_the_models_own_on_its_way() -> None:
    """The far end serves what the head names, so the body has to name it too."""
    async with a_mesh() as (entry, mesh):
        replies = [await entry.chat(model=name) for name in ("TINY", f"tiny@{DIGEST[:19]}", "auto")]
        asked = [request.json["model"] for request in mesh.houses[FIRST].engine.requests]

    assert [reply.json["model"] for reply in replies] == ["tiny"] * 3
    assert asked == ["tiny"] * 3


async def test_a_stream_arrives_event_by_event_unchanged() -> None:
    """Each event as soon as the engine wrote it, with its chunk around it."""
    more = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + event(0))
        await more.wait()
        writer.write(event(1) + STREAM_END)

    async with a_mesh(answer) as (entry, _):
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=True)))
        head = await client.until(b"\r\n\r\n")
        first = await client.until(event(0))
        more.set()
        rest = await client.until(b"0\r\n\r\n")

    assert b"transfer-encoding: chunked\r\n" in head.lower()
    assert first + rest == event(0) + event(1) + STREAM_END


async def test_large_bodies_pass_both_ways_without_piling_up() -> None:
    """A megabyte each; what waits in the tunnel stays bounded."""
    text = "x" * (1 << 20)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole({"size": len(request.json["messages"][0]["content"]), "text": text}))

    async with a_mesh(answer) as (entry, mesh):
        reply = await entry.chat(messages=[{"role": "user", "content": text[:30_000]}], user=text)
        ((near, far),) = mesh.ends

    assert reply.json == {"size": 30_000, "text": text}
    assert near.written > 1 << 20 < far.written
    assert near.most_waiting <= HIGH_BYTES + (64 << 10)


@pytest.mark.rows("PRX-4")
async def test_a_client_that_reads_slowly_holds_the_engine_back() -> None:
    """Back-pressure runs through the tunnel: nobody stores what nobody reads."""
    event_bytes, written = chunk(b"data: " + b"x" * 60_000 + b"\n\n"), 0

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(STREAM_HEAD)
        for _ in range(400):
            writer.write(event_bytes)
            await writer.drain()
            written += 1
        writer.write(STREAM_END)

    async with a_mesh(answer) as (entry, mesh):
        client = await entry.connect()
        transport = cast("asyncio.Transport", client.writer.transport)
        transport.pause_reading()
        await client.send(a_post(a_chat(stream=True)))
        await until(lambda: mesh.ends and mesh.ends[0][1].is_told_to_wait, "the far end held back")
        before = written
        transport.resume_reading()
        size_bytes, tail = 0, b""
        async with asyncio.timeout(30):
            while not tail.endswith(b"0\r\n\r\n"):
                tail = await client.reader.read(1 << 20)
                size_bytes += len(tail)
        (_, far) = mesh.ends[0]

    assert before < 400
    assert size_bytes > 400 * len(event_bytes)
    assert far.most_waiting < 2 << 20


@pytest.mark.rows("PRX-4")
@pytest.mark.parametrize("starts", [False, True], ids=["before the answer", "in the stream"])
async def test_a_client_that_leaves_frees_the_far_slot(*, starts: bool) -> None:
    """F30: within a second, over a tunnel too."""
    gate = Gate(starts=starts)
    async with a_mesh(gate.answer) as (entry, mesh):
        far = mesh.houses[FIRST]
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=starts)))
        await until(lambda: far.door.in_flight(TINY) == 1, "the request reaching the engine")
        if starts:
            await client.until(event(0))

        await leave(client, "reset")
        await until(lambda: far.door.in_flight(TINY) == 0, "the request ending", within_s=limits.DISCONNECT_GRACE_S)
        gate.open.set()
        await until(lambda: far.engine.open == 0, "the engine's connection closing")

        assert far.door.counters()["tunnels_cancelled"] == 1
        assert entry.door.traffic.in_flight == 0
        assert entry.events == []


@pytest.mark.rows("PRX-4")
async def test_a_client_that_takes_nothing_frees_the_far_slot_in_the_end() -> None:
    """F29: its window is full, its engine stands still, and after its time both nodes are rid of it."""
    event_bytes = chunk(b"data: " + b"x" * 60_000 + b"\n\n")

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if not request.json.get("stream"):
            writer.write(whole({"model": "tiny"}))
            return
        writer.write(STREAM_HEAD)
        while not writer.is_closing():
            writer.write(event_bytes)
            await writer.drain()

    async with a_mesh(answer, slow_client_timeout_s=0.5) as (entry, mesh):
        far = mesh.houses[FIRST]
        client = await entry.connect()
        cast("asyncio.Transport", client.writer.transport).pause_reading()
        await client.send(a_post(a_chat(stream=True)))
        await until(lambda: mesh.ends and mesh.ends[0][1].is_told_to_wait, "the far end held back")
        was_served = await entry.is_well()
        occupied = far.door.in_flight(TINY)
        await until(lambda: far.door.in_flight(TINY) == 0, "the far slot being free")

        assert (was_served, occupied) == (True, 1)
        assert far.door.counters()["tunnels_cancelled"] == 1
        assert entry.door.traffic.in_flight == 0
        assert entry.events == []


async def test_progress_keeps_a_waiting_stream_alive() -> None:
    """A prompt of minutes: comments say how far it is, and the answer follows them."""
    go_on = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(STREAM_HEAD + event(0) + STREAM_END)

    async with a_mesh(answer, comment_s=0.01) as (entry, mesh):
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=True)))
        await until(lambda: mesh.houses[FIRST].engine.requests, "the request being there")
        progress = TunnelProgress(stage="prefill", queued=3, share=0.5)
        reporting = asyncio.get_running_loop().call_later
        handle = None

        def report() -> None:
            nonlocal handle
            mesh.ends[0][1].progress(progress)
            handle = reporting(0.01, report)

        report()
        comment = await client.until(b"read\n\n\r\n")
        assert handle is not None
        handle.cancel()
        go_on.set()
        rest = await client.until(b"0\r\n\r\n")

    assert b": waiting: prefill, 3 requests before it, 50% of the prompt is read" in comment
    assert rest.endswith(event(0) + STREAM_END)


@pytest.mark.parametrize("cut_after", [0, 20, 200])
async def test_a_tunnel_that_breaks_before_the_first_byte_is_one_error(cut_after: int) -> None:
    """Nothing else is there to ask: 502, and membership is told."""
    async with a_mesh() as (entry, mesh):
        mesh.faults[FIRST] = lambda _, far: setattr(far, "cut_after", cut_after)
        reply = await entry.chat()

        assert (reply.status, reply.error["code"]) == (502, "host_lost")
        assert [event for event in entry.events if isinstance(event, PathFailed)] == [
            PathFailed(peer=FIRST, reason="lost")
        ]
        mesh.faults.clear()
        assert await entry.is_well()


async def test_a_tunnel_that_breaks_mid_stream_ends_with_one_error_event() -> None:
    """F20: never silent, no `[DONE]`, a proper end."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + event(0))
        await asyncio.Event().wait()

    async with a_mesh(answer) as (entry, mesh):
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=True)))
        await client.until(event(0))
        mesh.ends[0][0].break_off()
        rest = await client.until(b"0\r\n\r\n")

    error = json.loads(rest.partition(b"data: ")[2].partition(b"\n\n")[0])["error"]
    assert error["code"] == "host_lost"
    assert FIRST[:8] in error["message"]
    assert b"[DONE]" not in rest
    assert [type(event) for event in entry.events] == [PathFailed]


async def test_an_answer_before_the_end_of_the_request_cancels_the_rest() -> None:
    """A far end that refuses a large body early is not sent all of it."""
    text = "x" * (1 << 20)

    async with a_mesh() as (entry, mesh):

        def held(near: object, far: object) -> None:
            near.is_held = True  # type: ignore[attr-defined]
            far.loop.call_later(0.05, far.write, whole({"early": True}))  # type: ignore[attr-defined]

        mesh.faults[FIRST] = held
        reply = await entry.chat(user=text)
        ((near, _),) = mesh.ends
        await until(lambda: near.is_over, "the tunnel's end")

    assert reply.json == {"early": True}
    assert near.written < len(text)
    assert not near.has_ended


async def test_a_tunnel_that_cannot_be_opened_is_an_error() -> None:
    """And membership is told, so that it asks whether that node lives."""
    async with a_mesh() as (entry, mesh):
        mesh.unreachable.add(FIRST)
        reply = await entry.chat()

    assert (reply.status, reply.error["code"]) == (502, "host_lost")
    assert entry.events == [PathFailed(peer=FIRST, reason=f"{FIRST[:8]} is not there")]


async def test_a_node_without_a_mesh_opens_no_tunnels() -> None:
    """A view that holds replicas all the same leads to an error, not to a hang."""
    async with a_house() as house:
        house.views.publish(replicas=(a_replica(),))
        reply = await house.chat()

    assert (reply.status, reply.error["code"]) == (502, "host_lost")


def broken_off(near: Half, far: Half) -> None:
    """Lose a tunnel as soon as it is there."""
    far.loop.call_soon(far.break_off)


@pytest.mark.parametrize("code", ["busy", ""])
async def test_a_tunnel_may_be_over_before_its_opener_knows_that_it_is_open(code: str) -> None:
    """A refusal, or a loss, that comes in the same moment."""
    async with a_mesh() as (entry, mesh):
        mesh.lag = 5
        if code:
            mesh.refusals[FIRST] = TunnelRefusal(code=code)
        else:
            mesh.faults[FIRST] = broken_off
        reply = await entry.chat()

    assert reply.status == (429 if code else 502)


async def test_a_client_that_leaves_while_a_tunnel_is_opened_leaves_nothing_behind() -> None:
    """The far end hears of a cancellation."""
    async with a_mesh() as (entry, mesh):
        mesh.lag = 10_000
        client = await entry.connect()
        await client.send(a_post(a_chat()))
        await until(lambda: mesh.ends, "the tunnel")
        await leave(client, "reset")
        ((near, far),) = mesh.ends
        await until(lambda: near.is_over and far.is_over, "the tunnel's end")

        assert entry.door.traffic.in_flight == 0
        assert mesh.houses[FIRST].engine.requests == []
