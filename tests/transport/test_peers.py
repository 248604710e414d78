"""Peers over real sockets: dials, messages, replaced connections, admission, and what is told of all that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from meshllm.core import events as ev
from meshllm.core import limits
from meshllm.core.announcement import Address, Record
from meshllm.core.messages import Ack, Delta, Ping, Push
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE
from meshllm.transport.codes import CloseCode
from meshllm.transport.line import LineStream
from meshllm.wire.tunnel_errors import TunnelLost
from tests.transport.builders import Mesh
from tests.transport.house import House, a_head, houses, two
from tests.transport.lines import Ways, ways
from tests.transport.net import Taker, closed_port, listening, until

ON_BOTH_LOOPS = True


async def test_members_find_each_other_connected() -> None:
    """Each learns who the other is, what it may do, and where it is seen."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member(GUEST)) as (near, far):
        await near.reach(far)

        [mine], [theirs] = near.of(ev.PeerConnected), far.of(ev.PeerConnected)
        assert (mine.peer, mine.rights, mine.is_dialled) == (far.node.id, GUEST, True)
        assert (theirs.peer, theirs.rights, theirs.is_dialled) == (near.node.id, OWN_MACHINE, False)
        assert mine.address == far.endpoint.address
        assert theirs.address == near.endpoint.address
        assert (mine.issuers, theirs.issuers) == ((), ())
        assert near.joined[0][1].observed == near.endpoint.address
        assert far.endpoint.strangers == 0
        assert near.peers.is_connected(far.node.id)


async def test_admins_behind_a_certificate_are_told() -> None:
    """Whoever was admitted by an expelled admin falls with it."""
    mesh = Mesh()
    admin = mesh.member()
    async with houses(mesh.member(by=admin), mesh.member()) as (near, far):
        await near.reach(far)

        assert far.of(ev.PeerConnected)[0].issuers == (admin.id,)


async def test_messages_arrive_in_order_in_both_directions() -> None:
    """Control streams carry what members say, from the first moment on."""
    async with two() as (near, far):
        for number in range(100):
            near.peers.send(far.node.id, Ping(seq=number))
        far.peers.send(near.node.id, Ack(seq=7))
        await until(lambda: len(far.of(ev.MessageReceived)) == 100 and near.of(ev.MessageReceived), "every message")

        assert [message.seq for message in far.said] == list(range(100))
        [answer] = near.of(ev.MessageReceived)
        assert answer.message == Ack(seq=7)
        assert answer.connection == near.of(ev.PeerConnected)[0].connection
        assert answer.peer == far.node.id


async def test_what_is_said_with_the_welcome_is_not_lost() -> None:
    """The acceptor may speak in the same datagram that lets the dialler in."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member()) as (near, far):

        def greet(event):
            if isinstance(event, ev.PeerConnected):
                for number in range(5):
                    far.peers.send(near.node.id, Ping(seq=number))

        far.on_event = greet
        await near.reach(far)
        await until(lambda: len(near.of(ev.MessageReceived)) == 5, "every message")

        kinds = [type(event).__name__ for event in near.events]
        assert kinds == ["PeerConnected", *["MessageReceived"] * 5]


async def test_own_record_is_signed_and_others_are_carried_as_they_are() -> None:
    """Anybody can carry a record; nobody but its owner can change it."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member(), mesh.member()) as (one, two_, three):
        await one.reach(two_)
        await two_.reach(three)
        said = one.node.says(addresses=(Address("192.0.2.7", 4000),))

        one.peers.send(two_.node.id, Push(records=(Record(announcement=said),)))
        await until(lambda: two_.of(ev.MessageReceived), "the record")
        [record] = two_.said[0].records
        two_.peers.send(three.node.id, Delta(records=(record,)))
        await until(lambda: three.of(ev.MessageReceived), "the carried record")

        [carried] = three.said[0].records
        assert record.announcement == said
        assert carried == record
        assert carried.sealed


async def test_own_id_is_not_dialled() -> None:
    """A roster may list this very node."""
    mesh = Mesh()
    async with houses(mesh.member()) as (house,):
        failed = await house.refusal(house)

        assert failed.code == "self"


async def test_twin_with_the_same_key_is_told_as_oneself() -> None:
    """A copied state folder: what answers has this very node's key."""
    mesh = Mesh()
    member = mesh.member()
    async with houses(member, member) as (one, twin):
        await one.peers._dial(member.id, [twin.endpoint.address])

        assert [event.code for event in one.of(ev.DialFailed)] == ["self"]
        assert [event.code for event in twin.of(ev.HandshakeFailed)] == ["self"]


async def test_first_address_that_leads_there_wins() -> None:
    """Old addresses, other nodes' addresses and dead ports delay nothing."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member(), mesh.member()) as (near, far, other):
        addresses = [closed_port(), other.endpoint.address, far.endpoint.address, far.endpoint.address, closed_port()]

        near.peers.dial(far.node.id, addresses)
        await until(lambda: near.of(ev.PeerConnected), "a connection")

        assert near.of(ev.DialFailed) == []
        assert len(far.of(ev.PeerConnected)) == 1
        await until(lambda: len(near.endpoint.connections) == 1, "the end of the other dials")


@pytest.mark.parametrize("addresses", [[], [closed_port()]])
async def test_failed_dial_is_told_once(addresses: list[Address]) -> None:
    """Every dial has exactly one answer."""
    mesh = Mesh()
    peer = mesh.member().id
    async with houses(mesh.member()) as (near,):
        near.peers.dial(peer, addresses)
        near.peers.dial(peer, addresses)
        await until(lambda: near.of(ev.DialFailed), "a failure")

        [failed] = near.of(ev.DialFailed)
        assert failed.code == "unreachable"
        assert failed.message
        assert near.endpoint.connections == ()


async def test_another_node_at_the_address_is_told() -> None:
    """An address was given to another machine."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member()) as (near, far):
        near.peers.dial(mesh.member().id, [far.endpoint.address])
        await until(lambda: near.of(ev.DialFailed), "a failure")

        assert near.of(ev.DialFailed)[0].code == "wrong_identity"
        assert far.events == []


async def test_peer_that_accepts_and_says_nothing_delays_nobody() -> None:
    """A join must not hang on a peer that is up and silent."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member(), mesh.member(), dial_timeout_s=0.5) as (near, mute, far):
        sides = listening(mute.endpoint)

        near.dial(mute)
        await near.reach(far)
        silent_before = list(near.of(ev.DialFailed))
        await until(lambda: near.of(ev.DialFailed), "the failure")

        assert silent_before == []
        assert near.of(ev.DialFailed)[0].code == "timeout"
        assert len(sides[0].streams) == 1
        assert len(near.endpoint.connections) == 1


async def test_core_may_give_up_one_of_two_connections() -> None:
    """Both dialled at once: the core keeps one, and the end of the other is not taken for the peer's."""
    async with two() as (near, far):
        await far.reach(near)
        first, second = near.of(ev.PeerConnected)

        near.peers.disconnect(far.node.id, first.connection, "replaced")
        await until(lambda: near.of(ev.PeerLost) and far.of(ev.PeerLost), "the end of the first")
        near.peers.disconnect(far.node.id, first.connection, "replaced")
        near.peers.send(far.node.id, Ping(seq=1))
        await until(lambda: far.of(ev.MessageReceived), "a message over the second")

        [mine], [theirs] = near.of(ev.PeerLost), far.of(ev.PeerLost)
        assert (mine.connection, mine.code) == (first.connection, "replaced")
        assert (theirs.connection, theirs.code) == (far.of(ev.PeerConnected)[0].connection, "replaced")
        assert second.connection != first.connection
        assert near.peers.is_connected(far.node.id)


@pytest.mark.parametrize("code", ["revoked", "spare", "dead", "a word of tomorrow"])
async def test_reason_of_an_end_reaches_the_other_side(code: str) -> None:
    """People ask why a node is gone."""
    async with two() as (near, far):
        near.peers.disconnect(far.node.id, near.of(ev.PeerConnected)[0].connection, code)
        await until(lambda: near.of(ev.PeerLost) and far.of(ev.PeerLost), "the end at both sides")

        told = code if code.upper() in CloseCode.__members__ else "done"
        assert near.of(ev.PeerLost)[0].code == told
        assert far.of(ev.PeerLost)[0].code == told
        assert not near.peers.is_connected(far.node.id)


async def test_leaving_is_told_at_once() -> None:
    """Not after twenty seconds of silence."""
    async with two() as (near, far):
        far.peers.close()
        await until(lambda: near.of(ev.PeerLost), "the end")

        assert near.of(ev.PeerLost)[0].code == "leaving"
        assert far.of(ev.PeerLost) == []


async def test_process_that_was_killed_is_a_reason_to_look() -> None:
    """Its kernel refuses what is sent there; told once a second, not once a datagram."""
    async with two() as (near, far):
        far.endpoint._socket.close()

        for number in range(20):
            near.peers.send(far.node.id, Ping(seq=number))
            await asyncio.sleep(0)
        await until(lambda: near.of(ev.PathFailed), "the refusal")

        [failed] = near.of(ev.PathFailed)
        assert (failed.peer, failed.reason) == (far.node.id, "refused")
        assert near.of(ev.PeerLost) == []


async def test_round_trips_are_told_when_they_change(monkeypatch) -> None:
    """A value that is the same as ever is no news."""
    monkeypatch.setattr(limits, "QUIC_KEEP_ALIVE_S", 0.05)
    async with two() as (near, far):
        await until(lambda: near.of(ev.RoundTripMeasured), "a measurement")
        link = near.peers._links[far.node.id][0]
        monkeypatch.setattr(limits, "ROUND_TRIP_CHANGE", 1e9)
        near.events.clear()
        link.check(1e12)
        near.peers._sweep()

        assert near.of(ev.RoundTripMeasured) == []


async def test_tunnel_waits_for_a_connection_that_is_wanted() -> None:
    """In a large mesh nodes are not connected to everybody."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member(), dial_timeout_s=0.3) as (near, far):
        far.handler = lambda peer, rights, head: Taker()
        head = a_head()

        opening = near.start_task("open", near.peers.open_tunnel(far.node.id, head, Taker()))
        await until(lambda: near.wanted, "the wish")
        near.dial(far)
        tunnel = await opening
        gone = mesh.member().id
        with pytest.raises(TunnelLost):
            await near.peers.open_tunnel(gone, head, Taker())
        failing = near.start_task("open", near.peers.open_tunnel(gone, head, Taker()))
        await asyncio.sleep(0)
        near.peers.dial(gone, [])
        with pytest.raises(TunnelLost) as raised:
            await failing

        assert near.wanted == [far.node.id, gone, gone]
        assert raised.value.code == "unreachable"
        assert near.peers.tunnels(far.node.id) == 1
        assert near.peers._waiting == {}
        tunnel.abort()


async def test_connection_with_an_exchange_outlives_its_replacement() -> None:
    """An answer that streams is not cut because two nodes dialled each other."""
    async with two() as (near, far):
        answers: list[Taker] = []

        def answer(peer, rights, head):
            answers.append(Taker())
            return answers[-1]

        far.handler = answer
        tunnel = await near.peers.open_tunnel(far.node.id, a_head(), Taker())
        await until(lambda: far.peers.tunnels(near.node.id), "the exchange")
        first = near.of(ev.PeerConnected)[0]
        await near.reach(far)

        near.peers.disconnect(far.node.id, first.connection, "replaced")
        await until(lambda: near.of(ev.PeerLost) and far.of(ev.PeerLost), "the replacement")
        tunnel.write(b"still here")
        await until(lambda: answers[0].data == b"still here", "bytes over the old connection")
        connections = len(near.endpoint.connections)
        near.peers.send(far.node.id, Ping(seq=1))
        await until(lambda: far.of(ev.MessageReceived), "a message over the new one")
        tunnel.abort()
        await until(lambda: len(near.endpoint.connections) == 1 == len(far.endpoint.connections), "the old one's end")

        assert connections == 2
        assert near.of(ev.PeerLost)[0].code == "replaced"
        assert far.of(ev.PeerLost)[0].code == "replaced"
        assert len(near.of(ev.PeerLost)) == 1


async def test_nothing_stays_behind_after_many_connections(monkeypatch) -> None:
    """Links, tickets, tunnels and library objects go with their connections."""
    monkeypatch.setattr(limits, "QUIC_CLOSE_LINGER_S", 0.05)
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member(CLIENT_ONLY)) as (near, far):
        for _ in range(5):
            await near.reach(far)
            near.peers.disconnect(far.node.id, near.of(ev.PeerConnected)[-1].connection, "done")
            await until(lambda: len(near.of(ev.PeerLost)) == len(near.of(ev.PeerConnected)), "the end here")
            await until(lambda: len(far.of(ev.PeerLost)) == len(far.of(ev.PeerConnected)), "the end there")
        near.peers._sweep()
        far.peers._sweep()
        await until(lambda: not near.endpoint._ids and not far.endpoint._ids, "empty tables")

        for house in (near, far):
            assert (house.peers._links, house.peers._retired, house.peers._dialling) == ({}, set(), set())
            assert house.peers._door.waiting == 0


async def test_a_tunnel_to_a_near_peer_goes_on_a_line_as_soon_as_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends with its peer, as if it had gone on the connection."""
    monkeypatch.setattr("meshllm.core.line_limits.LINE_ROUND_TRIP_S", 10.0)  # a busy machine takes its time
    async with linked() as (near, far, both):
        far.handler = lambda *_: Taker(keeps_half_open=False)
        near.peers._line(near.peers._links[far.node.id][0])
        await until(lambda: both.near._resting, "a line")

        user = Taker()
        tunnel = await near.peers.open_tunnel(far.node.id, a_head(), user)
        await until(lambda: far.peers.tunnels(near.node.id) == 1, "the tunnel at the far end")
        on_lines = both.near.counts()[far.node.id] > 0 and isinstance(tunnel._stream, LineStream)
        near.peers.disconnect(far.node.id, near.of(ev.PeerConnected)[0].connection, "dead")
        await until(lambda: user.is_lost, "the end of the tunnel")

        assert on_lines
        assert isinstance(user.lost[0], TunnelLost)
        assert user.lost[0].code == "dead"  # heard from this node itself: the other one may be silent


async def test_a_stream_on_a_line_from_a_peer_without_a_connection_is_ended() -> None:
    """Its rights are those that it has on its connection."""
    async with linked(is_connected=False) as (near, far, both):
        stream, taker = await both.stream()
        stream.write(b"x")
        await until(lambda: taker.is_lost, "the end of the stream")

        assert far.peers.tunnels(near.node.id) == 0


async def test_a_far_peer_gets_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ways through the world change, and only the connection follows them."""
    monkeypatch.setattr("meshllm.core.line_limits.LINE_ROUND_TRIP_S", 0.0)
    async with linked() as (near, far, both):
        far.handler = lambda *_: Taker(keeps_half_open=False)

        tunnel = await near.peers.open_tunnel(far.node.id, a_head(), Taker())

        assert not isinstance(tunnel._stream, LineStream)
        assert both.dials == 0
        tunnel.abort()


@asynccontextmanager
async def linked(*, is_connected: bool = True) -> AsyncIterator[tuple[House, House, Ways]]:
    """Open two members, between which there can be lines."""
    async with ways() as both:
        near, far = House(both.near_node), House(both.far_node)
        try:
            await near.open(lines=both.near)
            await far.open(lines=both.far)
            if is_connected:
                await near.reach(far)
            yield near, far, both
        finally:
            await near.close()
            await far.close()
