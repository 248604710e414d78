"""A mesh in one process whose tunnels are the real ones: heartbeats, silence, resets; only the network is pretended.

A `Cable` joins the two ends of one tunnel and can lose, hold or delay what goes over it. A `Grid` opens tunnels to
front doors, as a transport does, and does to one host what can happen to hosts.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from meshllm.core.ids import NodeId
from meshllm.core.rights import CLIENT_ONLY
from meshllm.core.view import LocalModel
from meshllm.proxy.front_door import FrontDoor
from meshllm.transport.codes import StreamCode
from meshllm.transport.stream import Stream, StreamLost
from meshllm.transport.tunnels import FarTunnel, NearTunnel
from meshllm.wire.tunnel_frames import TunnelHead, TunnelRefusal
from tests.proxy.builders import NODE, Answer, House, a_house, a_view
from tests.proxy.tunnels import FIRST, FOURTH, SECOND, THIRD, a_replica, a_served_model

_END = b""


class Wire(asyncio.Transport):
    """One end of a stream: what is written here arrives at `other`, as far as the cable lets it."""

    def __init__(self, cable: "Cable") -> None:
        super().__init__()
        self.other: Wire
        self.protocol: asyncio.Protocol | None = None
        self.came = b""
        """All that arrived here."""
        self._cable = cable
        self._loop = asyncio.get_running_loop()
        self._coming: deque[bytes | Exception] = deque()
        self._is_paused = self._is_over = self._has_written_end = self._has_end = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the stream to a tunnel."""
        self.protocol = cast("asyncio.Protocol", protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Know nothing."""
        return default

    def get_write_buffer_size(self) -> int:
        """Return 0: a pretended network is fast enough."""
        return 0

    def write(self, data: Any) -> None:
        """Send."""
        if not (self._has_written_end or self._is_over):
            self._send(bytes(data))

    def write_eof(self) -> None:
        """End this direction."""
        if not (self._has_written_end or self._is_over):
            self._has_written_end = True
            self._send(_END)
            self._end_if_both_over()

    def pause_reading(self) -> None:
        """Take nothing more."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Take what came."""
        self._is_paused = False
        self._loop.call_soon(self.take)

    def close(self) -> None:
        """End in good order."""
        self.write_eof()
        self.lose(None)

    def abort(self, code: StreamCode = StreamCode.CANCELLED) -> None:
        """End at once, at both ends."""
        if not self._is_over:
            self._send(StreamLost(code.name.lower(), "the peer ended the stream"))
            self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """Be over."""
        if not self._is_over:
            self._is_over = True
            self._loop.call_soon(cast("asyncio.Protocol", self.protocol).connection_lost, error)

    def _send(self, item: bytes | Exception) -> None:
        self._cable.carry(self.other, item)

    def arrive(self, item: bytes | Exception) -> None:
        """Take what came over the cable."""
        self._coming.append(item)
        self.take()

    def take(self) -> None:
        """Hand out what came, as far as it is wanted."""
        protocol = cast("asyncio.Protocol", self.protocol)
        while self._coming and not self._is_over and not self._is_paused:
            item = self._coming.popleft()
            if isinstance(item, Exception):
                self.lose(item)
            elif item:
                self.came += item
                protocol.data_received(item)
            else:
                self._has_end = True
                if not protocol.eof_received():
                    self.write_eof()
                self._end_if_both_over()

    def _end_if_both_over(self) -> None:
        if self._has_end and self._has_written_end:
            self.lose(None)


class Cable:
    """Carries one stream, or does not."""

    def __init__(self) -> None:
        self.near, self.far = Wire(self), Wire(self)
        self.near.other, self.far.other = self.far, self.near
        self.is_cut = self.is_held = False
        self._held: list[tuple[Wire, bytes | Exception]] = []
        self._loop = asyncio.get_running_loop()

    def carry(self, to: Wire, item: bytes | Exception) -> None:
        """Bring something to an end in the next turn of the loop."""
        if not self.is_cut:
            self._loop.call_soon(self._bring, to, item)

    def _bring(self, to: Wire, item: bytes | Exception) -> None:
        if self.is_held:
            self._held.append((to, item))
        elif not self.is_cut:
            to.arrive(item)

    def release(self) -> None:
        """Bring what was held: the process that was stopped goes on."""
        self.is_held = False
        held, self._held = self._held, []
        for to, item in held:
            to.arrive(item)

    def break_off(self) -> None:
        """Lose both ends at once."""
        for end in (self.near, self.far):
            end.lose(StreamLost("lost", "the connection is gone"))


@dataclass
class Grid:
    """Opens tunnels to the front doors of other nodes, and lets those nodes fail."""

    houses: dict[NodeId, House] = field(default_factory=dict)
    cables: dict[NodeId, list[Cable]] = field(default_factory=dict)
    heads: list[tuple[NodeId, TunnelHead]] = field(default_factory=list)
    gone: set[NodeId] = field(default_factory=set)
    """Nobody listens there."""
    deaf: set[NodeId] = field(default_factory=set)
    """Nobody answers a dial to there."""
    held: set[NodeId] = field(default_factory=set)
    """Stopped: new tunnels are held, too."""
    cut: set[NodeId] = field(default_factory=set)
    """Behind a cable that is out."""
    reset: set[NodeId] = field(default_factory=set)
    """Ends each tunnel as soon as it is open."""
    refusals: dict[NodeId, TunnelRefusal] = field(default_factory=dict)

    async def open_tunnel(self, peer: NodeId, head: TunnelHead, user: asyncio.Protocol, /) -> asyncio.Transport:
        """Open a tunnel."""
        self.heads.append((peer, head))
        if peer in self.gone:
            raise ConnectionRefusedError(f"{peer[:8]} is not there")
        if peer in self.deaf:
            await asyncio.Event().wait()
        cable = Cable()
        cable.is_held, cable.is_cut = peer in self.held, peer in self.cut
        self.cables.setdefault(peer, []).append(cable)
        door = self.houses[peer].door
        _Kind(cable, door, self.refusals.get(peer))
        near = NearTunnel(cast("Stream", cable.near), head, user, lambda _: None, on_silence=lambda: None)
        if peer in self.reset:
            asyncio.get_running_loop().call_soon(cable.break_off)
        return near

    @property
    def asked(self) -> list[NodeId]:
        """Return the nodes to which tunnels were opened, in order."""
        return [peer for peer, _ in self.heads]

    def kill(self, node: NodeId) -> None:
        """End a host's process: its connections break, and nobody listens any more."""
        self.gone.add(node)
        self.break_all(node)

    def break_all(self, node: NodeId) -> None:
        """Break a host's tunnels; it lives on."""
        for cable in self.cables.get(node, ()):
            cable.break_off()

    def hang(self, node: NodeId) -> None:
        """Stop a host's process: nothing of it is heard, and what is sent to it waits."""
        self.held.add(node)
        for cable in self.cables.get(node, ()):
            cable.is_held = True

    def cut_off(self, node: NodeId) -> None:
        """Lose every packet to and from a host."""
        self.cut.add(node)
        for cable in self.cables.get(node, ()):
            cable.is_cut = True

    def mend(self, node: NodeId) -> None:
        """Let a host be well again: what was held arrives now, late."""
        for nodes in (self.gone, self.deaf, self.held, self.cut, self.reset):
            nodes.discard(node)
        self.refusals.pop(node, None)
        for cable in self.cables.get(node, ()):
            cable.release()


class _Kind(asyncio.Protocol):
    """Reads the first byte of a stream, as a link does, and hands the rest to a far end."""

    def __init__(self, cable: Cable, door: FrontDoor, refusal: TunnelRefusal | None) -> None:
        self._wire, self._door, self._refusal = cable.far, door, refusal
        cable.far.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Make the tunnel."""
        tunnel = FarTunnel(cast("Stream", self._wire), self._choose, lambda _: None)
        tunnel.data_received(data[1:])

    def _choose(self, head: TunnelHead) -> asyncio.Protocol | TunnelRefusal:
        return self._refusal or self._door.far_end.take(NODE, CLIENT_ONLY, head)


@asynccontextmanager
async def a_grid(*answers: Answer, slots: int = 2, **config: Any) -> AsyncIterator[tuple[House, Grid]]:
    """Open an entry node without models, and a host for each answer."""
    grid = Grid()

    def models(socket: Path) -> tuple[LocalModel, ...]:
        return (a_served_model(socket, slots=slots),)

    nodes = (FIRST, SECOND, THIRD, FOURTH)[: len(answers)]
    async with AsyncExitStack() as stack:
        for node, answer in zip(nodes, answers, strict=True):
            grid.houses[node] = await stack.enter_async_context(a_house(answer, models=models, node=node))
        entry = await stack.enter_async_context(a_house(models=lambda _: (), tunnels=grid, **config))
        entry.views.newest = a_view(replicas=tuple(a_replica(node, slots=slots) for node in nodes))
        try:
            yield entry, grid
        finally:
            for node in nodes:
                grid.break_all(node)
