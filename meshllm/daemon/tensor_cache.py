"""Where the servers that this node lends keep tensors, so that these need not come over the network again.

Owns a folder for each model file, by digest. Decides when there is room for one, and which ones go for it. Doesn't
know what a tensor is: `ggml-rpc-server` writes and reads the folder, and nothing else does.
"""

import asyncio
import logging
import re
import shutil
from pathlib import Path

from meshllm.core.effects import Lend
from meshllm.core.engines import EngineBuild
from meshllm.core.limits import DISK_RESERVE_BYTES, TENSOR_FOLDERS

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class TensorCache:
    """The folders of this node."""

    def __init__(self, root: Path) -> None:
        """Keep them under `root`, which is made with the first."""
        self._root = root

    async def folder(self, order: Lend) -> Path | None:
        """Return a folder for a file's tensors, or None where there is no room, or no digest."""
        return await asyncio.to_thread(self._folder, order)

    async def prime(self, order: Lend, build: EngineBuild, port: int) -> None:
        """Fill it from this node's own copy of the file, through the server at a port. Never fails."""

    def _folder(self, order: Lend) -> Path | None:
        named = _DIGEST.fullmatch(order.digest)
        if named is None:
            return None
        folder = self._root / named[1]
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
