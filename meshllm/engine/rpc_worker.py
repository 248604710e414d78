"""The server that this node runs for another node's split: one `ggml-rpc-server` on loopback, confined, until its end.

Owns its process, its port and its working folder. Decides when it listens and when its start has failed. Doesn't know
whom it serves: the bulk plane lets one peer at it.

llama.cpp's RPC is memory access by design and knows no passwords: nothing but this machine reaches the port, and what
runs there has no files, no secrets and no more memory than was agreed.
"""

import asyncio
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from meshllm.core.engines import EngineBuild
from meshllm.core.limits import GIB, RPC_START_S, RPC_START_TRIES
from meshllm.engine.command import FAKE, Command, Host, child_environment, guarded, python_module
from meshllm.engine.output import LogRing, explain
from meshllm.engine.process import Process, spawn

LOOPBACK = "127.0.0.1"
FAKE_SERVER = "meshllm.testing.fake_rpc_server"
CONFINEMENT = "meshllm.engine.confinement"
POLL_S = 0.02
ADDRESS_SPACE_SPARE_BYTES = 4 * GIB
"""Of libraries, stacks and the allocator's arenas, which take addresses and no memory."""
ADDRESS_SPACE_FACTOR = 2
"""What comes over the network is held beside the place where it belongs, until it is there."""
NEVER_KEPT = ("PYTHONPATH", "PYTHONUTF8", "PATH", "HOME", "USER", "LOGNAME", "TMPDIR")
"""Of what engines get; `ggml-rpc-server` needs none of it."""


Listens = Callable[[int, int], bool]
"""Tells whether a process listens at a port of loopback, and at nothing else. Blocks for some milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcJob:
    """What a worker's server is started for."""

    memory_bytes: int
    """What was agreed."""
    threads: int
    cache: Path | None = None
    """Folder for tensors that it has seen; None keeps none."""


class RpcWorker:
    """One server. `run` is its life; `stop` asks it to end."""

    def __init__(self, build: EngineBuild, host: Host, job: RpcJob, runtime_dir: Path, listens: Listens) -> None:
        """Prepare a server that `run` will start."""
        self.port = 0
        """Where it listens on loopback; 0 while it does not."""
        self.log = LogRing()
        self._build = build
        self._host = host
        self._job = job
        self._runtime_dir = runtime_dir
        self._listens = listens
        self._process: Process | None = None
        self._is_asked = False
        self._is_late = False

    @property
    def pid(self) -> int:
        """Return its process; 0 while there was none."""
        return self._process.pid if self._process is not None else 0

    def stop(self) -> None:
        """End it, at once: it has nothing to finish."""
        self._is_asked = True
        self.port = 0
        if self._process is not None:
            self._process.stop(0.0)

    async def run(self, listening: Callable[[], Awaitable[None]]) -> str:
        """Run it to its end; return why it ended, in words, empty where it was asked to.

        `listening` is awaited once it listens. When this returns its process is gone.
        """
        folder, reason = "", ""
        try:
            folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="rpc-", dir=self._runtime_dir)
            for _ in range(RPC_START_TRIES):
                reason = await self._live(folder, listening)
                if self._is_asked or not self._was_beaten_to_its_port():
                    break
        except OSError as error:
            reason = f"its program cannot be started: {error.strerror or error}"
        finally:
            self.port = 0
            if folder:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return "" if self._is_asked else reason

    async def _live(self, folder: str, listening: Callable[[], Awaitable[None]]) -> str:
        """Run one process to its end; return why it ended. Raises OSError."""
        port = _free_port()
        process = self._process = await spawn(self._command(port, folder), self.log)
        if self._is_asked:
            process.stop(0.0)  # asked while it was started
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(process, port, listening), name=f"rpc-worker:{port}")
            code = await process.run()
            watching.cancel()
        if self._is_late:
            return f"its server did not listen within {RPC_START_S:g} s"
        return explain(self.log.lines, code).message

    async def _watch(self, process: Process, port: int, listening: Callable[[], Awaitable[None]]) -> None:
        """Say when it listens; end it where that takes too long."""
        began_s = time.monotonic()
        while not await asyncio.to_thread(self._listens, process.pid, port):
            if time.monotonic() - began_s > RPC_START_S:
                self._is_late = True
                process.stop(0.0)
                return
            await asyncio.sleep(POLL_S)
        if not self._is_asked:
            self.port = port
            await listening()

    def _openings(self, worker: str, port: int) -> list[str]:
        """Return what stays open to it. Nobody here knows what a GPU's driver opens: there everything does."""
        if self._build.uses_gpu:
            return []
        read = _places(worker)
        if self._build.kind == FAKE:
            read = (self._host.package_root, sys.prefix, sys.base_prefix)
        write = [f"--write={self._job.cache}"] if self._job.cache is not None else []
        return [f"--port={port}", *(f"--read={one}" for one in read), *write]

    def _was_beaten_to_its_port(self) -> bool:
        return any("bind" in line.lower() for line in self.log.lines)

    def _command(self, port: int, folder: str) -> Command:
        fake = self._build.kind == FAKE
        worker = self._build.rpc.worker if self._build.rpc is not None else ""
        program = python_module(self._host, FAKE_SERVER) if fake else (worker,)
        job = self._job
        environment = child_environment(self._host, threads=job.threads)
        arguments = ["-H", LOOPBACK, "-p", str(port), "-t", str(job.threads)]
        if self._build.rpc is not None and self._build.rpc.devices:
            arguments += ["-d", self._build.rpc.devices[0]]  # one: its host names workers by the devices that they show
        if job.cache is not None:
            arguments.append("-c")
            environment["LLAMA_CACHE"] = str(job.cache)
        keep = [name for name in environment if fake or name not in NEVER_KEPT]
        # What drives GPUs reserves far more addresses than memory: there is no number to limit it by.
        space = 0 if self._build.uses_gpu else ADDRESS_SPACE_FACTOR * job.memory_bytes + ADDRESS_SPACE_SPARE_BYTES
        confined = (
            self._host.python, "-P", "-S", "-m", CONFINEMENT, "--folder", folder,
            "--address-space-bytes", str(space), "--file-bytes", str(job.memory_bytes if job.cache else 0),
            *(f"--keep={name}" for name in keep), *self._openings(worker, port), "--", *program, *arguments,
        )  # fmt: skip
        return Command(argv=guarded(self._host, confined), env=environment)


def _places(program: str) -> tuple[str, ...]:
    """Return the folders in which a program and its libraries lie."""
    folder = Path(program).parent
    libraries = [one for one in os.environ.get("LD_LIBRARY_PATH", "").split(":") if one]
    return (str(folder), str(folder.parent / "lib"), str(folder.parent / "lib64"), *libraries)


def _free_port() -> int:
    """Return a port on loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
