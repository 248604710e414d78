"""Shows a worker's own server the layers that it will have, from a file on this machine, so that it keeps them.

Owns one process for as long as it loads: a llama-server that puts exactly these layers on the worker and leaves the
rest on disk. Decides when that has worked. Doesn't know who will use the worker afterwards.

What a server has seen it takes from its cache when a host offers it by hash, which it does with all larger tensors:
a model that both machines have hardly crosses the network.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from meshllm.core.engines import EngineEndpoint
from meshllm.core.limits import ENGINE_PROBE_TIMEOUT_S
from meshllm.engine import health
from meshllm.engine.command import Command, Host, child_environment, guarded
from meshllm.engine.output import LogRing, explain
from meshllm.engine.process import Process, spawn

POLL_S = 0.1
SOCKET_NAME = "p.sock"


class PrimeError(Exception):
    """The worker has not seen everything. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a worker is shown."""

    path: str
    """Of the model's file."""
    first_layer: int
    layers: int
    port: int
    """Where the worker listens on loopback."""


async def prime(server: str, share: Share, host: Host, runtime_dir: Path) -> None:
    """Show a worker its share, by a llama-server. Raises PrimeError; cancelled, it leaves nothing running."""
    folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="p-", dir=runtime_dir)
    endpoint = EngineEndpoint(socket_path=str(Path(folder.name) / SOCKET_NAME))
    log = LogRing()
    try:
        async with _running(_command(server, share, host, endpoint.socket_path), log) as process:
            while await health.health(endpoint, ENGINE_PROBE_TIMEOUT_S) is not health.Health.READY:
                if process.exit_code is not None:
                    raise PrimeError(explain(log.lines, process.exit_code).message)
                await asyncio.sleep(POLL_S)
    except OSError as error:
        raise PrimeError(f"{server} cannot be started: {error.strerror or error}") from error
    finally:
        await asyncio.to_thread(folder.cleanup)


@contextlib.asynccontextmanager
async def _running(command: Command, log: LogRing) -> AsyncIterator[Process]:
    """Run a program while this lasts. Raises OSError where it cannot be started."""
    process = await spawn(command, log)
    ended = asyncio.get_running_loop().create_task(process.run(), name=f"rpc-prime:{process.pid}")
    try:
        yield process
    finally:
        process.stop(0.0)
        await asyncio.shield(ended)


def _command(server: str, share: Share, host: Host, socket_path: str) -> Command:
    last = share.first_layer + share.layers
    layers = "|".join(str(layer) for layer in range(share.first_layer, last))
    where = f"127.0.0.1:{share.port}"
    program = (
        server, "--host", socket_path, "--model", share.path, "--ctx-size", "64", "--parallel", "1", "--threads", "1",
        "--rpc", where, "--device", "RPC0", "--n-gpu-layers", "0", "--fit", "off", "--no-warmup", "--no-kv-offload",
        "--cache-ram", "0", "--override-tensor", rf"^blk\.({layers})\.=RPC0[{where}]",
    )  # fmt: skip
    return Command(argv=guarded(host, program), env=child_environment(host, threads=1))
