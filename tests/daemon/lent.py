"""A node that lends, on loopback, for tests: real servers of the double, a real bulk port."""

import asyncio
import dataclasses
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from meshllm.core.effects import EndLending, Lend, SplitPeer
from meshllm.core.engines import EngineBuild, RpcBuild
from meshllm.core.events import Event, LendingEnded, LendingReady
from meshllm.core.ids import ModelId
from meshllm.core.limits import MIB
from meshllm.daemon.rpc_lending import RpcLending, Tensors
from meshllm.daemon.tasks import Tasks
from meshllm.transport.bulk_channel import BulkChannel
from meshllm.transport.bulk_dial import dial_bulk
from meshllm.wire.bulk_frames import BulkStep, Join
from tests.engine.builders import a_fake_build
from tests.transport.builders import Mesh, Node, terms
from tests.transport.bulk import Port, a_port

MODEL = ModelId("big")
WITHIN_S = 120.0
T = TypeVar("T", bound=Event)


def lending_build() -> EngineBuild:
    """Return the engine double that can lend."""
    return dataclasses.replace(a_fake_build(), rpc=RpcBuild(version="fake 1", server="fake", worker="fake"))


class NoCache:
    """Keeps no tensors. A test may hold the priming."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def folder(self, order: Lend) -> Path | None:
        """Have no room."""
        return None

    async def prime(self, order: Lend, build: EngineBuild, port: int) -> None:
        """Wait for the test."""
        self.has_begun.set()
        await self.may_end.wait()


@dataclass
class Lender:
    """One node that lends."""

    mesh: Mesh
    host: Node
    lending: RpcLending
    port: Port
    cache: NoCache
    tasks: Tasks
    news: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    def order(self, epoch: int = 7, **changes: object) -> Lend:
        """Return an order to lend to the host."""
        order = Lend(
            model=MODEL, digest="sha256:" + "0a" * 32, epoch=epoch, host=self.host.id, first_layer=0, layers=4,
            memory_bytes=64 * MIB, threads=1,
        )  # fmt: skip
        return dataclasses.replace(order, **changes)

    async def lent(self, epoch: int = 7) -> None:
        """Lend, and wait until the server listens."""
        self.lending.lend(self.order(epoch))
        await self.next(LendingReady)

    async def ended(self, epoch: int = 7, model: ModelId = MODEL) -> LendingEnded:
        """End the lending, and wait until it is gone."""
        self.lending.end(EndLending(model=model, epoch=epoch))
        return await self.next(LendingEnded)

    async def next(self, kind: type[T]) -> T:
        """Return the next event, which has to be of a kind."""
        async with asyncio.timeout(WITHIN_S):
            event = await self.news.get()
        assert isinstance(event, kind), event
        return event

    async def came(self, *, by: Node | None = None, join: Join | None = None) -> tuple[BulkChannel, BulkStep]:
        """Return the connection of a node that comes for the server, and what it was told."""
        return await asyncio.to_thread(self._came, by or self.host, join or Join(model=MODEL, epoch=7))

    def _came(self, by: Node, join: Join) -> tuple[BulkChannel, BulkStep]:
        channel = self.dial(by)
        channel.say(join, time.monotonic() + WITHIN_S)
        return channel, channel.hear(time.monotonic() + WITHIN_S)

    def dial(self, by: Node, opened: Callable[[BulkChannel], None] = lambda _: None) -> BulkChannel:
        """Return a member's connection for the tensors of splits."""
        return dial_bulk(self.port.node.id, [self.port.address], "rpc", by.credentials(), terms(), opened)

    def as_peer(self, name: str = "desk") -> SplitPeer:
        """Return it as its host knows it."""
        return SplitPeer(node=self.port.node.id, name=name, addresses=(self.port.address,))


@asynccontextmanager
async def a_lender(
    mesh: Mesh,
    host: Node,
    build: EngineBuild | None = None,
    tensors: Tensors | None = None,
    *,
    is_equipped: bool = True,
) -> AsyncIterator[Lender]:
    """Let a node lend to a host."""
    news: asyncio.Queue[Event] = asyncio.Queue()
    cache = NoCache()
    with tempfile.TemporaryDirectory(prefix="mesh") as folder:
        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group, news.put_nowait)
            found = (build or lending_build()) if is_equipped else None
            lending = RpcLending(lambda: found, Path(folder), news.put_nowait, tasks.start, tensors or cache)
            async with a_port(mesh.member(), {"rpc": lending.serve}) as port:
                yield Lender(mesh, host, lending, port, cache, tasks, news)
                cache.may_end.set()
                await lending.close()
            tasks.cancel_all()
