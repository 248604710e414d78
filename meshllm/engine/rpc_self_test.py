"""Whether a llama-server and a ggml-rpc-server work together on this machine: both run, and a tiny model answers.

Owns one such test: the server says who it is, the worker listens on loopback and says its protocol, and the server
computes a model of random numbers with it. Decides what a failure is called. Doesn't remember anything.
"""

import asyncio
import contextlib
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from meshllm.core import limits
from meshllm.core.engines import EngineEndpoint, SplitPart, SplitRun
from meshllm.core.ids import NodeId
from meshllm.engine import health
from meshllm.engine.command import (
    SPLIT_ENVIRONMENT,
    Command,
    Host,
    child_environment,
    guarded,
    split_arguments,
    this_host,
)
from meshllm.engine.inquiry import EngineUnusableError, ask
from meshllm.engine.llama_server import device_names, read_gpus, read_version
from meshllm.engine.output import LogRing, explain
from meshllm.engine.process import Process, spawn
from meshllm.engine.tiny_gguf import LAYERS, tiny_model

LOOPBACK = "127.0.0.1"
HELLO = 14
CAPABILITIES_BYTES = 24
"""None of them: plain TCP."""
POLL_S = 0.05
TOKENS = 4
WITHOUT_RPC = "invalid argument: --rpc"


class RpcUnusableError(Exception):
    """Two programs cannot share a model here. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What a test that succeeded found."""

    protocol: str
    version: str
    """Of llama.cpp, in its server's words."""
    devices: tuple[str, ...]
    """What the server calls the GPUs that it computes on."""


@dataclass(frozen=True, slots=True)
class _Child:
    """One of the two programs while it runs."""

    name: str
    process: Process
    log: LogRing
    ended: asyncio.Task[int]

    def check(self) -> None:
        """Raise RpcUnusableError when it has ended."""
        if self.process.exit_code is not None:
            raise RpcUnusableError(f"{self.name} cannot run here: {self._reason}")

    @property
    def _reason(self) -> str:
        if any(WITHOUT_RPC in line for line in self.log.lines):
            return "it was built without RPC"
        return explain(self.log.lines, self.process.exit_code).message


async def check_pair(server: str, worker: str) -> Passed:
    """Return what two programs are, once a model has answered over both. Raises RpcUnusableError."""
    host = this_host()
    try:
        said = await ask(host, (server, "--version"), limits.ENGINE_SELF_TEST_S, name=server)
        listed = await ask(host, (server, "--list-devices"), limits.ENGINE_SELF_TEST_S, name=server)
    except EngineUnusableError as error:
        raise RpcUnusableError(error.failure.message) from error
    port = _free_port()
    async with _running(host, (worker, "-H", LOOPBACK, "-p", str(port), "-t", "1")) as lent:
        protocol = await _protocol(port, lent)
        await _model_answers(host, server, port, lent)
    return Passed(
        protocol=protocol, version=read_version(said.text) or "unknown", devices=device_names(read_gpus(listed.text))
    )


@contextlib.asynccontextmanager
async def _running(host: Host, program: tuple[str, ...]) -> AsyncIterator[_Child]:
    """Run a program while this lasts. Raises RpcUnusableError where it cannot be started."""
    log = LogRing()
    environment = {**child_environment(host, threads=1), **SPLIT_ENVIRONMENT}
    try:
        process = await spawn(Command(argv=guarded(host, program), env=environment), log)
    except OSError as error:
        raise RpcUnusableError(f"{program[0]} cannot be started: {error.strerror or error}") from error
    problem: RpcUnusableError | OSError | None = None
    async with asyncio.TaskGroup() as group:
        ended = group.create_task(process.run(), name=f"rpc-self-test:{process.pid}")
        try:
            yield _Child(program[0], process, log, ended)
        except (RpcUnusableError, OSError) as error:
            problem = error  # the group would wrap it
        finally:
            process.stop(0.0)
    if problem is not None:
        raise problem


async def _protocol(port: int, lent: _Child) -> str:
    """Return the worker's protocol as soon as it listens, such as `7.0.0`. Raises RpcUnusableError."""
    while True:
        lent.check()
        with contextlib.suppress(OSError, EOFError):
            return await _hello(port)
        await asyncio.sleep(POLL_S)


async def _hello(port: int) -> str:
    """Greet a worker as llama.cpp does and return its version. Raises OSError, EOFError."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(struct.pack("<BQ", HELLO, CAPABILITIES_BYTES) + bytes(CAPABILITIES_BYTES))
        answer = await reader.readexactly(8 + 3)
    finally:
        writer.transport.abort()
    return ".".join(str(number) for number in answer[8:])


async def _model_answers(host: Host, server: str, port: int, lent: _Child) -> None:
    """Let the server compute a tiny model with the worker. Raises RpcUnusableError."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        model = Path(folder) / "tiny.gguf"
        await asyncio.to_thread(lambda: model.write_bytes(tiny_model()))
        endpoint = EngineEndpoint(socket_path=str(Path(folder) / "e.sock"))
        async with _running(host, (server, *_arguments(endpoint.socket_path, str(model), port))) as home:
            while await health.health(endpoint, limits.ENGINE_PROBE_TIMEOUT_S) is not health.Health.READY:
                home.check()
                lent.check()
                await asyncio.sleep(POLL_S)
            try:
                made = await health.completed(endpoint, "a", TOKENS, limits.ENGINE_SELF_TEST_S)
            except health.ProbeError as error:
                await _until_ended(lent, home)
                raise RpcUnusableError(f"{server} did not compute a model over RPC: {error}") from error
            if made != TOKENS:
                raise RpcUnusableError(f"{server} made {made} tokens over RPC instead of {TOKENS}")


def _arguments(socket_path: str, model: str, port: int) -> tuple[str, ...]:
    """Return the arguments of a server whose worker has all layers but one."""
    part = SplitPart(node=NodeId(""), layers=LAYERS - 1)
    split = SplitRun(epoch=1, workers=(part,), home_layers=1)
    return (
        "--host", socket_path, "--model", model, "--ctx-size", "64", "--parallel", "1", "--threads", "1",
        "--cache-ram", "0", *split_arguments(split, (port,)),
    )  # fmt: skip


async def _until_ended(*children: _Child) -> None:
    """Give programs a moment to be reaped, and raise RpcUnusableError for the first that has ended."""
    ended = {child.ended for child in children}
    await asyncio.wait(ended, timeout=limits.ENGINE_STOP_POLITE_S, return_when=asyncio.FIRST_COMPLETED)
    for child in children:
        child.check()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        port: int = found.getsockname()[1]
        return port
