"""Connections of a simulated mesh: as QUIC behaves, seen from above.

Owns the two ends of every connection. What is sent while a connection is up arrives once and in order;
what the network loses is sent again, with pauses that double. An end that hears nothing for the idle
time is lost to its node, silently; the other end finds out by itself. A dial is a conversation of four
packets with a time limit. Doesn't know what messages mean.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from meshllm.core import events as ev
from meshllm.core.announcement import Address
from meshllm.core.effects import Dial, Disconnect, Send
from meshllm.core.events import Event
from meshllm.core.ids import ConnectionId, NodeId
from meshllm.core.messages import Message
from meshllm.core.rights import OWN_MACHINE
from meshllm.testing.sim_network import SimNetwork
from meshllm.testing.sizes import ACK_PACKET_BYTES, DIAL_BYTES, HANDSHAKE_BYTES, packets_bytes

IDLE_S = 20.0
DIAL_S = 5.0
FIRST_PAUSE_S = 0.1
_REFUSED_EVERY_S = 1.0
_FLIGHTS = 4


class World(Protocol):
    """What the transport needs of the simulation."""

    now_s: float
    network: SimNetwork

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Do something after a while."""

    def post(self, node: NodeId, event: Event) -> None:
        """Give a node's core an event."""

    def hears(self, node: NodeId) -> bool:
        """Tell whether a node's process runs and is awake."""

    def refuses(self, node: NodeId) -> bool:
        """Tell whether a node's machine is up without its process."""

    def life(self, node: NodeId) -> int:
        """Return which run of its process a node is in."""

    def at(self, address: Address) -> NodeId | None:
        """Return the node at an address."""

    def spend(self, node: NodeId, size_bytes: int) -> None:
        """Count bytes that a node sent."""

    def may_connect(self, source: NodeId, target: NodeId) -> bool:
        """Tell whether the target admits the source."""


@dataclass(slots=True, eq=False)
class End:
    """One end of a connection."""

    node: NodeId
    peer: NodeId
    connection: ConnectionId
    life: int
    heard_s: float
    is_open: bool = True
    is_over: bool = False
    early: list[Message] = field(default_factory=list)
    """What arrived before this end was open, or while its process was stopped: kept for it, as a socket does."""
    ready_s: float = 0.0
    """Nothing arrives at the other end before this: order is kept."""
    blocked: deque[Message] = field(default_factory=deque)
    """What waits for a lost packet to be sent again."""
    other: "End | None" = None
    refused_s: float = float("-inf")


class SimTransport:
    """All connections."""

    def __init__(self, world: World) -> None:
        """Begin with none."""
        self._world = world
        self._count = 0
        self.ends: dict[NodeId, dict[NodeId, list[End]]] = {}
        """Open ends by node and peer, oldest first."""
        self.dials = 0
        self._sized: tuple[Message | None, int] = None, 0
        """The message that was sent last, often to many, and its bytes."""

    # -- dialling ------------------------------------------------------------------------------------

    def dial(self, node: NodeId, order: Dial) -> None:
        """Begin a dial; its end is an event."""
        world = self._world
        self.dials += 1
        target = next((found for address in order.addresses if (found := world.at(address)) is not None), None)
        run = _Run(node=node, life=world.life(node), peer=order.peer, address=order.addresses[0], began_s=world.now_s)
        if target is not None and target != order.peer:
            self._fail(run, "wrong_identity", "another node answers there", 2 * world.network.weather.delay_s)
        elif target is None:
            self._fail(run, "unreachable", "nobody answers", DIAL_S)
        else:
            self._fly(run, 0, FIRST_PAUSE_S)

    def _fly(self, run: "_Run", flight: int, pause_s: float) -> None:
        """Send one packet of a handshake, until it arrives or time is up."""
        world = self._world
        source, target = (run.node, run.peer) if flight % 2 == 0 else (run.peer, run.node)
        if run.is_over(world):
            return
        if world.now_s - run.began_s >= DIAL_S - 1e-6:  # rounding
            self._fail(run, "timeout", "no answer", 0.0)
            return
        world.spend(source, DIAL_BYTES if flight == 0 else HANDSHAKE_BYTES // _FLIGHTS)
        delay_s = world.network.arrives_after_s(source, target) if world.hears(source) else None
        if delay_s is not None and world.refuses(target):
            self._fail(run, "unreachable", "connection refused", 2 * delay_s)
        elif delay_s is None or not world.hears(target):
            wait_s = min(pause_s, max(run.began_s + DIAL_S - world.now_s, 0.0))
            world.later(wait_s, lambda: self._fly(run, flight, pause_s * 2))
        else:
            world.later(delay_s, lambda: self._landed(run, flight))

    def _landed(self, run: "_Run", flight: int) -> None:
        world = self._world
        if run.is_over(world) or not world.hears(run.peer if flight % 2 == 0 else run.node):
            self._fail(run, "timeout", "no answer", max(run.began_s + DIAL_S - world.now_s, 0.0))
            return
        if flight == _FLIGHTS - 2:
            if not world.may_connect(run.node, run.peer):
                self._fail(run, "rejected", "not admitted", 0.0)
                return
            self._accept(run)
        if flight < _FLIGHTS - 1:
            self._fly(run, flight + 1, FIRST_PAUSE_S)
            return
        near, _ = run.ends
        if near is None or near.is_over:
            self._fail(run, "unreachable", "the peer closed the connection", 0.0)
            return
        run.is_done = True
        self._open(near)
        self._tell(near, run, is_dialled=True)
        self._catch_up(near)

    def _accept(self, run: "_Run") -> None:
        """The far side is satisfied: its end is up, whatever becomes of the near one."""
        world = self._world
        self._count += 2
        far = End(run.peer, run.node, ConnectionId(self._count), world.life(run.peer), world.now_s)
        near = End(run.node, run.peer, ConnectionId(self._count - 1), run.life, world.now_s)
        near.other, far.other, run.ends = far, near, (near, far)
        near.is_open = False
        self._open(far)
        self._tell(far, run, is_dialled=False)

    def _open(self, end: End) -> None:
        end.is_open, end.heard_s = True, self._world.now_s
        self.ends.setdefault(end.node, {}).setdefault(end.peer, []).append(end)
        self._world.later(IDLE_S, lambda: self._check_idle(end))

    def _tell(self, end: End, run: "_Run", *, is_dialled: bool) -> None:
        there, back = (self._world.network.between(*pair).delay_s for pair in (
            (end.node, end.peer), (end.peer, end.node)))  # fmt: skip
        address = run.address if is_dialled else Address(host=str(end.peer), port=50_000)
        self._world.post(end.node, ev.PeerConnected(
            peer=end.peer, connection=end.connection, address=address, is_dialled=is_dialled, rights=OWN_MACHINE,
            rtt_s=there + back,
        ))  # fmt: skip

    def _fail(self, run: "_Run", code: str, message: str, after_s: float) -> None:
        if run.is_done:
            return
        run.is_done = True

        def tell() -> None:
            if self._world.life(run.node) == run.life:
                if (near := run.ends[0]) is not None:
                    self.close(near, "done")
                self._world.post(run.node, ev.DialFailed(peer=run.peer, code=code, message=message))

        self._world.later(after_s, tell)

    # -- sending -------------------------------------------------------------------------------------

    def send(self, node: NodeId, order: Send) -> None:
        """Send on the newest connection to a peer; nothing happens without one."""
        ends = self.ends.get(node, {}).get(order.peer)
        if not ends:
            return
        end = ends[-1]
        if end.blocked:
            end.blocked.append(order.message)
            return
        self._transmit(end, order.message)

    def _transmit(self, end: End, message: Message) -> None:
        world = self._world
        if self._sized[0] is not message:
            self._sized = message, packets_bytes(message)
        world.spend(end.node, self._sized[1])
        delay_s = self._passes(end)
        if delay_s is None:
            end.blocked.append(message)
            world.later(FIRST_PAUSE_S, lambda: self._again(end, 2 * FIRST_PAUSE_S))
            return
        end.ready_s = max(world.now_s + delay_s, end.ready_s)
        world.later(end.ready_s - world.now_s, lambda: self._arrive(end, message))

    def _again(self, end: End, pause_s: float) -> None:
        """Send again what was lost, and what waited behind it."""
        world = self._world
        if not self._is_up(end) or not end.blocked:
            return
        delay_s = None
        if world.hears(end.node):
            world.spend(end.node, packets_bytes(end.blocked[0]))
            delay_s = self._passes(end)
        if delay_s is None:
            world.later(min(pause_s, IDLE_S), lambda: self._again(end, pause_s * 2))
            return
        waiting, end.blocked = end.blocked, deque()
        end.ready_s = max(world.now_s + delay_s, end.ready_s)
        for message in waiting:
            world.later(end.ready_s - world.now_s, lambda message=message: self._arrive(end, message))  # type: ignore[misc]

    def _passes(self, end: End) -> float | None:
        """Return how long a packet takes to the other end, or None when it is lost."""
        world = self._world
        delay_s = world.network.arrives_after_s(end.node, end.peer)
        if delay_s is None:
            return None
        if world.refuses(end.peer) and world.now_s - end.refused_s >= _REFUSED_EVERY_S:
            end.refused_s = world.now_s
            if (back_s := world.network.arrives_after_s(end.peer, end.node)) is not None:
                world.later(delay_s + back_s, lambda: self._refused(end))
        return delay_s if world.hears(end.peer) else None

    def _refused(self, end: End) -> None:
        if self._is_up(end):
            self._world.post(end.node, ev.PathFailed(peer=end.peer, reason="refused"))

    def _arrive(self, end: End, message: Message) -> None:
        other = end.other
        if other is None or other.is_over or self._world.life(other.node) != other.life:
            return
        other.early.append(message)
        if other.is_open and self._world.hears(other.node):
            self._catch_up(other)

    def _catch_up(self, end: End) -> None:
        """Hand over what has arrived, in order."""
        world, other = self._world, end.other
        early, end.early = end.early, []
        for message in early:
            if other is None or not self._is_up(end):
                return
            end.heard_s = world.now_s
            world.spend(end.node, ACK_PACKET_BYTES // 2)  # every second packet is acknowledged on its own
            if world.network.arrives_after_s(end.node, end.peer) is not None:
                other.heard_s = max(other.heard_s, world.now_s)
            world.post(end.node, ev.MessageReceived(peer=end.peer, connection=end.connection, message=message))

    def wake(self, node: NodeId) -> None:
        """Hand a process that goes on what its socket has kept meanwhile."""
        for end in [end for ends in self.ends.get(node, {}).values() for end in ends]:
            if end.early:
                self._world.later(0.0, lambda end=end: self._catch_up(end) if self._world.hears(node) else None)  # type: ignore[misc]

    # -- ending --------------------------------------------------------------------------------------

    def disconnect(self, node: NodeId, order: Disconnect) -> None:
        """End a connection at one side; one packet tells the other, if it arrives."""
        for end in list(self.ends.get(node, {}).get(order.peer, ())):
            if end.connection == order.connection:
                self.close(end, order.code)

    def close(self, end: End, code: str) -> None:
        """End a connection at one side, and tell the other."""
        self._drop(end, code)
        other = end.other
        delay_s = self._world.network.arrives_after_s(end.node, end.peer)
        if other is not None and delay_s is not None:
            self._world.later(delay_s, lambda: self._drop(other, code) if self._world.hears(other.node) else None)

    def close_all(self, node: NodeId, code: str) -> None:
        """End all connections of a node that goes properly."""
        for end in [end for ends in self.ends.get(node, {}).values() for end in ends]:
            self.close(end, code)

    def abandon(self, node: NodeId) -> None:
        """Forget all ends of a node that died."""
        for ends in self.ends.pop(node, {}).values():
            for end in ends:
                end.is_open, end.is_over = False, True

    def _drop(self, end: End, code: str) -> None:
        end.is_over = True
        if not end.is_open:
            return
        is_up = self._is_up(end)
        end.is_open = False
        end.blocked.clear()
        end.early.clear()
        ends = self.ends.get(end.node, {}).get(end.peer, [])
        if end in ends:
            ends.remove(end)
        if is_up:
            self._world.post(end.node, ev.PeerLost(peer=end.peer, connection=end.connection, code=code))

    def _check_idle(self, end: End) -> None:
        world = self._world
        if not self._is_up(end):
            return
        due_s = end.heard_s + IDLE_S
        if due_s <= world.now_s:
            if world.hears(end.node):
                self._drop(end, "timeout")
                return
            due_s = world.now_s + 1.0  # its process is stopped: it will find out when it goes on
        world.later(due_s - world.now_s, lambda: self._check_idle(end))

    def _is_up(self, end: End) -> bool:
        return end.is_open and self._world.life(end.node) == end.life


@dataclass(slots=True, eq=False)
class _Run:
    """One dial on its way."""

    node: NodeId
    life: int
    peer: NodeId
    address: Address
    began_s: float
    is_done: bool = False
    ends: tuple[End | None, End | None] = (None, None)

    def is_over(self, world: World) -> bool:
        """Tell whether nobody waits for it any more."""
        return self.is_done or world.life(self.node) != self.life
