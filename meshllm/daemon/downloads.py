"""Downloads with this node's settings: which folder, which memory, whether there is a network.

Owns nothing but the settings; `inventory.download` does the work. Shared by the running node and by the
commands that need none.
"""

from collections.abc import Callable
from pathlib import Path

from meshllm.core.catalog import ModelReference
from meshllm.inventory import download


class ModelDownloads:
    """Brings models to the first model folder."""

    def __init__(self, into: Path, usable_bytes: Callable[[], int], *, offline: bool) -> None:
        """Download into a folder; `usable_bytes` says how large a model may be that is chosen by size."""
        self._into = into
        self._usable_bytes = usable_bytes
        self._offline = offline

    async def resolve(self, asked: str) -> ModelReference:
        """Find the file that a name stands for. Raises DownloadError."""
        return await download.resolve(asked, usable_bytes=self._usable_bytes(), offline=self._offline)

    async def fetch(self, reference: ModelReference, on_progress: Callable[[int, int], None]) -> Path:
        """Bring a model's files to this disk; progress in bytes, done and total. Raises DownloadError."""
        return await download.fetch(reference, into=self._into, on_progress=on_progress, offline=self._offline)
