"""The far end of tunnels: strict, served here or refused, counted apart."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.engines import EngineState
from meshllm.core.events import PathFailed, TrafficMeasured
from meshllm.core.ids import ModelId
from meshllm.core.rights import CLIENT_ONLY, GUEST, Rights
from meshllm.core.routing.priorities import Priority
from meshllm.core.view import LocalModel
from meshllm.wire.tunnel_errors import TunnelFailed
from meshllm.wire.tunnel_frames import TunnelHead, TunnelProgress, TunnelRefusal
from tests.proxy.builders import (
    CHAT,
    NODE,
    STREAM_HEAD,
    TINY,
    Answer,
    House,
    Reply,
    Request,
    TransportDouble,
    a_chat,
    a_get,
    a_model,
    a_post,
    answer_ok,
    chunk,
    event,
    until,
    whole,
)
from tests.proxy.test_client import Gate
from tests.proxy.tunnels import DIGEST, FIRST, SECOND, FarHalf, Half, a_mesh, a_replica, a_served_model

GOOD = a_post(a_chat(), host="engine")


class Peer(asyncio.Protocol):
    """The entry side of one tunnel, seen as bytes."""

    def __init__(self) -> None:
        self.got = b""
        self.has_end = False
        self.is_over = asyncio.Event()
        self.error: Exception | None = None
        self.progress: list[TunnelProgress] = []

    def data_received(self, data: bytes) -> None:
        """Collect."""
        self.got += data

    def eof_received(self) -> bool:
        """End too."""
        self.has_end = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Remember how it ended."""
        self.error = error
        self.is_over.set()

    def tunnel_progress(self, progress: TunnelProgress) -> None:
        """Collect."""
        self.progress.append(progress)

    @property
    def reply(self) -> Reply:
        """Return the answer, which is complete."""
        head, _, body = self.got.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        assert int(headers["content-length"]) == len(body)
        return Reply(int(line.split()[1]), headers, body, head)


def a_head(**facts: Any) -> TunnelHead:
    """Return the head of a tunnel."""
    return TunnelHead(**({"request_id": "r", "model": TINY, "digest": DIGEST, "deadline_s": 60.0} | facts))


def a_tunnel(far: House, head: TunnelHead | None = None) -> tuple[Peer, Half]:
    """Open a tunnel to a far end that takes it."""
    protocol = far.door.far_end.take(NODE, CLIENT_ONLY, head or a_head())
    assert not isinstance(protocol, TunnelRefusal), protocol
    peer = Peer()
    near, other = Half(peer), FarHalf(protocol)
    near.other, other.other = other, near
    other.protocol.connection_made(other)
    return peer, near


async def told(far: House, data: bytes, head: TunnelHead | None = None) -> Reply:
    """Send bytes through a tunnel, end the request, and return the answer."""
    peer, near = a_tunnel(far, head)
    near.write(data)
    near.write_eof()
    async with asyncio.timeout(30):
        await peer.is_over.wait()
    assert peer.has_end
    return peer.reply


def refused(far: House, *, rights: Rights = CLIENT_ONLY, **facts: Any) -> str:
    """Return the code with which a tunnel is refused."""
    refusal = far.door.far_end.take(NODE, rights, a_head(**facts))
    assert isinstance(refusal, TunnelRefusal)
    return refusal.code


async def test_a_request_is_served_by_this_nodes_engine() -> None:
    """With this node's key; the tunnel ends with the answer, and the engine's connection is kept."""
    async with a_mesh() as (_, mesh):
        far = mesh.houses[FIRST]
        replies = [await told(far, GOOD) for _ in range(3)]

        assert [reply.json["model"] for reply in replies] == ["tiny"] * 3
        assert {request.headers["authorization"] for request in far.engine.requests} == {"Bearer engine-key"}
        assert far.engine.connections == 1
        assert far.door.traffic.in_flight == 0


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"rights": Rights.HOST}, "not_admitted"),
        ({"model": ModelId("other")}, "not_hosting"),
        ({"digest": "sha256:" + "1" * 64}, "not_hosting"),
    ],
)
async def test_what_is_not_here_is_refused_before_any_byte(facts: dict[str, Any], code: str) -> None:
    """Typed, so that the entry node knows what to do."""
    async with a_mesh() as (_, mesh):
        far = mesh.houses[FIRST]

        assert refused(far, **facts) == code
        assert far.door.counters()["tunnels_refused"] == 1


async def test_a_full_engine_is_busy_and_says_when_to_come_back() -> None:
    """Tunnels whose request has not come yet count too."""
    async with a_mesh() as (_, mesh):
        far = mesh.houses[FIRST]
        tunnels = []
        while not isinstance(protocol := far.door.far_end.take(NODE, CLIENT_ONLY, a_head()), TunnelRefusal):
            protocol.connection_made(TransportDouble())  # type: ignore[arg-type]
            tunnels.append(protocol)
        another = far.door.far_end.take(SECOND, CLIENT_ONLY, a_head())
        for tunnel in tunnels:
            tunnel.connection_lost(None)

        assert 40 < len(tunnels) <= limits.FAR_TUNNELS_PER_PEER
        assert protocol.code == "busy"
        assert 1.0 <= protocol.retry_after_s <= 5.0
        assert not isinstance(another, TunnelRefusal)
        assert await far.is_well()


async def test_a_queue_that_does_not_move_is_busy_before_it_is_full() -> None:
    """F21: more than two for each slot wait only where they get their turn; the client is told when to come back."""
    gate = Gate(starts=False)
    async with a_mesh(gate.answer) as (entry, mesh), asyncio.TaskGroup() as group:
        far = mesh.houses[FIRST]
        tasks = [group.create_task(entry.chat()) for _ in range(6)]
        await until(lambda: far.door.in_flight(TINY) == 6, "two requests being computed and four queued")
        seen_s = monotonic() - 20.0
        for second in range(20):
            far.door.far_end.note_pace(None, seen_s + second)
        refused = far.door.far_end.take(SECOND, CLIENT_ONLY, a_head())
        reply = await entry.chat()
        gate.open.set()

        assert isinstance(refused, TunnelRefusal)
        assert (refused.code, 1.0 <= refused.retry_after_s <= 5.0) == ("busy", True)
        assert (reply.status, reply.error["code"]) == (429, "overloaded")
        assert 1 <= int(reply.headers["retry-after"]) <= 5
        assert [(await task).status for task in tasks] == [200] * 6
        assert not any(isinstance(event, PathFailed) for event in entry.events)


async def test_a_node_that_leaves_drains() -> None:
    """What runs is finished, what is new is refused."""
    gate = Gate()
    async with a_mesh(gate.answer) as (_, mesh):
        far = mesh.houses[FIRST]
        peer, near = a_tunnel(far)
        near.write(GOOD)
        await until(lambda: far.engine.requests, "the request")
        far.views.publish(*far.views.newest.local.values(), leaving=True)
        code = refused(far)
        gate.open.set()
        await peer.is_over.wait()

    assert code == "draining"
    assert peer.reply.status == 200


async def test_a_node_that_closes_ends_tunnels_with_an_error() -> None:
    """Before the first byte as 503, which the entry node tries elsewhere."""
    gate = Gate()
    async with a_mesh(gate.answer) as (_, mesh):
        far = mesh.houses[FIRST]
        peer, near = a_tunnel(far)
        near.write(GOOD)
        await until(lambda: far.engine.requests, "the request")
        await far.door.close()
        await peer.is_over.wait()
        gate.open.set()

    assert (peer.reply.status, peer.reply.error["code"]) == (503, "leaving")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"\x16\x03\x01 this is not HTTP\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505, "http_version_not_supported"),
        (GOOD[:60] + b"\r\nX: " + b"y" * (1 << 20), 431, "request_header_fields_too_large"),
        (GOOD[:-5], 400, "malformed_request"),
        (GOOD[:30], 400, "malformed_request"),
        (b"", 400, "malformed_request"),
        (GOOD + b"x", 400, "malformed_request"),
        (GOOD + GOOD, 400, "malformed_request"),
        (a_post(b"{", host="engine"), 400, "invalid_json"),
        (a_post(a_chat(model="other"), host="engine"), 400, "model_mismatch"),
        (a_post({"messages": [{"role": "user", "content": "hi"}]}, host="engine"), 400, "model_mismatch"),
        (a_get("/v1/models", host="engine"), 404, "not_found"),
        (a_get("/api/status", host="engine"), 404, "not_found"),
        (a_post({"model": "tiny"}, "/api/shutdown", host="engine"), 404, "not_found"),
        (a_get("/v1/chat/completions", host="engine"), 405, "method_not_allowed"),
        (a_post({"model": "tiny", "input": "x"}, "/v1/embeddings", host="engine"), 400, "capability_not_supported"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else str(value),
)  # fmt: skip
async def test_what_is_wrong_is_answered_and_never_reaches_an_engine(data: bytes, status: int, code: str) -> None:
    """§3.5: a typed error within the budget, and the next good request is served."""
    async with a_mesh() as (_, mesh):
        far = mesh.houses[FIRST]
        reply = await told(far, data)

        assert (reply.status, reply.error["code"]) == (status, code)
        assert far.engine.requests == []
        assert (await told(far, GOOD)).status == 200


async def test_neither_host_nor_origin_nor_key_are_asked_of_a_peer() -> None:
    """A peer was let in before; this node's own rules are for its own clients."""
    async with a_mesh() as (_, mesh):
        far = mesh.houses[FIRST]
        reply = await told(far, a_post(a_chat(), "/v1/chat/completions", "Origin: https://x.example", host="anything"))

    assert reply.status == 200


async def test_bytes_after_the_request_break_the_tunnel() -> None:
    """One request for each tunnel; whoever sends more is cut off, and the slot is free."""
    gate = Gate()
    async with a_mesh(gate.answer) as (_, mesh):
        far = mesh.houses[FIRST]
        peer, near = a_tunnel(far)
        near.write(GOOD)
        await until(lambda: far.engine.requests, "the request")
        near.write(GOOD)
        await peer.is_over.wait()
        gate.open.set()

        assert isinstance(peer.error, ConnectionError)
        assert far.door.traffic.in_flight == 0
        assert len(far.engine.requests) == 1


async def test_a_tunnel_without_a_request_ends() -> None:
    """Idle ones take room from others."""
    async with a_mesh() as (_, mesh):
        peer, _ = a_tunnel(mesh.houses[FIRST])
        async with asyncio.timeout(30):
            await peer.is_over.wait()

    assert (peer.reply.status, peer.reply.error["code"]) == (408, "request_timeout")


async def test_a_request_ends_when_its_time_is_over() -> None:
    """Nobody waits for it any more: the slot is free."""
    gate = Gate()
    async with a_mesh(gate.answer) as (_, mesh):
        far = mesh.houses[FIRST]
        peer, near = a_tunnel(far, a_head(deadline_s=0.1))
        near.write(GOOD)
        async with asyncio.timeout(30):
            await peer.is_over.wait()
        gate.open.set()

        assert (peer.reply.status, peer.reply.error["code"]) == (504, "deadline_exceeded")
        assert far.door.traffic.in_flight == 0


def are_in_flight(far: House, count: int) -> bool:
    """Tell whether so many requests are at the engine."""
    return far.door.in_flight(TINY) == count


async def crash(request: Request, writer: asyncio.StreamWriter) -> None:
    """Die of a request."""
    writer.transport.abort()


async def test_an_engine_that_dies_is_not_asked_again_by_its_own_node() -> None:
    """One retry level: the entry node's."""
    async with a_mesh(crash) as (_, mesh):
        far = mesh.houses[FIRST]
        reply = await told(far, GOOD)

    assert (reply.status, reply.error["code"]) == (502, "engine_lost")
    assert len(far.engine.requests) == 1


async def test_a_resting_connection_that_was_closed_meanwhile_costs_nothing() -> None:
    """The engine lives; only that connection was old."""
    async with a_mesh() as (_, mesh):
        far = mesh.houses[FIRST]
        await told(far, GOOD)
        answers: list[Answer] = [crash, answer_ok]

        async def first_crash(request: Request, writer: asyncio.StreamWriter) -> None:
            await answers.pop(0)(request, writer)

        far.engine.answer = first_crash
        reply = await told(far, GOOD)

    assert reply.status == 200


async def test_an_engine_that_is_not_there_was_not_lost_by_this_request() -> None:
    """Its node has not noticed yet; nothing was sent, so nothing speaks against the request."""
    async with a_mesh() as (_, mesh):
        far = mesh.houses[FIRST]
        await far.engine.stop()
        reply = await told(far, GOOD)

    assert (reply.status, reply.error["code"]) == (503, "model_loading")
    assert 1 <= int(reply.headers["retry-after"]) <= 5


async def test_an_engine_that_was_ended_on_purpose_is_not_called_lost() -> None:
    """The entry node would ask elsewhere, and at last tell its client that a host died."""

    async def end(request: Request, writer: asyncio.StreamWriter) -> None:
        far.views.publish(a_model(state=EngineState.STOPPING, wanted=False))
        writer.transport.abort()

    async with a_mesh(end) as (_, mesh):
        far = mesh.houses[FIRST]
        reply = await told(far, GOOD)

    assert (reply.status, reply.error["code"]) == (503, "model_unloaded")


@pytest.mark.rows("LIF-12")
async def test_a_request_that_a_forced_unload_cut_off_elsewhere_is_told_so() -> None:
    """With its code and words, at the node where it came in."""

    async def end(request: Request, writer: asyncio.StreamWriter) -> None:
        for house in mesh.houses.values():
            house.views.publish(a_model(state=EngineState.STOPPING, wanted=False))
        writer.transport.abort()

    async with a_mesh(end) as (entry, mesh):
        reply = await entry.chat()

    assert (reply.status, reply.error["code"]) == (503, "model_unloaded")


async def test_a_model_that_went_away_after_admission_is_refused() -> None:
    """Much may happen between a head and a body."""
    async with a_mesh() as (_, mesh):
        far = mesh.houses[FIRST]
        replies = []
        for model in (
            a_served_model(far.engine.socket, state=EngineState.STARTING),
            a_served_model(far.engine.socket, name="other"),
        ):
            peer, near = a_tunnel(far)
            far.views.publish(model, node=FIRST)
            near.write(GOOD)
            await peer.is_over.wait()
            replies.append(peer.reply)
            far.views.publish(a_served_model(far.engine.socket), node=FIRST)

    assert [(reply.status, reply.error["code"]) for reply in replies] == [
        (503, "model_loading"), (404, "model_not_found"),
    ]  # fmt: skip


async def test_a_request_never_goes_on_to_another_node() -> None:
    """Even where another one has the model: a mesh of two must not play ball with a request."""
    async with a_mesh(crash) as (_, mesh):
        far = mesh.houses[FIRST]
        far.views.publish(a_served_model(far.engine.socket), node=FIRST, replicas=(a_replica(SECOND),))
        reply = await told(far, GOOD)
        far.views.publish(node=FIRST, replicas=(a_replica(SECOND),))
        code = refused(far)

    assert (reply.status, reply.error["code"]) == (502, "engine_lost")
    assert code == "not_hosting"
    assert mesh.asked == []


async def test_a_peer_that_does_not_read_holds_the_engine_back() -> None:
    """And is let go of when it never does."""
    written = 0

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(STREAM_HEAD)
        for _ in range(400):
            writer.write(chunk(b"data: " + b"x" * 60_000 + b"\n\n"))
            await writer.drain()
            written += 1

    async with a_mesh(answer) as (_, mesh):
        far = mesh.houses[FIRST]
        _, near = a_tunnel(far)
        near.pause_reading()
        near.write(a_post(a_chat(stream=True), host="engine"))
        await until(lambda: near.other.is_told_to_wait, "the far end held back")
        near.abort()
        await until(lambda: far.door.traffic.in_flight == 0, "the slot being free")

        assert written < 400
        assert near.other.most_waiting < 2 << 20


async def test_what_goes_on_is_reported_before_the_first_byte() -> None:
    """How many requests are before it."""
    gate = Gate()
    async with a_mesh(gate.answer) as (_, mesh):
        far, tunnels = mesh.houses[FIRST], []
        for count in (1, 2, 3):
            tunnels.append(a_tunnel(far))
            tunnels[-1][1].write(GOOD)
            await until(partial(are_in_flight, far, count), "the request at the engine")
        await until(lambda: all(peer.progress for peer, _ in tunnels), "reports")
        gate.open.set()
        await asyncio.gather(*(peer.is_over.wait() for peer, _ in tunnels))

    assert [(peer.progress[0].stage, peer.progress[0].queued) for peer, _ in tunnels] == [
        ("computing", 0), ("computing", 0), ("queued", 1),
    ]  # fmt: skip


async def test_requests_are_counted_where_they_came_in_and_where_they_were_served() -> None:
    """Demand belongs to the entry node, work to the far end."""
    async with a_mesh() as (entry, mesh):
        far = mesh.houses[FIRST]
        await entry.chat()
        await far.chat()
        here, there = entry.door.traffic.measured(), far.door.traffic.measured()

        assert here == TrafficMeasured(finished=(), elsewhere=((TINY, 1),))
        assert there == TrafficMeasured(finished=((TINY, 2),), from_peers=((TINY, 1),))
        assert entry.door.counters()["requests_to_peers"] == 1
        assert far.door.counters()["requests_from_peers"] == 1
        assert far.door.counters()["requests"] == 1


async def test_a_stream_that_breaks_breaks_its_tunnel_with_the_reason() -> None:
    """Nothing is said in the stream: the entry node may go on with it elsewhere."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + event(0))
        await writer.drain()
        writer.transport.close()

    async with a_mesh(answer) as (_, mesh):
        peer, near = a_tunnel(mesh.houses[FIRST])
        near.write(a_post(a_chat(stream=True), host="engine"))
        await peer.is_over.wait()

    assert isinstance(peer.error, TunnelFailed)
    assert peer.error.failure.code == "engine_lost"
    assert peer.got.endswith(event(0))


async def test_an_answer_without_an_end_of_its_own_gets_one() -> None:
    """An engine that ends its answer by closing: chunks say where it ends."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}")
        writer.write_eof()

    async with a_mesh(answer) as (entry, _):
        reply = await entry.chat()

    assert (reply.status, reply.body) == (200, b"{}")


async def test_a_priority_travels_and_counts_by_the_rights_of_the_node_that_sends_it() -> None:
    """A full host takes what a host of the same mesh calls urgent; from a mere client that counts as normal."""
    async with a_mesh() as (entry, mesh):
        far = mesh.houses[FIRST]
        for priority in ("high", "low", "normal"):
            assert (await entry.ask(a_post(a_chat(), CHAT, f"X-Priority: {priority}"))).status == 200
        far.door.traffic.of(TINY).in_flight = 66

        from_client = refused(far, priority=1)
        from_host = far.door.far_end.take(NODE, GUEST, a_head(priority=1))
        far.door.traffic.of(TINY).in_flight = 0

    assert [head.priority for _, head in mesh.heads] == [1, 2, 0]
    assert from_client == "busy"
    assert not isinstance(from_host, TunnelRefusal)


@pytest.mark.rows("QTA-17")
async def test_requests_of_other_nodes_wait_at_their_host_in_the_same_turns_as_its_own() -> None:
    """Where priorities met there; whoever gives up waiting leaves its place."""
    order: list[str] = []
    gate = asyncio.Semaphore(0)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        order.append(request.json["messages"][0]["content"])
        await gate.acquire()
        writer.write(whole({"model": "tiny"}))

    def asks(house: House, word: str, priority: str = "normal") -> Coroutine[object, object, Reply]:
        return house.ask(a_post(a_chat(messages=[{"role": "user", "content": word}]), CHAT, f"X-Priority: {priority}"))

    def one_slot(socket: Path) -> tuple[LocalModel, ...]:
        return (a_served_model(socket, slots=1),)

    async with a_mesh(answer, far_models=one_slot) as (entry, mesh), asyncio.TaskGroup() as group:
        far = mesh.houses[FIRST]
        traffic = far.door.traffic.of(TINY)
        tasks = [group.create_task(asks(far, "first")) for _ in range(2)]
        await until(lambda: traffic.in_flight == 2, "two requests at the engine")
        tasks.append(group.create_task(asks(far, "low", "low")))
        await until(lambda: len(traffic.waiters) == 1, "a low one of its own waiting")
        _, gone = a_tunnel(far)
        gone.write(GOOD)
        await until(lambda: len(traffic.waiters) == 2, "one of the other node waiting")
        gone.abort()
        await until(lambda: len(traffic.waiters) == 1, "its place being free")
        tasks += [group.create_task(asks(entry, "far")) for _ in range(2)]
        await until(lambda: len(traffic.waiters) >= 3, "two of the other node waiting")
        assert traffic.in_flight == 2
        for _ in range(8):
            gate.release()
        served = [(await task).status for task in tasks]

    assert served == [200] * 5
    assert order == ["first", "first", "far", "far", "low"]


async def test_a_request_that_waits_at_its_host_is_not_sent_to_an_engine_that_drains() -> None:
    """It would never be done with; the entry node hears of it and looks elsewhere."""
    gate = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(whole({"model": "tiny"}))

    async with a_mesh(answer, far_models=lambda socket: (a_served_model(socket, slots=1),)) as (_, mesh):
        far = mesh.houses[FIRST]
        traffic = far.door.traffic.of(TINY)
        traffic.mind(Priority.LOW)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(told(far, GOOD)) for _ in range(2)]
            await until(lambda: traffic.in_flight == 2, "two requests at the engine")
            tasks.append(group.create_task(told(far, GOOD)))
            await until(lambda: len(traffic.waiters) == 1, "one waiting")
            [model] = far.views.newest.local.values()
            far.views.publish(replace(model, state=EngineState.DRAINING))
            gate.set()
            replies = [await task for task in tasks]

    assert [reply.status for reply in replies] == [200, 200, 503]
    assert len(far.engine.requests) == 2
