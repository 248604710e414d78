"""Where the servers that this node lends keep tensors, so that these need not come over the network again.

Owns a folder for each model file, by digest. Decides when there is room for one, and which ones go for it. Doesn't
know what a tensor is: `ggml-rpc-server` writes and reads the folder, but for the marks of what it was shown.
"""

import asyncio
import logging
import re
import shutil
import time
from pathlib import Path

from meshllm.core.effects import Lend
from meshllm.core.engines import EngineBuild
from meshllm.core.limits import DISK_RESERVE_BYTES, RPC_PRIME_S, TENSOR_FOLDERS
from meshllm.engine.command import FAKE, this_host
from meshllm.engine.rpc_prime import PrimeError, Share, prime

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class TensorCache:
    """The folders of this node."""

    def __init__(self, root: Path, runtime_dir: Path) -> None:
        """Keep them under `root`, which is made with the first; `runtime_dir` is for sockets."""
        self._root = root
        self._runtime_dir = runtime_dir

    async def folder(self, order: Lend) -> Path | None:
        """Return a folder for a file's tensors, or None where there is no room, or no digest."""
        return await asyncio.to_thread(self._folder, order)

    async def prime(self, order: Lend, build: EngineBuild, port: int) -> None:
        """Fill it from this node's own copy of the file, through the server at a port. Never fails; once is enough."""
        folder = self._known(order)
        if folder is None or build.rpc is None or build.kind == FAKE:
            return
        mark = folder / f"primed-{order.first_layer}-{order.layers}"
        if not folder.is_dir() or mark.exists():
            return
        share = Share(path=order.path, first_layer=order.first_layer, layers=order.layers, port=port)
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(RPC_PRIME_S):
                await prime(build.rpc.server, share, this_host(), self._runtime_dir)
            await asyncio.to_thread(mark.touch)
        except (PrimeError, TimeoutError, OSError) as error:
            log.info("tensors of %s will come from its host: %s", order.model, str(error) or "it took too long")
        else:
            log.info("tensors of %s are on this disk primed_s=%.1f", order.model, time.monotonic() - began_s)

    def _known(self, order: Lend) -> Path | None:
        named = _DIGEST.fullmatch(order.digest)
        return self._root / named[1] if named is not None else None

    def _folder(self, order: Lend) -> Path | None:
        folder = self._known(order)
        if folder is None:
            return None
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            self._forget_others(folder)
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.touch()
            free_bytes = shutil.disk_usage(folder).free
        except OSError as error:
            log.warning("no folder for tensors: %s", error.strerror or error)
            return None
        if free_bytes < order.memory_bytes + DISK_RESERVE_BYTES:
            log.info("tensors of %s are not kept: there is no room on the disk", order.model)
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return folder

    def _forget_others(self, folder: Path) -> None:
        """Remove what was not used for the longest time. Raises OSError."""
        others = sorted((one for one in self._root.iterdir() if one != folder), key=lambda one: one.stat().st_mtime)
        for one in others[: max(len(others) + 1 - TENSOR_FOLDERS, 0)]:
            shutil.rmtree(one, ignore_errors=True)
