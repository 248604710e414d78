"""The host's ways to its workers: the engine's own, and told in words when a worker is lost."""

import asyncio
import contextlib
import dataclasses
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from meshllm.core import events as ev
from meshllm.core.announcement import Address
from meshllm.core.effects import SplitPeer
from meshllm.core.engines import EngineFault, SplitPart, SplitRun
from meshllm.daemon.rpc_tunnels import EngineTunnels, RpcTunnels
from meshllm.transport.bulk_channel import BulkChannel
from meshllm.transport.bulk_dial import Opened, dial_bulk
from tests.daemon.lent import MODEL, WITHIN_S, Lender, a_lender, lending_build
from tests.daemon.test_rpc_lending import servers
from tests.engine.builders import Bench, a_bench, a_plan
from tests.transport.builders import Mesh, Node, terms

STRANGER_PID = 2**22 + 1
"""No process has such a number: it is beyond what the kernel gives."""


@dataclass
class Side:
    """What a host has: the ways of one engine, which is this very process."""

    tunnels: EngineTunnels
    all: RpcTunnels
    dialled: list[str]
    """Names of workers, as they were dialled."""
    lost: list[str] = field(default_factory=list)
    was_lost: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, pid: int = 0) -> None:
        """Let an engine use the ways."""
        self.tunnels.begin(pid or os.getpid(), self.lose)

    def lose(self, message: str) -> None:
        """Hear of a loss."""
        self.lost.append(message)
        self.was_lost.set()

    async def talk(self, data: bytes = b"tensor", worker: int = 0) -> bytes:
        """Connect to a worker as an engine does, and return what comes back before the connection ends."""
        return await asyncio.to_thread(self._talk, data, self.tunnels.ports[worker])

    def _talk(self, data: bytes, port: int) -> bytes:
        got = b""
        # Nobody listens any more, or it is closed with bytes of ours unread.
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as way,
        ):
            way.sendall(data)
            while len(got) < len(data) and (more := way.recv(1 << 16)):
                got += more
        return got


def ways(lender: Lender, host: Node, dialled: list[str] | None = None) -> RpcTunnels:
    """Return the ways of a host's engines, and keep whom they dialled."""

    def dial(peer: SplitPeer, opened: Opened) -> BulkChannel:
        if dialled is not None:
            dialled.append(peer.name)
        return dial_bulk(peer.node, peer.addresses, "rpc", host.credentials(), terms(), opened)

    return RpcTunnels(dial, lender.tasks.start)


@asynccontextmanager
async def a_side(lender: Lender, *peers: SplitPeer, epoch: int = 7) -> AsyncIterator[Side]:
    """Open the ways to some workers; close them in the end."""
    dialled: list[str] = []
    tunnels = ways(lender, lender.host, dialled)
    opened = tunnels.open(MODEL, epoch, peers)
    try:
        yield Side(opened, tunnels, dialled)
    finally:
        opened.close()
        await tunnels.close()


async def test_the_engines_bytes_reach_the_worker() -> None:
    """And its answers come back, as often as the engine connects; the worker is dialled once."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender, a_side(lender, lender.as_peer()) as side:
        await lender.lent()
        side.begin()
        answers = [await side.talk(b"tensor" * count) for count in (1, 100_000, 2)]

    assert answers == [b"tensor" * count for count in (1, 100_000, 2)]
    assert side.lost == []
    assert (side.dialled, side.tunnels.connections) == (["desk"], 3)


async def test_workers_are_reached_before_the_engine_asks() -> None:
    """While it starts: its first connection waits for no handshake; one that refuses ends the start at once."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender, a_side(lender, lender.as_peer("den")) as side:
        side.begin()
        await asyncio.wait_for(side.was_lost.wait(), WITHIN_S)

    assert side.dialled == ["den"]
    assert side.lost == ["the worker den refused: this node runs no server for that model"]


async def test_nothing_but_the_engine_gets_in() -> None:
    """Another program on this machine finds a port that closes."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender, a_side(lender, lender.as_peer()) as side:
        await lender.lent()
        side.begin(STRANGER_PID)
        answer = await side.talk()

    assert (answer, side.lost) == (b"", [])


async def test_the_ports_are_on_loopback() -> None:
    """Each way has one of its own."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender, a_side(lender, lender.as_peer(), lender.as_peer("den")) as side:
        ports = side.tunnels.ports
        here = [one.laddr for one in psutil.Process().net_connections("tcp") if one.laddr.port in ports]

    assert len(set(ports)) == 2
    assert {place.ip for place in here} == {"127.0.0.1"}


async def test_a_refusal_is_told_with_the_workers_name() -> None:
    """A host that time overtook hears so."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender, a_side(lender, lender.as_peer(), epoch=6) as side:
        await lender.lent(7)
        side.begin()
        answer = await side.talk()
        await asyncio.wait_for(side.was_lost.wait(), WITHIN_S)

    assert (answer, len(side.lost)) == (b"", 1)
    assert side.lost[0].startswith("the worker desk refused: ")
    assert side.tunnels.problem == side.lost[0]


async def test_a_worker_that_is_not_there_is_told() -> None:
    """With its address."""
    mesh = Mesh()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nowhere = Address("127.0.0.1", gone.getsockname()[1])
    async with a_lender(mesh, mesh.member()) as lender:
        peer = dataclasses.replace(lender.as_peer(), addresses=(nowhere,))
        async with a_side(lender, peer) as side:
            side.begin()
            await asyncio.wait_for(side.was_lost.wait(), WITHIN_S)

    assert side.lost[0].startswith("the worker desk cannot be reached: ")


async def test_a_worker_that_is_lost_is_told_once() -> None:
    """While the engine waits for it."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender, a_side(lender, lender.as_peer()) as side:
        await lender.lent()
        side.begin()
        with socket.create_connection(("127.0.0.1", side.tunnels.ports[0]), timeout=WITHIN_S) as way:
            await asyncio.to_thread(way.sendall, b"x")
            assert await asyncio.to_thread(way.recv, 1) == b"x"
            servers()[0].kill()
            await asyncio.wait_for(side.was_lost.wait(), WITHIN_S)

    assert [message.partition(":")[0] for message in side.lost] == ["the worker desk was lost"]


async def test_ways_that_are_closed_are_no_loss() -> None:
    """The engine has ended: nobody is told of its workers."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender, a_side(lender, lender.as_peer()) as side:
        await lender.lent()
        side.begin()
        with socket.create_connection(("127.0.0.1", side.tunnels.ports[0]), timeout=WITHIN_S) as way:
            await asyncio.to_thread(way.sendall, b"x")
            assert await asyncio.to_thread(way.recv, 1) == b"x"
            side.tunnels.close()
            await side.all.close()

    assert side.lost == []


# -- with an engine -------------------------------------------------------------------------------------


@asynccontextmanager
async def a_split(lender: Lender, tmp_path: Path) -> AsyncIterator[Bench]:
    """Start the engine double on two ways to one lender's models."""
    file = tmp_path / "big.gguf"
    file.write_bytes(b"GGUF")
    part = SplitPart(node=lender.port.node.id, layers=4, name="desk")
    plan = dataclasses.replace(a_plan(str(file)), split=SplitRun(epoch=7, workers=(part,), home_layers=0))
    tunnels = ways(lender, lender.host)
    with tempfile.TemporaryDirectory(prefix="mesh") as folder:
        async with a_bench(lending_build(), Path(folder)) as bench:
            bench.supervisor.start(plan, tunnels.open(MODEL, 7, [lender.as_peer()]))
            yield bench
        await tunnels.close()


async def test_a_split_engine_loads_through_its_ways(tmp_path: Path) -> None:
    """It looks at its worker, then loads, and is ready."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        async with a_split(lender, tmp_path) as bench:
            await bench.next(ev.EngineReady)
            bench.supervisor.stop(MODEL)
            failure = await bench.end()

    assert failure.fault is EngineFault.STOPPED


async def test_a_split_engine_ends_with_its_worker_and_says_which(tmp_path: Path) -> None:
    """At once, not with the next token; in our words, not with a signal's number."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        async with a_split(lender, tmp_path) as bench:
            await bench.next(ev.EngineReady)
            servers()[0].kill()
            failure = await bench.end()

    assert failure.fault is EngineFault.CRASHED
    assert failure.message.startswith("the worker desk was lost")


async def test_a_worker_that_refuses_ends_the_load_in_words(tmp_path: Path) -> None:
    """Nothing is lent there."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender, a_split(lender, tmp_path) as bench:
        failure = await bench.end()

    assert failure.message == "the worker desk refused: this node runs no server for that model"
