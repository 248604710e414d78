"""The split of an engine double: a byte to each worker for every token, which has to come back.

Owns the connections to the local ports of a split. Decides, as llama-server does, that an engine which has lost a
worker ends itself with the next token. Doesn't know what a token is.
"""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meshllm.testing.fake_switches import end, say

LOOPBACK = "127.0.0.1"
LOAD_BYTES = 64 * 1024
"""What each worker gets before anything is computed: a model that is loaded."""
GATE_POLL_S = 0.02


@dataclass(slots=True)
class Workers:
    """The workers of one engine; without any, nothing is done."""

    _ways: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def connect(self, ports: Sequence[int], gate: str = "") -> None:
        """Look at every worker, then load a share of the model there: two connections, as llama-server has.

        Where `gate` names a file, the load goes on until that is there.
        """
        for number, port in enumerate(ports):
            try:
                _, looking = await asyncio.open_connection(LOOPBACK, port)
                looking.close()
                await looking.wait_closed()
                self._ways.append(await asyncio.open_connection(LOOPBACK, port))
                await self._exchange(number, bytes(LOAD_BYTES))
                while gate and not await asyncio.to_thread(Path(gate).exists):
                    await self._exchange(number, b"l")
                    await asyncio.sleep(GATE_POLL_S)
            except (OSError, EOFError):
                end(1, f"E Failed to connect to {LOOPBACK}:{port}")
            say(f"worker {number} has its share")

    async def compute(self) -> None:
        """Send a byte to each worker, one after the other, and wait for its echo; without one the process aborts."""
        for number in range(len(self._ways)):
            try:
                await self._exchange(number, b"t")
            except (OSError, EOFError):
                say(f"E Remote RPC server crashed or returned malformed response (worker {number})")
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                os.kill(os.getpid(), signal.SIGABRT)

    async def close(self) -> None:
        """End the connections."""
        for _, writer in self._ways:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _exchange(self, number: int, data: bytes) -> None:
        reader, writer = self._ways[number]
        writer.write(data)
        await writer.drain()
        await reader.readexactly(len(data))
