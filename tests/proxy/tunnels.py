"""A mesh in one process: an entry node and far ends, joined by tunnels in memory that can fail in any way.

What a tunnel's head says travels as frames do; the bytes behind it keep the order, the back-pressure and the ends
that a transport promises.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import CLIENT_ONLY, Rights
from meshllm.core.view import LocalModel, Replica
from meshllm.proxy.front_door import FrontDoor
from meshllm.wire.tunnel_errors import TunnelFailed, TunnelRefused
from meshllm.wire.tunnel_frames import (
    TunnelFailure,
    TunnelHead,
    TunnelProgress,
    TunnelReader,
    TunnelRefusal,
    encode_head,
    encode_refusal,
)
from tests.core.builders import a_spec
from tests.proxy.builders import NODE, Answer, House, a_house, a_model, a_view, answer_ok

HIGH_BYTES = 256 * 1024
DIGEST = "sha256:" + "0" * 64
FIRST, SECOND, THIRD, FOURTH = (NodeId(letter * 52) for letter in "bcde")


class Half(asyncio.Transport):
    """One end of a tunnel: what is written here arrives at `other`, unless it is not read there."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.other: Half
        self.loop = asyncio.get_running_loop()
        self.waiting: list[bytes] = []
        """Bytes on their way to `other`."""
        self.written = 0
        self.most_waiting = 0
        self.has_ended = self.is_over = self.is_held = self.is_paused = False
        self.is_told_to_wait = self.is_delivering = self.is_end_told = False
        self.cut_after: int | None = None
        """Bytes after which the tunnel breaks."""

    def write(self, data: Any) -> None:
        """Send."""
        assert not self.has_ended, "written after the end"
        if self.is_over:
            return
        data = bytes(data)
        if self.cut_after is not None and self.written + len(data) >= self.cut_after:
            data = data[: self.cut_after - self.written]
            self.deliver_soon()
            self.loop.call_soon(self.break_off)
        self.written += len(data)
        self.waiting.append(data)
        size_bytes = sum(map(len, self.waiting))
        self.most_waiting = max(self.most_waiting, size_bytes)
        if size_bytes > HIGH_BYTES and not self.is_told_to_wait:
            self.is_told_to_wait = True
            self.protocol.pause_writing()
        self.deliver_soon()

    def deliver_soon(self) -> None:
        """Let what waits arrive in the next turn of the loop."""
        if not self.is_delivering:
            self.is_delivering = True
            self.loop.call_soon(self.deliver)

    def deliver(self) -> None:
        """Hand over what waits, as far as the other end reads."""
        self.is_delivering = False
        other = self.other
        while self.waiting and not other.is_paused and not other.is_over and not self.is_held:
            other.protocol.data_received(self.waiting.pop(0))
        if self.is_told_to_wait and not self.waiting and not self.is_over:
            self.is_told_to_wait = False
            self.protocol.resume_writing()
        if self.has_ended and not self.waiting and not other.is_over and not self.is_end_told and not self.is_held:
            self.is_end_told = True
            if not other.protocol.eof_received():
                other.close()

    def write_eof(self) -> None:
        """End this direction."""
        self.has_ended = True
        self.deliver_soon()

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def is_closing(self) -> bool:
        """Tell whether it is over."""
        return self.is_over or self.has_ended

    def is_reading(self) -> bool:
        """Tell whether it is read."""
        return not self.is_paused

    def pause_reading(self) -> None:
        """Hold back what comes."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Take what comes."""
        self.is_paused = False
        self.other.deliver_soon()

    def close(self) -> None:
        """End in order."""
        if not self.has_ended:
            self.write_eof()
        self.loop.call_soon(self.finish, None)

    def abort(self) -> None:
        """Cancel."""
        if not self.is_over:
            self.loop.call_soon(self.finish, None)
            self.loop.call_soon(self.other.finish, ConnectionResetError("cancelled"))

    def break_off(self) -> None:
        """Lose both ends, as a broken path does."""
        self.finish(ConnectionResetError("lost"))
        self.other.finish(ConnectionResetError("lost"))

    def finish(self, error: Exception | None) -> None:
        """Tell the protocol that it is over; bytes that are on their way still arrive after an orderly end."""
        if self.is_over:
            return
        if error is None and self.waiting and not self.other.is_over:
            self.loop.call_soon(self.finish, error)
            return
        self.is_over = True
        self.protocol.connection_lost(error)


class FarHalf(Half):
    """The far end, which can say how far it is."""

    def progress(self, progress: TunnelProgress) -> None:
        """Tell the entry node at once."""
        say = self.other.protocol.tunnel_progress  # type: ignore[attr-defined]
        self.loop.call_soon(say, progress)

    def fail(self, failure: TunnelFailure) -> None:
        """Break off with a reason, behind what was written."""
        self.is_over = True
        self.loop.call_soon(self.other.finish, TunnelFailed(failure))


Fault = Callable[[Half, FarHalf], None]


@dataclass
class Mesh:
    """Opens tunnels to the front doors of other nodes."""

    doors: dict[NodeId, FrontDoor] = field(default_factory=dict)
    houses: dict[NodeId, House] = field(default_factory=dict)
    heads: list[tuple[NodeId, TunnelHead]] = field(default_factory=list)
    ends: list[tuple[Half, FarHalf]] = field(default_factory=list)
    refusals: dict[NodeId, TunnelRefusal] = field(default_factory=dict)
    faults: dict[NodeId, Fault] = field(default_factory=dict)
    unreachable: set[NodeId] = field(default_factory=set)
    crowded: set[NodeId] = field(default_factory=set)
    """Nodes to which this one has as many tunnels as it may."""
    lag: int = 0
    """Turns of the loop until whoever opens a tunnel hears that it is open."""
    rights: Rights = CLIENT_ONLY
    entry: House | None = None

    async def open_tunnel(self, peer: NodeId, head: TunnelHead, protocol: asyncio.Protocol, /) -> asyncio.Transport:
        """Open a tunnel; its head and a refusal go through frames."""
        (frame,) = TunnelReader(is_forth=True).feed(encode_head(head))
        assert isinstance(frame.value, TunnelHead)
        self.heads.append((peer, frame.value))
        if peer in self.crowded:
            raise TunnelRefused(TunnelRefusal(code="busy", message="too many tunnels are under way"))
        if peer in self.unreachable:
            raise ConnectionRefusedError(f"{peer[:8]} is not there")
        far = self.refusals.get(peer) or self.doors[peer].far_end.take(NODE, self.rights, frame.value)
        near = Half(protocol)
        if isinstance(far, TunnelRefusal):
            (back,) = TunnelReader(is_forth=False).feed(encode_refusal(far))
            assert isinstance(back.value, TunnelRefusal)
            near.other = near
            protocol.connection_made(near)
            near.loop.call_soon(near.finish, TunnelRefused(back.value))
            await self._lagging()
            return near
        other = FarHalf(far)
        near.other, other.other = other, near
        self.ends.append((near, other))
        if (fault := self.faults.get(peer)) is not None:
            fault(near, other)
        other.protocol.connection_made(other)
        protocol.connection_made(near)
        await self._lagging()
        return near

    async def _lagging(self) -> None:
        for _ in range(self.lag):
            await asyncio.sleep(0)

    @property
    def asked(self) -> list[NodeId]:
        """Return the nodes to which tunnels were opened, in order."""
        return [peer for peer, _ in self.heads]


def a_replica(
    node: NodeId = FIRST, *, model: str = "tiny", digest: str = DIGEST, is_suspect: bool = False, **more: Any
) -> Replica:
    """Return a model at another node, ready."""
    facts: dict[str, Any] = {"state": ServingState.READY, "slots": 2, "context_tokens": 2048} | more
    served = ServedModel(model=ModelId(model), digest=digest, **facts)
    return Replica(node=node, name=node[:4], served=served, is_suspect=is_suspect, rtt_s=0.01 * ord(node[0]))


def a_served_model(socket: Path, **more: Any) -> LocalModel:
    """Return a ready model whose file everybody has."""
    name = more.pop("name", "tiny")
    return a_model(name, socket=socket, spec=replace(a_spec(name), digest=DIGEST), **more)


def on_far_end(node: NodeId) -> Callable[[Path], tuple[LocalModel, ...]]:
    """Return what a far end serves."""
    return lambda socket: (a_served_model(socket),)


@asynccontextmanager
async def a_mesh(
    *answers: Answer, replicas: tuple[Replica, ...] | None = None,
    models: Callable[[Path], tuple[LocalModel, ...]] | None = None,
    far_models: Callable[[Path], tuple[LocalModel, ...]] | None = None, **config: Any,
) -> AsyncIterator[tuple[House, Mesh]]:  # fmt: skip
    """Open an entry node, and a far end for each answer; the entry node has no models unless `models` says so."""
    mesh = Mesh()
    nodes = (FIRST, SECOND, THIRD, FOURTH)[: len(answers) or 1]
    async with AsyncExitStack() as stack:
        for node, answer in zip(nodes, answers or (answer_ok,), strict=True):
            house = await stack.enter_async_context(
                a_house(answer, models=far_models or on_far_end(node), node=node, header_timeout_s=0.5)
            )
            mesh.doors[node], mesh.houses[node] = house.door, house
        entry = await stack.enter_async_context(a_house(models=models or (lambda _: ()), tunnels=mesh, **config))
        mesh.entry = entry
        known = tuple(a_replica(node) for node in nodes) if replicas is None else replicas
        entry.views.newest = replace(
            a_view(*entry.views.newest.local.values(), replicas=known), routing=entry.views.newest.routing
        )
        yield entry, mesh
