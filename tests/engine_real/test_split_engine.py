"""One model over several processes: the real llama-server with real workers on loopback, without the mesh."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshllm.core.engines import EngineBuild, EngineEndpoint, EnginePlan, SplitPart, SplitRun
from meshllm.core.ids import NodeId
from meshllm.engine import health
from meshllm.engine.command import Command, child_environment, guarded, make_command, this_host
from meshllm.engine.output import LogRing, explain
from meshllm.engine.process import Process, spawn
from tests.engine.builders import a_plan
from tests.rpc_engine import RpcEngine

pytestmark = [pytest.mark.engine, pytest.mark.rpc, pytest.mark.timeout(240)]
WITHIN_S = 120.0
POLL_S = 0.05
LAYERS = 30
HIDDEN_STATE_BYTES = 576 * 4
"""Of one token between two layers of SmolLM2-135M, as floats."""
LOGITS_BYTES = 49_152 * 4
KEY = "k"
PROMPTS = ("The capital of France", "Once upon a time", "def fibonacci(n):")


@dataclass
class Relay:
    """A port of our own in front of a worker's, which counts what passes."""

    target: int
    port: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end, both ways."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_sent: bool) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 18):
                    self.sent_bytes += len(data) * is_sent
                    self.received_bytes += len(data) * (not is_sent)
                    sink.write(data)
                    await sink.drain()
            await ended(sink)

        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, far_writer, is_sent=True))
            group.create_task(pump(far_reader, writer, is_sent=False))
        self.tasks.discard(task)


async def ended(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until it is."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def a_relay(target: int) -> AsyncIterator[Relay]:
    """Yield a relay in front of a port."""
    relay = Relay(target=target)
    server = await asyncio.start_server(relay.carry, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        if relay.tasks:
            await asyncio.wait(relay.tasks, timeout=WITHIN_S)


@dataclass(frozen=True)
class Child:
    """A program that runs, and what it says."""

    process: Process
    log: LogRing
    ended: asyncio.Task[int]


@contextlib.asynccontextmanager
async def a_child(command: Command) -> AsyncIterator[Child]:
    """Run a program while this lasts."""
    log = LogRing()
    process = await spawn(command, log)
    async with asyncio.TaskGroup() as group:
        try:
            yield Child(process, log, group.create_task(process.run()))
        finally:
            process.stop(0.0)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def a_worker(rpc_engine: RpcEngine) -> AsyncIterator[tuple[Child, int]]:
    """Yield a worker's process and its port, once it listens."""
    port = free_port()
    program = (rpc_engine.build.worker, "-H", "127.0.0.1", "-p", str(port), "-t", "1")
    command = Command(argv=guarded(this_host(), program), env=child_environment(this_host(), threads=1))
    async with a_child(command) as worker:
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(OSError):
                    await ended((await asyncio.open_connection("127.0.0.1", port))[1])
                    break
                await asyncio.wait({worker.ended}, timeout=POLL_S)
                assert worker.process.exit_code is None, worker.log.lines
        yield worker, port


@dataclass(frozen=True)
class Served:
    """An engine that is ready."""

    child: Child
    session: aiohttp.ClientSession

    async def completion(self, prompt: str, tokens: int) -> dict[str, Any]:
        """Return what it says after a prompt, without chance."""
        asked = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        async with self.session.post("http://engine/completion", json=asked) as answer:
            told: dict[str, Any] = await answer.json()
            assert answer.status == 200, told
            return told


@contextlib.asynccontextmanager
async def served(
    plan: EnginePlan, build: EngineBuild, runtime_dir: Path, ports: tuple[int, ...] = ()
) -> AsyncIterator[Served]:
    """Start an engine as a daemon would, and yield it when it is ready."""
    path = str(runtime_dir / f"e{len(ports)}.sock")
    endpoint = EngineEndpoint(socket_path=path, key=KEY)
    async with a_child(make_command(plan, build, path, KEY, this_host(), ports=ports)) as child:
        async with asyncio.timeout(WITHIN_S):
            while await health.health(endpoint, WITHIN_S) is not health.Health.READY:
                await asyncio.wait({child.ended}, timeout=POLL_S)
                assert child.process.exit_code is None, child.log.lines
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path), headers={"Authorization": f"Bearer {KEY}"},
            timeout=aiohttp.ClientTimeout(total=WITHIN_S),
        ) as session:  # fmt: skip
            yield Served(child, session)


def a_split_plan(model: str, *layers: int) -> EnginePlan:
    """Return a plan over so many layers at each worker; the rest stays at home."""
    workers = tuple(SplitPart(node=NodeId(f"n{at}"), layers=count, name=f"w{at}") for at, count in enumerate(layers))
    split = SplitRun(epoch=1, workers=workers, home_layers=LAYERS - sum(layers))
    return dataclasses.replace(a_plan(model, slots=1, context_tokens=512), split=split)


def a_build(rpc_engine: RpcEngine) -> EngineBuild:
    """Return the node's build: its wheel, and what shares models beside it."""
    return EngineBuild(kind="xllamacpp", version="test", uses_gpu=False, rpc=rpc_engine.build)


async def test_split_model_says_what_the_whole_one_says_and_its_logits_stay_at_home(
    rpc_engine: RpcEngine, smollm2: str, runtime_dir: Path
) -> None:
    """At temperature 0, over two workers; a token costs some kilobytes for each, where the logits alone are 196."""
    whole = EngineBuild(kind="llama-server", version="test", uses_gpu=False, program=rpc_engine.build.server)
    async with served(a_plan(smollm2, slots=1, context_tokens=512), whole, runtime_dir) as engine:
        alone = [(await engine.completion(prompt, 24))["content"] for prompt in PROMPTS]
    async with (
        a_worker(rpc_engine) as (_, one), a_worker(rpc_engine) as (_, two),
        a_relay(one) as first, a_relay(two) as second,
        served(a_split_plan(smollm2, 15, 15), a_build(rpc_engine), runtime_dir, (first.port, second.port)) as engine,
    ):  # fmt: skip
        loaded = (first.sent_bytes, second.sent_bytes)
        shared = [(await engine.completion(prompt, 24))["content"] for prompt in PROMPTS]
        before = [(relay.sent_bytes, relay.received_bytes) for relay in (first, second)]
        made = (await engine.completion(PROMPTS[0], 100))["tokens_predicted"]
        passed = [
            ((relay.sent_bytes - sent) / made, (relay.received_bytes - received) / made)
            for relay, (sent, received) in zip((first, second), before, strict=True)
        ]

    assert shared == alone
    assert 0.95 < loaded[0] / loaded[1] < 1.05
    for sent_bytes, received_bytes in passed:
        assert HIDDEN_STATE_BYTES <= received_bytes < 2 * HIDDEN_STATE_BYTES
        assert HIDDEN_STATE_BYTES <= sent_bytes < LOGITS_BYTES / 4


async def test_each_worker_gets_the_layers_of_the_plan(rpc_engine: RpcEngine, smollm2: str, runtime_dir: Path) -> None:
    """Ten stay at home, fifteen and five go out: the load shows it, since all layers are of one size."""
    async with (
        a_worker(rpc_engine) as (_, one), a_worker(rpc_engine) as (_, two),
        a_relay(one) as first, a_relay(two) as second,
        served(a_split_plan(smollm2, 15, 5), a_build(rpc_engine), runtime_dir, (first.port, second.port)) as engine,
    ):  # fmt: skip
        text = (await engine.completion(PROMPTS[0], 8))["content"]

    layer_bytes = second.sent_bytes / 5
    assert 2.9 < first.sent_bytes / second.sent_bytes < 3.1
    assert 1.5e6 < layer_bytes < 3e6
    assert text.strip()


async def test_host_whose_worker_is_lost_ends_by_itself_and_the_worker_is_named(
    rpc_engine: RpcEngine, smollm2: str, runtime_dir: Path
) -> None:
    """With the next token; nobody waits for an answer that cannot come."""
    plan = a_split_plan(smollm2, 30)
    async with (
        a_worker(rpc_engine) as (worker, port),
        served(plan, a_build(rpc_engine), runtime_dir, (port,)) as engine,
    ):
        await engine.completion(PROMPTS[0], 2)
        os.kill(worker.process.pid, signal.SIGKILL)
        await worker.ended
        with pytest.raises(aiohttp.ClientError):
            await engine.completion(PROMPTS[1], 50)
        async with asyncio.timeout(WITHIN_S):
            code = await asyncio.shield(engine.child.ended)
        failure = explain(engine.child.log.lines, code, workers={port: "w0"})

    assert code == -signal.SIGABRT
    assert "the RPC connection to w0, which shared this model, was lost" in failure.message
