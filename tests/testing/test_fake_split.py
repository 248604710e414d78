"""The split of the engine double: a byte to each worker for every token."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshllm.testing.fake_split import LOAD_BYTES, Workers


class Worker:
    """A server that echoes and counts."""

    def __init__(self) -> None:
        self.got_bytes = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.ends: list[asyncio.Event] = []
        self.takes_more = asyncio.Event()
        """More came than a whole load has."""

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Echo one connection to its end."""
        self.writers.append(writer)
        self.ends.append(asyncio.Event())
        end = self.ends[-1]
        while data := await reader.read(65536):
            self.got_bytes += len(data)
            self.takes_more.set() if self.got_bytes > LOAD_BYTES + 1 else None
            writer.write(data)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        end.set()


@asynccontextmanager
async def two_workers() -> AsyncIterator[tuple[Workers, list[Worker]]]:
    """Connect to two of them."""
    made, engine = [Worker(), Worker()], Workers()
    servers = [await asyncio.start_server(one.attend, "127.0.0.1", 0) for one in made]
    try:
        await engine.connect([server.sockets[0].getsockname()[1] for server in servers])
        yield engine, made
    finally:
        await engine.close()
        for end in [end for one in made for end in one.ends]:
            await asyncio.wait_for(end.wait(), 30)
        for server in servers:
            server.close()
            await server.wait_closed()


async def test_every_worker_gets_its_share_and_a_byte_for_each_token() -> None:
    """In turn."""
    async with two_workers() as (engine, made):
        for _ in range(3):
            await engine.compute()

        assert [one.got_bytes for one in made] == [LOAD_BYTES + 3] * 2


async def test_a_load_goes_on_until_somebody_opens_the_gate(tmp_path: Path) -> None:
    """Its worker has more to take all the while."""
    worker, engine, gate = Worker(), Workers(), tmp_path / "gate"
    server = await asyncio.start_server(worker.attend, "127.0.0.1", 0)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        loading = group.create_task(engine.connect([server.sockets[0].getsockname()[1]], str(gate)), name="load")
        await worker.takes_more.wait()
        is_early = loading.done()
        gate.touch()
        await loading
        await engine.close()
        for end in worker.ends:
            await end.wait()
        server.close()
        await server.wait_closed()

    assert not is_early


async def test_an_engine_that_lost_a_worker_aborts_with_the_next_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """As llama-server does."""
    told: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: told.append(number))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    async with two_workers() as (engine, made):
        made[1].writers[-1].close()
        await engine.compute()

    assert told == [signal.SIGABRT]


async def test_an_engine_without_a_split_computes_alone() -> None:
    """Nothing is waited for."""
    engine = Workers()

    await engine.connect(())
    await engine.compute()

    assert engine == Workers()
