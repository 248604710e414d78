"""Tunnels between two nodes over real sockets: exchanges, refusals, life signs, cancelling, back-pressure."""

import asyncio
from time import monotonic

import pytest

from meshllm.core import events as ev
from meshllm.core import limits
from meshllm.core.messages import Ping
from meshllm.core.rights import Rights
from meshllm.transport.codes import Priority, StreamKind
from meshllm.transport.tunnels import FarTunnel, NearTunnel
from meshllm.wire.tunnel_errors import TunnelFailed, TunnelLost, TunnelRefused
from meshllm.wire.tunnel_frames import (
    FrameKind,
    TunnelFailure,
    TunnelProgress,
    TunnelRefusal,
    encode_head,
    tunnel_frame,
)
from tests.transport.builders import Mesh
from tests.transport.house import House, a_head, houses, two
from tests.transport.net import Taker, asked, came, ended, until

ON_BOTH_LOOPS = True


class Client(Taker):
    """Asks, at the near end."""

    def __init__(self) -> None:
        super().__init__(keeps_half_open=False)
        self.stages: list[TunnelProgress] = []

    def tunnel_progress(self, progress):
        """Keep what the far end says of itself."""
        self.stages.append(progress)


class Server(Taker):
    """Answers, at the far end."""

    transport: FarTunnel

    def connection_made(self, transport):
        """Keep the transport."""
        self.transport = transport


class Serving:
    """A handler that keeps whom it made."""

    def __init__(self, house: House, make=Server) -> None:
        self.servers: list[Server] = []
        self.heads: list = []
        self.make = make
        self.refusal: TunnelRefusal | None = None
        house.handler = self

    def __call__(self, peer, rights, head):
        """Take an exchange."""
        self.heads.append((peer, rights, head))
        if self.refusal is not None:
            return self.refusal
        self.servers.append(self.make())
        return self.servers[-1]


async def exchange(near: House, far: House, serving: Serving, **changes) -> tuple[NearTunnel, Client, Server]:
    """Open a tunnel and return both ends."""
    client, known = Client(), len(serving.servers)
    tunnel = await near.peers.open_tunnel(far.node.id, a_head(**changes), client)
    await until(lambda: len(serving.servers) > known, "the far end")
    return tunnel, client, serving.servers[known]


async def test_request_goes_forth_and_answer_back() -> None:
    """Bytes go in at one end and out at the other, each direction with its own end."""
    async with two() as (near, far):
        serving = Serving(far)
        tunnel, client, server = await exchange(near, far, serving, request_id="r7", session="s")

        tunnel.write(b"POST /v1/chat/completions HTTP/1.1\r\n\r\n")
        tunnel.write(b"b" * 200_000)
        tunnel.write_eof()
        await until(lambda: server.has_end, "the request")
        server.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        server.transport.write(b"token " * 10)
        server.transport.write_eof()
        await until(lambda: client.is_lost and server.is_lost, "the end")

        [(peer, rights, head)] = serving.heads
        assert (peer, rights) == (near.node.id, near.peers._links[far.node.id][0].peer.rights)
        assert (head.request_id, head.session, head.model) == ("r7", "s", "tiny")
        assert len(server.data) == 200_038
        assert bytes(client.data) == b"HTTP/1.1 200 OK\r\n\r\n" + b"token " * 10
        assert (client.has_end, client.lost, server.lost) == (True, [None], [None])
        await until(lambda: near.peers.tunnels(far.node.id) + far.peers.tunnels(near.node.id) == 0, "no tunnel")


async def test_answer_may_come_before_the_request_has_ended() -> None:
    """A refused body: the host answers 413 and closes; the rest of the request goes nowhere, and nobody waits."""
    async with two() as (near, far):
        tunnel, client, server = await exchange(near, far, Serving(far))
        server.transport.pause_reading()
        tunnel.write(b"a" * 1_000_000)

        server.transport.write(b"HTTP/1.1 413")
        server.transport.close()
        await until(lambda: client.is_lost and server.is_lost, "the end")
        tunnel.write(b"more")

        assert bytes(client.data) == b"HTTP/1.1 413"
        assert (client.lost, server.lost) == ([None], [None])
        await until(lambda: near.endpoint.connections[0].streams == 1, "no stream but control")


async def test_refusal_is_typed() -> None:
    """The entry node decides by the reason whether to ask elsewhere."""
    async with two() as (near, far):
        serving = Serving(far)
        serving.refusal = TunnelRefusal(code="context_too_long", message="too long", have=2048, need=4096)
        client = Client()

        tunnel = await near.peers.open_tunnel(far.node.id, a_head(), client)
        tunnel.write(b"a" * 500_000)
        await until(lambda: client.is_lost, "the refusal")

        [lost] = client.lost
        assert isinstance(lost, TunnelRefused)
        assert lost.refusal == serving.refusal
        await until(lambda: near.peers.tunnels(far.node.id) + far.peers.tunnels(near.node.id) == 0, "no tunnel")
        await until(lambda: far.endpoint.connections[0].streams == 1, "no stream but control")


async def test_failure_comes_behind_what_was_answered() -> None:
    """The text so far is kept, and the answer is not taken for complete."""
    async with two() as (near, far):
        _, client, server = await exchange(near, far, Serving(far))

        server.transport.write(b"half an answer")
        server.transport.fail(TunnelFailure(code="engine_lost", message="the engine is gone"))
        server.transport.write(b"late")
        await until(lambda: client.is_lost, "the failure")

        [lost] = client.lost
        assert bytes(client.data) == b"half an answer"
        assert isinstance(lost, TunnelFailed)
        assert lost.failure.code == "engine_lost"
        assert not client.has_end


async def test_hanging_up_reaches_the_engine() -> None:
    """The client is gone: its slot at the other machine is free since that is said; also when all was sent."""
    async with two() as (near, far):
        serving = Serving(far)
        for has_sent_all in (False, True):
            tunnel, client, server = await exchange(near, far, serving)
            tunnel.write(b"request")
            if has_sent_all:
                tunnel.write_eof()
                await asked(server)
            server.transport.write(b"some of the answer")

            tunnel.abort()
            await ended(server)

            assert isinstance(server.lost[0], TunnelLost)
            assert server.lost[0].code == "cancelled"
            await ended(client)
            assert client.lost == [None]


async def test_cancel_as_a_frame_is_understood() -> None:
    """Other programs may say it in the words of the protocol."""
    async with two() as (near, far):
        serving = Serving(far)
        stream = near.endpoint.connections[0].open_stream(Priority.TOKENS)
        stream.set_protocol(Taker())

        stream.write(bytes([StreamKind.TUNNEL]) + encode_head(a_head()) + tunnel_frame(FrameKind.CANCEL))
        await until(lambda: serving.servers and serving.servers[0].lost, "the end")

        assert serving.servers[0].lost[0].code == "cancelled"


async def test_host_that_breaks_off_is_lost_to_the_asker() -> None:
    """Without its end an answer is not complete."""
    async with two() as (near, far):
        _, client, server = await exchange(near, far, Serving(far))
        server.transport.write(b"half")
        await until(lambda: client.data == b"half", "half an answer")

        server.transport.abort()
        await until(lambda: client.lost, "the end")

        assert isinstance(client.lost[0], TunnelLost)
        assert client.lost[0].code == "cancelled"


async def test_end_of_the_connection_is_the_end_of_its_tunnels() -> None:
    """A host that leaves, or dies."""
    async with two() as (near, far):
        _, client, server = await exchange(near, far, Serving(far))

        far.peers.close()
        await until(lambda: client.lost and server.lost, "both ends")

        assert client.lost[0].code == "leaving"
        assert server.lost[0].code == "leaving"


async def test_far_end_says_that_it_lives(monkeypatch) -> None:
    """A long prefill is not silence: what goes on is told, until the first byte; then that something goes on."""
    monkeypatch.setattr(limits, "TUNNEL_HEARTBEAT_S", 0.05)
    monkeypatch.setattr(limits, "TUNNEL_SILENCE_S", 0.5)
    async with two() as (near, far):
        tunnel, client, server = await exchange(near, far, Serving(far))
        await until(lambda: len(client.stages) >= 2, "heartbeats")
        server.transport.progress(TunnelProgress(stage="prefill", queued=2, share=0.5))
        await until(lambda: len(client.stages) >= 12, "more heartbeats than patience")
        server.transport.write(b"first")
        await until(lambda: client.data == b"first", "the first byte")
        stages, heard_s = len(client.stages), tunnel._heard_s
        await until(lambda: tunnel._heard_s > heard_s + 0.6, "life signs after it")
        server.transport.progress(TunnelProgress(stage="late"))
        server.transport.write_eof()
        await until(lambda: client.is_lost, "the end")

        assert client.stages[0].stage == "waiting"
        assert client.stages[-1] == TunnelProgress(stage="prefill", queued=2, share=0.5)
        assert len(client.stages) == stages
        assert bytes(client.data) == b"first"
        assert client.lost == [None]


async def test_silent_far_end_is_lost_and_looked_after(monkeypatch) -> None:
    """A stopped process holds its connection; only its silence tells."""
    monkeypatch.setattr(limits, "TUNNEL_SILENCE_S", 1.0)
    async with two() as (near, far):
        _, client, _ = await exchange(near, far, Serving(far))

        await until(lambda: client.lost, "the end")

        assert client.lost[0].code == "silent"
        assert near.of(ev.PathFailed)[0].reason == "silent"


async def test_silence_while_nobody_listens_is_none(monkeypatch) -> None:
    """A slow client pauses its answer for longer than any heartbeat."""
    monkeypatch.setattr(limits, "TUNNEL_SILENCE_S", 0.5)
    monkeypatch.setattr(limits, "TUNNEL_HEARTBEAT_S", 0.05)
    async with two() as (near, far):
        tunnel, client, server = await exchange(near, far, Serving(far))
        loop = asyncio.get_running_loop()
        tunnel.pause_reading()
        until_s = loop.time() + 1.0

        server.transport.write(b"answer")
        server.transport.write_eof()
        await until(lambda: loop.time() > until_s, "a pause longer than patience")
        lost_before = list(client.lost)
        tunnel.resume_reading()
        await until(lambda: client.is_lost, "the end")

        assert lost_before == []
        assert bytes(client.data) == b"answer"
        assert client.lost == [None]


async def test_process_that_was_stopped_itself_accuses_nobody(monkeypatch) -> None:
    """What came meanwhile lies unread: after a SIGSTOP, or behind a loop that was busy, no answer is given up."""
    monkeypatch.setattr(limits, "TUNNEL_SILENCE_S", 0.4)
    monkeypatch.setattr(limits, "TUNNEL_HEARTBEAT_S", 0.05)
    async with two() as (near, far):
        tunnel, client, server = await exchange(near, far, Serving(far))
        loop, heard_s = asyncio.get_running_loop(), tunnel._heard_s
        stopped_until_s = loop.time() + 1.0
        while monotonic() < stopped_until_s:
            pass
        await until(lambda: tunnel._heard_s > heard_s + 1.2, "signs of life after it")
        lost_before = list(client.lost)
        server.transport.write(b"answer")
        server.transport.write_eof()
        await until(lambda: client.is_lost, "the end")

        assert lost_before == []
        assert bytes(client.data) == b"answer"
        assert client.lost == [None]


async def test_paused_answer_outlives_its_connection() -> None:
    """All of it is here; that the host has left since changes nothing."""

    class Sip(Client):
        tunnel: NearTunnel

        def connection_made(self, transport):
            self.tunnel = transport

        def data_received(self, data):
            super().data_received(data)
            self.tunnel.pause_reading()

    async with two() as (near, far):
        serving = Serving(far)
        client = Sip()
        tunnel = await near.peers.open_tunnel(far.node.id, a_head(), client)
        tunnel.write_eof()
        await until(lambda: serving.servers and serving.servers[0].has_end, "the request")
        server = serving.servers[0]
        server.transport.write(b"one ")
        server.transport.write(b"two ")
        server.transport.write(b"three")
        server.transport.write_eof()
        await until(lambda: client.data == b"one " and tunnel._reader.is_over, "the first sip, and all of it here")

        far.peers.close()
        await until(lambda: near.of(ev.PeerLost), "the end of the connection")
        for words in (b"one two ", b"one two three"):
            tunnel.resume_reading()
            await came(client, words)
        tunnel.resume_reading()
        await until(lambda: client.is_lost, "the end")

        assert client.lost == [None]


async def test_slow_client_holds_up_its_own_engine_only() -> None:
    """Back-pressure goes from the client's socket through the tunnel to the engine's."""
    async with two() as (near, far):
        serving = Serving(far)
        slow, slow_client, slow_server = await exchange(near, far, serving)
        slow.pause_reading()
        others = [await exchange(near, far, serving) for _ in range(20)]

        for _, _, server in [(slow, slow_client, slow_server), *others]:
            server.transport.write(b"a" * 600_000)
        await until(lambda: all(client.taken_bytes == 600_000 for _, client, _ in others), "the others' answers")

        assert slow_server.is_held_back
        assert slow_client.taken_bytes == 0
        assert slow_server.transport.get_write_buffer_size() >= 600_000 - limits.QUIC_STREAM_WINDOW_BYTES
        slow.resume_reading()
        await until(lambda: slow_client.taken_bytes == 600_000, "the slow one's answer")
        await until(lambda: not slow_server.is_held_back, "room")
        for tunnel, _, _ in [(slow, slow_client, slow_server), *others]:
            tunnel.abort()


async def test_ping_does_not_wait_behind_answers() -> None:
    """Fifty answers in flight must not make a host look dead."""
    async with two() as (near, far):
        serving = Serving(far)
        ends = [await exchange(near, far, serving) for _ in range(50)]
        for _, _, server in ends:
            server.transport.write(b"a" * 200_000)

        far.peers.send(near.node.id, Ping(seq=1))
        await until(lambda: near.said, "the ping")

        waiting = sum(server.transport.get_write_buffer_size() for _, _, server in ends)
        assert waiting > 5_000_000
        for tunnel, _, _ in ends:
            tunnel.abort()


async def test_request_without_the_right_is_forbidden() -> None:
    """A node that may not infer gets nothing from an engine; often enough, and it is sent away."""
    mesh = Mesh()
    async with houses(mesh.member(Rights.HOST), mesh.member()) as (near, far):
        serving = Serving(far)
        await near.reach(far)
        client = Client()

        await near.peers.open_tunnel(far.node.id, a_head(), client)
        await until(lambda: client.lost, "the end")
        for _ in range(limits.FORBIDDEN_STREAMS):
            await near.peers.open_tunnel(far.node.id, a_head(), asyncio.Protocol())
            await asyncio.sleep(0)
            if not near.peers.is_connected(far.node.id):
                break
            await until(lambda: near.peers.tunnels(far.node.id) < 40 or near.of(ev.PeerLost), "some ends")
        await until(lambda: near.of(ev.PeerLost), "the end of patience")

        assert client.lost[0].code == "forbidden"
        assert serving.heads == []
        assert near.of(ev.PeerLost)[0].code == "abuse"
        assert far.of(ev.PeerLost)[0].code == "abuse"
        failed = await near.refusal(far)
        assert failed.code == "rejected"


async def test_too_many_at_a_time_are_refused_here_and_there(monkeypatch) -> None:
    """Each open stream costs every packet; one peer's share of an engine is bounded."""
    async with two() as (near, far):
        serving = Serving(far)
        monkeypatch.setattr(limits, "TUNNELS_PER_PEER", 3)
        tunnels = [await exchange(near, far, serving) for _ in range(3)]

        with pytest.raises(TunnelRefused) as raised:
            await near.peers.open_tunnel(far.node.id, a_head(), Client())
        near.peers._links[far.node.id][0]._tunnels.clear()
        client = Client()
        await near.peers.open_tunnel(far.node.id, a_head(), client)
        await until(lambda: client.lost, "the refusal")

        assert raised.value.refusal.code == client.lost[0].refusal.code == "busy"
        assert len(serving.servers) == 3
        for tunnel, _, _ in tunnels:
            tunnel.abort()


@pytest.mark.parametrize(
    "words",
    [
        tunnel_frame(FrameKind.DATA, b"no head"),
        encode_head(a_head()) + encode_head(a_head()),
        encode_head(a_head()) + tunnel_frame(FrameKind.END) + tunnel_frame(FrameKind.END),
        encode_head(a_head()) + tunnel_frame(FrameKind.END) + tunnel_frame(FrameKind.DATA, b"late"),
        b"\x02\xff\xff\xff",
        b"\x63\x00\x00\x00",
        tunnel_frame(FrameKind.HEAD, b"\xc1"),
    ],
    ids=["no head", "two heads", "two ends", "late data", "too large", "unknown", "no map"],
)
async def test_broken_exchange_costs_its_own_stream(words: bytes) -> None:
    """A mistake of a peer in one exchange ends that one."""
    async with two() as (near, far):
        serving = Serving(far)
        taker = Taker()
        stream = near.endpoint.connections[0].open_stream(Priority.TOKENS)
        stream.set_protocol(taker)

        stream.write(bytes([StreamKind.TUNNEL]) + words)
        await until(lambda: taker.lost, "the end")
        _, client, server = await exchange(near, far, serving)
        server.transport.write(b"fine")
        await until(lambda: client.data == b"fine", "another exchange")

        assert taker.lost[0].code == "malformed"
        assert far.of(ev.PeerLost) == []


async def test_broken_answer_is_lost_to_the_asker() -> None:
    """Neither is a far end trusted to keep to the form."""
    async with two() as (near, far):
        tunnel, client, server = await exchange(near, far, Serving(far))

        server.transport._stream.write(tunnel_frame(FrameKind.END) + b"x")
        await until(lambda: client.lost, "the end")

        assert client.lost[0].code == "malformed"
        assert tunnel.is_closing()


@pytest.mark.parametrize("way", ["cut", "finished"])
async def test_stream_that_ends_before_the_exchange_is_truncated(way: str) -> None:
    """A FIN is not an end: only the frame says that all was said."""
    async with two() as (near, far):
        _, client, server = await exchange(near, far, Serving(far))
        server.transport.write(b"half")

        server.transport._stream.write(b"\x02\x00" if way == "cut" else b"")
        server.transport._stream.write_eof()
        await until(lambda: client.lost, "the end")

        assert client.lost[0].code == "truncated"
        assert not client.has_end


async def test_head_that_does_not_come_ends_by_itself(monkeypatch) -> None:
    """An open stream without a request is not kept for ever."""
    monkeypatch.setattr(limits, "TUNNEL_HEAD_TIMEOUT_S", 0.1)
    async with two() as (near, far):
        Serving(far)
        takers = []
        for words in (bytes([StreamKind.TUNNEL]), bytes([StreamKind.TUNNEL]) + encode_head(a_head())[:9]):
            stream = near.endpoint.connections[0].open_stream(Priority.TOKENS)
            takers.append(Taker())
            stream.set_protocol(takers[-1])
            stream.write(words)
        await until(lambda: all(taker.lost for taker in takers), "both ends")

        assert {taker.lost[0].code for taker in takers} == {"timeout"}
        assert far.peers.tunnels(near.node.id) == 0


async def test_thousand_exchanges_leave_nothing() -> None:
    """Streams, tunnels and timers go with each of them."""
    async with two() as (near, far):

        class Answering(Server):
            def eof_received(self):
                self.transport.write(b"answer")
                self.transport.write_eof()
                return True

        serving = Serving(far, Answering)
        for _ in range(20):
            clients = [Client() for _ in range(50)]
            for client in clients:
                tunnel = await near.peers.open_tunnel(far.node.id, a_head(), client)
                tunnel.write(b"request")
                tunnel.write_eof()
            for client in clients:
                await ended(client)
            assert {bytes(client.data) for client in clients} == {b"answer"}
        await until(
            lambda: near.endpoint.connections[0].streams == far.endpoint.connections[0].streams == 1, "no stream"
        )

        assert len(serving.servers) == 1000
        assert near.peers.tunnels(far.node.id) == far.peers.tunnels(near.node.id) == 0
        await until(lambda: len(far.endpoint.connections[0].quic._streams) < 60, "the library's streams")


async def test_tunnel_says_what_asyncio_asks() -> None:
    """Splices treat tunnels like sockets."""
    async with two() as (near, far):
        tunnel, client, server = await exchange(near, far, Serving(far, Server))

        assert isinstance(tunnel, asyncio.Transport)
        assert tunnel.can_write_eof()
        assert tunnel.is_reading()
        assert tunnel.get_protocol() is client
        assert tunnel.get_write_buffer_limits()[1] == limits.QUIC_UNSENT_HIGH_BYTES
        assert tunnel.get_extra_info("connection") is near.endpoint.connections[0]
        assert server.transport.get_protocol() is server
        tunnel.close()
        tunnel.close()
        assert not tunnel.is_reading()
        await until(lambda: server.has_end, "the end of the request")
