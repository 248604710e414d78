"""Two nodes with lines between them, on loopback: what runs on them is the test's to say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from meshllm.core.ids import NodeId
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.transport.bulk_channel import BulkChannel
from meshllm.transport.bulk_dial import dial_bulk
from meshllm.transport.line import LineStream
from meshllm.transport.lines import Lines, LinesUser
from tests.transport.builders import Mesh, Node, terms
from tests.transport.bulk import Port, a_port
from tests.transport.net import Taker, until


class Tasks:
    """Keeps tasks."""

    def __init__(self) -> None:
        self.all: set[asyncio.Task[Any]] = set()

    def start(self, name: str, work: Any) -> asyncio.Task[None]:
        """Run a coroutine."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.all.add(task)
        return task

    async def end(self) -> None:
        """Wait for all, and let none fail unseen."""
        await asyncio.gather(*self.all)


class Ways:
    """A near node's lines to a far one. `begun` are the streams that the far one was given."""

    def __init__(self, near: Node, far: Node, port: Port, tasks: Tasks, make: Callable[[], Taker]) -> None:
        self.near_node, self.far_node, self.port = near, far, port
        self.far: Lines
        self.dials = 0
        self.near = Lines(LinesUser(addresses=lambda _: [port.address], dial=self._dial, start_task=tasks.start))
        self.begun: list[tuple[LineStream, Taker]] = []
        self._make = make

    def _dial(self, peer: NodeId, addresses: Any, opened: Callable[[BulkChannel], None]) -> BulkChannel:
        self.dials += 1
        return dial_bulk(peer, addresses, "line", self.near_node.credentials(), terms(), opened)

    def take(self, peer: NodeId, stream: LineStream) -> None:
        """Be the far node."""
        assert peer == self.near_node.id
        taker = self._make()
        self.begun.append((stream, taker))
        stream.set_protocol(taker)

    async def stream(self) -> tuple[LineStream, Taker]:
        """Return a stream on a line, once there is one."""
        found: list[LineStream] = []

        def looks() -> bool:
            if (stream := self.near.take(self.far_node.id)) is not None:
                found.append(stream)
            return bool(found)

        await until(looks, "a line")
        taker = Taker()
        found[0].set_protocol(taker)
        return found[0], taker

    async def opened(self, data: bytes = b"x") -> tuple[LineStream, Taker, LineStream, Taker]:
        """Return both ends of a new stream, on which something was said."""
        known = len(self.begun)
        stream, taker = await self.stream()
        stream.write(data)
        await until(lambda: len(self.begun) > known and self.begun[-1][1].data == data, "the stream at the far end")
        return stream, taker, *self.begun[-1]


@asynccontextmanager
async def ways(make: Callable[[], Taker] = Taker, *, rights: Rights = OWN_MACHINE) -> AsyncIterator[Ways]:
    """Open two nodes."""
    mesh, tasks = Mesh(), Tasks()
    near, far = mesh.member(rights), mesh.member()
    far_lines = Lines(LinesUser(addresses=lambda _: (), dial=dial_bulk, start_task=tasks.start))  # type: ignore[arg-type]
    async with a_port(far, {"line": far_lines.serve}) as port:
        both = Ways(near, far, port, tasks, make)
        far_lines.on_stream = both.take
        both.far = far_lines
        try:
            yield both
        finally:
            await both.near.close()
            await port.listener.close()  # first, as a node does: what its threads hand over is closed by the next line
            await far_lines.close()
            await tasks.end()
