"""A model file that comes in pieces, in any order: kept beside its place until it is whole and has the right digest.

Owns the unfinished file and the list of what has arrived, which outlives a restart. Decides whether the whole is what
was asked for; only then the file gets its name, and otherwise it is deleted. Doesn't know where pieces come from.

Blocks on the disk. `write` and `settle` may be called from several threads at once, for different pieces; everything
else from one at a time.
While one `PieceFile` has it, no other one may write into it, of whatever process: what was hashed must stay as it is.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final, Self

from meshllm.core.limits import (
    BULK_BLOCK_BYTES,
    BULK_MARK_S,
    BULK_PIECE_BYTES,
    BULK_STATE_BYTES,
    disk_reserve_bytes,
)
from meshllm.core.resources import format_bytes
from meshllm.inventory.download_errors import DownloadCode, DownloadError

_DATA_SUFFIX: Final = ".pieces"
_LIST_SUFFIX: Final = ".pieces.json"


class PieceFile:
    """A file of known digest and size in the making."""

    def __init__(self, target: Path, sha256: str, size_bytes: int) -> None:
        """Make or continue the file that will be `target`. Raises DownloadError."""
        self.target = target
        self.size_bytes = size_bytes
        self._sha256 = sha256
        self._data, self._list = _beside(target)
        self._hash = hashlib.sha256()
        self._hashed_bytes = 0
        self._block = memoryview(bytearray(BULK_BLOCK_BYTES))
        self._marked_s = time.monotonic()
        with self._told():
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.done, self.senders = self._kept()
            self._check_room()
            self._descriptor = os.open(self._data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with contextlib.ExitStack() as undo:
                undo.callback(self.__exit__)
                self._take_for_oneself()
                self.done, self.senders = self._kept()  # whoever had it until now may have changed it
                os.ftruncate(self._descriptor, size_bytes)
                undo.pop_all()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open; what has arrived stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def write(self, offset: int, block: memoryview) -> None:
        """Keep some bytes. Raises DownloadError."""
        with self._told():
            while len(block):
                count = os.pwrite(self._descriptor, block, offset)
                offset, block = offset + count, block[count:]

    def settle(self) -> None:
        """Wait until the disk has what was written so far; others may write meanwhile. Raises DownloadError."""
        with self._told():
            os.fsync(self._descriptor)

    def mark(self, done: Collection[int], senders: Collection[str], *, is_last: bool = False) -> None:
        """Write down, now and then and in the end, which pieces are here and who sent them. Raises DownloadError."""
        now_s = time.monotonic()
        if not is_last and now_s - self._marked_s < BULK_MARK_S:
            return
        self._marked_s = now_s
        bits = bytearray(-(-self.size_bytes // BULK_PIECE_BYTES) // 8 + 1)
        for number in done:
            bits[number // 8] |= 1 << number % 8
        content = {
            "sha256": self._sha256, "size_bytes": self.size_bytes, "piece_bytes": BULK_PIECE_BYTES, "done": bits.hex(),
            "senders": sorted(senders),
        }  # fmt: skip
        fresh = self._list.with_name(f"{self._list.name}.part")
        with self._told():
            fresh.write_text(json.dumps(content))
            fresh.replace(self._list)

    @property
    def hashed_bytes(self) -> int:
        """Return how much is hashed, from the beginning."""
        return self._hashed_bytes

    def hash_block(self, block: memoryview) -> None:
        """Hash what has been written behind the last hashed byte, from memory instead of reading it again."""
        self._hash.update(block)
        self._hashed_bytes += len(block)

    def hash_up_to(self, whole_bytes: int, is_over: Callable[[], bool] = lambda: False) -> None:
        """Hash what is here from the beginning without a gap, until it `is_over`. Raises DownloadError."""
        with self._told():
            while self._hashed_bytes < whole_bytes and not is_over():
                room = self._block[: min(len(self._block), whole_bytes - self._hashed_bytes)]
                count = os.preadv(self._descriptor, [room], self._hashed_bytes)
                if not count:
                    raise self._cut_short()
                self._hash.update(room[:count])
                self._hashed_bytes += count

    def finish(self) -> Path:
        """Give the file its name, all of it being here. Raises DownloadError; a wrong one is deleted then."""
        self.hash_up_to(self.size_bytes)
        if self._hash.hexdigest() != self._sha256:
            self.discard()
            message = f"sha256 is {self._hash.hexdigest()[:12]}…, not {self._sha256[:12]}…"
            raise DownloadError(DownloadCode.DIGEST_MISMATCH, message)
        with self._told():
            if os.fstat(self._descriptor).st_size != self.size_bytes:
                raise self._cut_short()
            os.fsync(self._descriptor)
            if self.target.exists():
                message = f"{self.target} has come to be meanwhile; it is left as it is"
                raise DownloadError(DownloadCode.UNSUPPORTED, message)
            self._data.replace(self.target)
            self._list.unlink(missing_ok=True)
        return self.target

    def discard(self) -> None:
        """Delete all that has arrived."""
        discard_pieces(self.target)

    def _cut_short(self) -> DownloadError:
        return DownloadError(DownloadCode.NETWORK, f"{self._data} was cut short by somebody else")

    def _take_for_oneself(self) -> None:
        """Keep other copies of the same file away, in this process and in others. Raises DownloadError."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_mine = False
        except OSError:  # a file system without locks
            return
        else:
            # Whoever had it before may have finished it meanwhile: then it has another name by now.
            mine = os.fstat(self._descriptor)
            is_mine = self._data.exists() and os.path.samestat(mine, self._data.stat())
        if not is_mine:
            raise DownloadError(DownloadCode.UNSUPPORTED, f"another process fetches {self.target.name}")

    def _kept(self) -> tuple[frozenset[int], frozenset[str]]:
        """Return what an earlier try brought: pieces and senders; nothing where that is another file's."""
        try:
            with self._list.open("rb") as stream:
                content = json.loads(stream.read(BULK_STATE_BYTES))
            is_it = self._data.stat().st_size == self.size_bytes
        except (OSError, ValueError, RecursionError):
            return frozenset(), frozenset()
        match content:
            case {"sha256": self._sha256, "size_bytes": self.size_bytes, "piece_bytes": piece_bytes, "done": str(done)}:
                is_it = is_it and piece_bytes == BULK_PIECE_BYTES
            case _:
                is_it, done = False, ""
        try:
            bits = bytes.fromhex(done) if is_it else b""
        except ValueError:
            bits = b""
        said = content.get("senders") if isinstance(content, dict) and bits else None
        senders = frozenset(one for one in said if isinstance(one, str)) if isinstance(said, list) else frozenset()
        here = frozenset(number for number in range(len(bits) * 8) if bits[number // 8] >> number % 8 & 1)
        return here, senders

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.target.parent).free
        still = self.size_bytes - len(self.done) * BULK_PIECE_BYTES
        reserve = disk_reserve_bytes(self.size_bytes)
        if free < still + reserve:
            message = (
                f"{self.target.name} takes {format_bytes(max(still, 0))} and has to leave {format_bytes(reserve)} "
                f"free; {format_bytes(free)} are free in {self.target.parent}"
            )
            raise DownloadError(DownloadCode.NO_SPACE, message)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritable(self._data, error) from error


def discard_pieces(target: Path) -> None:
    """Delete what has arrived of a file that came from elsewhere in the end."""
    for path in _beside(target):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _beside(target: Path) -> tuple[Path, Path]:
    """Return where a file is kept until it is whole, and the list of its pieces."""
    return target.with_name(f".{target.name}{_DATA_SUFFIX}"), target.with_name(f".{target.name}{_LIST_SUFFIX}")


def _unwritable(path: Path, error: OSError) -> DownloadError:
    code = DownloadCode.NO_SPACE if error.errno in {errno.ENOSPC, errno.EDQUOT} else DownloadCode.UNSUPPORTED
    return DownloadError(code, f"{path} cannot be written: {error.strerror or error}")
