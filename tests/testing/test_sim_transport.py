"""Connections of a simulated mesh behave as QUIC does, seen from above."""

from typing import Any

from meshllm.core import events as ev
from meshllm.core.announcement import Address
from meshllm.core.credentials import Revocation
from meshllm.core.effects import Dial, Disconnect, Send
from meshllm.core.events import Event
from meshllm.core.ids import NodeId
from meshllm.core.messages import Ping
from meshllm.testing.sim import PORT, SimMesh
from meshllm.testing.sim_network import Weather

A, B = NodeId("a"), NodeId("b")


class Wire:
    """Two nodes whose cores do nothing, so that only the transport speaks."""

    def __init__(self, **weather: float) -> None:
        """Start both."""
        self.mesh = SimMesh(1, Weather(**weather))
        for name in "ab":
            self.mesh.start(name)
        self.heard: list[tuple[float, NodeId, Event]] = []
        self.mesh.post = self._hear  # type: ignore[method-assign]
        self.transport = self.mesh.transport

    def _hear(self, node: NodeId, event: Event) -> None:
        self.heard.append((self.mesh.now_s, node, event))

    def dial(self, host: str = "b", peer: NodeId = B) -> None:
        """Dial from `a`, and wait for the end of it."""
        self.transport.dial(A, Dial(peer=peer, addresses=(Address(host=host, port=PORT),)))
        self.mesh.run(8.0)

    def of(self, kind: type[Event], node: NodeId = A) -> list[Any]:
        """Return the events of a kind that a node was given."""
        return [event for _, whom, event in self.heard if whom == node and isinstance(event, kind)]

    def pings(self, node: NodeId = B) -> list[int]:
        """Return the numbers of the pings that arrived, in order."""
        return [event.message.seq for event in self.of(ev.MessageReceived, node)]

    def send(self, *numbers: int) -> None:
        """Send pings from `a`."""
        for number in numbers:
            self.transport.send(A, Send(peer=B, message=Ping(seq=number)))


def expelled_by_b(mesh: SimMesh) -> None:
    """Let `b` know that `a` is expelled."""
    entry = Revocation(node=A, by=B, at_unix_s=1.0, until_unix_s=2.0, sealed=b"x")
    mesh.nodes[B].core.handle(ev.NodeRevoked(revocation=entry, now_unix_s=1.0), 1e9)


def test_a_dial_takes_two_round_trips_and_both_sides_learn_of_it() -> None:
    """The far side a moment earlier."""
    wire = Wire(delay_s=0.1)

    wire.dial()

    (near,), (far,) = wire.of(ev.PeerConnected, A), wire.of(ev.PeerConnected, B)
    assert [round(at_s, 2) for at_s, _, _ in wire.heard] == [0.3, 0.4]
    assert (near.is_dialled, far.is_dialled, near.rtt_s) == (True, False, 0.2)
    assert near.connection != far.connection


def test_dials_fail_in_the_words_of_the_real_transport() -> None:
    """Each failure leads to another pause before the next try."""
    for prepare, host, code, within_s in (
        (lambda mesh: mesh.crash("b"), "b", "timeout", 5.1), (lambda mesh: mesh.suspend("b"), "b", "timeout", 5.1),
        (lambda mesh: mesh.crash("b", is_machine_up=True), "b", "unreachable", 0.1),
        (expelled_by_b, "b", "rejected", 0.1),
        (lambda mesh: None, "nowhere", "unreachable", 5.1), (lambda mesh: None, "a", "wrong_identity", 0.1),
    ):  # fmt: skip
        wire = Wire()
        prepare(wire.mesh)

        wire.dial(host)

        assert [event.code for event in wire.of(ev.DialFailed)] == [code]
        assert wire.heard[0][0] <= within_s


def test_what_is_lost_is_sent_again_in_order() -> None:
    """Once each, whatever the network does."""
    wire = Wire()
    wire.dial()
    wire.mesh.network.set_all(loss=0.4, jitter_s=0.05, reorder=0.3)

    for number in range(60):
        wire.send(number)
        wire.mesh.run(0.02)
    wire.mesh.run(15.0)

    assert wire.pings() == list(range(60))


def test_a_peer_that_is_gone_is_noticed_by_silence_alone() -> None:
    """After the idle time, at the end that still lives."""
    wire = Wire()
    wire.dial()
    began_s = wire.mesh.now_s
    wire.mesh.crash("b")

    wire.send(1)
    wire.mesh.run(30.0)

    (lost,) = wire.of(ev.PeerLost)
    assert lost.code == "timeout"
    assert wire.heard[-1][0] - began_s <= 20.1


def test_a_machine_without_the_process_says_so() -> None:
    """That is a hint, and the connection stays."""
    wire = Wire()
    wire.dial()
    wire.mesh.crash("b", is_machine_up=True)

    wire.send(1, 2, 3)
    wire.mesh.run(0.5)

    assert [event.reason for event in wire.of(ev.PathFailed)] == ["refused"]
    assert wire.of(ev.PeerLost) == []


def test_an_end_that_is_closed_tells_the_other() -> None:
    """With the code that it was closed with."""
    wire = Wire()
    wire.dial()
    connection = wire.of(ev.PeerConnected)[0].connection

    wire.transport.disconnect(A, Disconnect(peer=B, connection=connection, code="spare"))
    wire.mesh.run(1.0)

    assert [event.code for event in (*wire.of(ev.PeerLost, A), *wire.of(ev.PeerLost, B))] == ["spare", "spare"]


def test_nothing_is_sent_without_a_connection() -> None:
    """Lost without an answer, as the effect says."""
    wire = Wire()

    wire.send(1)
    wire.mesh.run(5.0)

    assert wire.heard == []


def test_what_is_said_before_the_dialler_knows_of_its_connection_waits_for_that() -> None:
    """The far side is up a moment earlier, and its first words come right behind the welcome."""
    wire = Wire(delay_s=0.05, jitter_s=0.1)
    accepted = wire.mesh.post

    def greet(node: NodeId, event: Event) -> None:
        accepted(node, event)
        if node == B and isinstance(event, ev.PeerConnected):
            for number in range(5):
                wire.transport.send(B, Send(peer=A, message=Ping(seq=number)))

    wire.mesh.post = greet  # type: ignore[method-assign]

    wire.dial()

    assert [type(event) for _, node, event in wire.heard if node == A] == [ev.PeerConnected] + [ev.MessageReceived] * 5
    assert wire.pings(A) == list(range(5))


def test_a_connection_that_is_ended_before_the_dialler_knows_of_it_is_a_failed_dial() -> None:
    """And no connection that only one side knows of."""
    wire = Wire(delay_s=0.05)
    accepted = wire.mesh.post

    def refuse(node: NodeId, event: Event) -> None:
        accepted(node, event)
        if isinstance(event, ev.PeerConnected):
            wire.mesh.network.set_link(B, A, delay_s=0.01)  # the end overtakes the welcome
            wire.transport.disconnect(B, Disconnect(peer=A, connection=event.connection, code="spare"))
            wire.mesh.network.set_link(B, A, delay_s=0.05)

    wire.mesh.post = refuse  # type: ignore[method-assign]

    wire.dial()

    assert [event.code for event in wire.of(ev.DialFailed)] == ["unreachable"]
    assert wire.of(ev.PeerConnected, A) == []


def test_a_dial_that_is_given_up_ends_at_both_sides() -> None:
    """The welcome never came: the far side need not wait for the idle time to find out."""
    wire = Wire(delay_s=0.05)
    accepted = wire.mesh.post

    def cut(node: NodeId, event: Event) -> None:
        accepted(node, event)
        if isinstance(event, ev.PeerConnected):
            wire.mesh.network.set_link(B, A, loss=1.0)

    wire.mesh.post = cut  # type: ignore[method-assign]

    wire.dial()

    assert [event.code for event in wire.of(ev.DialFailed)] == ["timeout"]
    assert [event.code for event in wire.of(ev.PeerLost, B)] == ["done"]


def test_what_was_on_its_way_to_a_stopped_process_is_read_when_it_goes_on() -> None:
    """Its socket has kept it; what comes later is sent until it arrives, behind that."""
    wire = Wire(delay_s=0.1)
    wire.dial()
    wire.send(1, 2)
    wire.mesh.run(0.05)
    wire.mesh.suspend("b")
    wire.mesh.run(1.0)
    wire.send(3)
    wire.mesh.run(2.0)
    before = wire.pings()

    wire.mesh.wake("b")
    wire.mesh.run(5.0)

    assert (before, wire.pings()) == ([], [1, 2, 3])
