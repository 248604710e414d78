"""An admitted peer's streams by their first byte, and how a link is given up."""

import pytest

from meshllm.core import events as ev
from meshllm.core import limits
from meshllm.core.messages import Ping
from meshllm.transport.codes import CloseCode, Priority, StreamCode, StreamKind
from meshllm.wire.tunnel_errors import TunnelLost
from tests.transport.house import House, a_head, two
from tests.transport.net import Taker, ended, until

ON_BOTH_LOOPS = True


def opened(near: House, data: bytes) -> Taker:
    """Open a raw stream beside what the link does."""
    taker = Taker()
    stream = near.endpoint.connections[0].open_stream(Priority.TOKENS)
    stream.set_protocol(taker)
    stream.write(data)
    if not data:
        stream.write_eof()
    return taker


@pytest.mark.parametrize(
    ("first", "code"),
    [(b"\x63rest", "unknown_stream"), (bytes([StreamKind.CONTROL]), "forbidden"), (b"", "malformed")],
)
async def test_stream_of_the_wrong_kind_costs_itself_alone(first: bytes, code: str) -> None:
    """A newer peer may try something; the connection stays."""
    async with two() as (near, far):
        taker = opened(near, first)
        await until(lambda: taker.lost, "the end of the stream")
        near.peers.send(far.node.id, Ping(seq=1))
        await until(lambda: far.said, "a message")

        assert taker.lost[0].code == code
        assert far.of(ev.PeerLost) == []


async def test_endless_wrong_streams_send_a_peer_away() -> None:
    """A hundred in a minute."""
    async with two() as (near, far):
        for number in range(limits.FORBIDDEN_STREAMS):
            taker = opened(near, b"\x63")
            if number % 20 == 0:
                await ended(taker)
        assert not far.of(ev.PeerLost)

        opened(near, b"\x63")
        await until(lambda: near.of(ev.PeerLost), "the end of patience")

        assert near.of(ev.PeerLost)[0].code == "abuse"


async def test_link_that_was_given_up_takes_no_new_work() -> None:
    """It exists only for what it carries."""
    async with two() as (near, far):
        far.handler = lambda peer, rights, head: Taker()
        link = near.peers._links[far.node.id][0]
        tunnel = link.open_tunnel(a_head(), Taker())

        link.end(CloseCode.REPLACED)
        link.end(CloseCode.REPLACED)

        assert near.of(ev.PeerLost)[0].code == "replaced"
        assert not link.is_active
        with pytest.raises(TunnelLost):
            link.open_tunnel(a_head(), Taker())
        with pytest.raises(TunnelLost):
            await near.peers.open_tunnel(mesh_stranger(near), a_head(), Taker())
        tunnel.abort()


def mesh_stranger(house: House):
    """Return the id of a node that nobody can reach."""
    object.__setattr__(house.peers._settings, "dial_timeout_s", 0.05)
    return house.node.mesh.stranger().id


async def test_link_that_was_given_up_does_not_live_for_ever(monkeypatch) -> None:
    """An exchange that does not end is ended, after a while."""
    monkeypatch.setattr(limits, "CONNECTION_DRAIN_S", 0.2)
    async with two() as (near, far):
        far.handler = lambda peer, rights, head: Taker()
        client = Taker()
        await near.peers.open_tunnel(far.node.id, a_head(), client)

        near.peers.disconnect(far.node.id, near.of(ev.PeerConnected)[0].connection, "spare")
        await until(lambda: client.lost, "the end")

        assert client.lost[0].code == "spare"
        assert [event.code for event in near.of(ev.PeerLost)] == ["spare"]
        await until(lambda: far.of(ev.PeerLost), "the end there")
        assert far.of(ev.PeerLost)[0].code == "spare"


async def test_control_stream_that_is_broken_off_is_a_broken_rule() -> None:
    """Without it nobody knows whether the peer lives."""
    async with two() as (near, far):
        near.peers._links[far.node.id][0]._stream.abort(StreamCode.CANCELLED)
        await until(lambda: far.of(ev.PeerLost), "the end")

        assert far.of(ev.PeerLost)[0].code == "protocol"


async def test_node_that_serves_nothing_says_so() -> None:
    """A client node has no engine."""
    async with two() as (near, far):
        link = far.peers._links[near.node.id][0]
        link._user = type(link._user)(
            on_message=link._user.on_message, on_lost=link._user.on_lost, on_abuse=link._user.on_abuse,
            on_silence=link._user.on_silence, handler=None, line=lambda _: None,
        )  # fmt: skip
        client = Taker()

        await near.peers.open_tunnel(far.node.id, a_head(), client)
        await until(lambda: client.lost, "the refusal")

        assert client.lost[0].refusal.code == "not_hosting"


async def test_quiet_links_are_kept_open() -> None:
    """Nothing to say is no reason to end."""
    async with two() as (near, far):
        link = near.peers._links[far.node.id][0]
        heard_s = link.connection.heard_s

        link.check(heard_s + limits.QUIC_KEEP_ALIVE_S + 1)
        await until(lambda: link.connection.heard_s > heard_s, "an acknowledgement")

        assert link.is_active
        assert link.tunnels == 0
