"""Downloads with this node's settings: which folder, which memory, whether there is a network.

Owns nothing but the settings and the order: peers that have the very file, then what `inventory.download` knows. Shared
by the running node and by the commands that need none, which know no peers.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from meshllm.core.catalog import ModelReference
from meshllm.core.effects import PeerSource
from meshllm.daemon.peer_copy import Dial, PeerCopies, Tell, Wanted
from meshllm.inventory import download
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from meshllm.inventory.piece_file import discard_pieces

log = logging.getLogger(__name__)


class ModelDownloads:
    """Brings models to the first model folder."""

    def __init__(self, into: Path, usable_bytes: Callable[[], int], *, offline: bool, dial: Dial | None = None) -> None:
        """Download into a folder; `usable_bytes` says how large a model may be that is chosen by size."""
        self._into = into
        self._usable_bytes = usable_bytes
        self._offline = offline
        self._copies = PeerCopies(dial) if dial is not None else None

    async def resolve(self, asked: str) -> ModelReference:
        """Find the file that a name stands for. Raises DownloadError."""
        return await download.resolve(asked, usable_bytes=self._usable_bytes(), offline=self._offline)

    async def fetch(self, reference: ModelReference, on_progress: Tell, peers: Sequence[PeerSource] = ()) -> Path:
        """Bring a model's files to this disk, from peers where they give it. Raises DownloadError."""
        if (path := await self._from_peers(reference, on_progress, peers)) is not None:
            return path
        if not reference.repository:
            message = f"no member of the mesh gives {reference.id} at this moment, and nobody else has it"
            raise DownloadError(DownloadCode.PEERS, message)
        path = await download.fetch(
            reference, into=self._into, on_progress=lambda done, total: on_progress(done, total, ()),
            offline=self._offline,
        )  # fmt: skip
        discard_pieces(path)
        return path

    async def _from_peers(self, reference: ModelReference, tell: Tell, peers: Sequence[PeerSource]) -> Path | None:
        """Return the file that peers gave, or None where somebody else is to be asked. Raises DownloadError."""
        target = self._into / Path(reference.filename).name
        if self._copies is None or not peers or target.exists():
            return None
        wanted = Wanted(sha256=reference.sha256, size_bytes=peers[0].size_bytes, target=target)
        try:
            return await self._copies.fetch(wanted, peers, tell)
        except DownloadError as error:
            if not reference.repository or error.code is DownloadCode.NO_SPACE:
                raise
            log.warning("peers did not give a file, asking elsewhere model=%s: %s", reference.id, error.message)
            return None
