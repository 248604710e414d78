"""SHA-256 of model files, remembered as long as a file does not change.

Owns the state file of known digests. Decides when a remembered digest still holds: same path, size and
modification time; and what is damaged: the same of those, and another content. Doesn't know what the files
are. A lost or damaged state file only costs time.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from meshllm.core import limits

_LOG: Final = logging.getLogger(__name__)
_CHUNK_BYTES: Final = 256 * limits.KIB  # larger ones are no faster, and stay in the memory of the process
_HEX_DIGITS: Final = 64


class FileVersion(NamedTuple):
    """A file as it was at one moment."""

    path: str
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str, status: os.stat_result) -> "FileVersion":
        """Return the version of a file whose status was asked."""
        return cls(path, status.st_size, status.st_mtime_ns)


class DigestStore:
    """Remembered digests, in lowercase hexadecimal. Single owner; not for use from several threads at once."""

    def __init__(self, state_file: Path) -> None:
        """Read what was remembered; start empty where that is impossible."""
        self._state_file = state_file
        self._known = _load(state_file)
        self._proven: set[FileVersion] = set()
        """Hashed since the start, so that memory and disk agree."""
        self._damage: dict[str, tuple[FileVersion, str]] = {}

    def digest_of(self, version: FileVersion) -> str:
        """Return the SHA-256 of a file, or an empty string while it is not known."""
        known = self._known.get(version.path)
        return known[1] if known is not None and known[0] == version else ""

    def combined(self, versions: Iterable[FileVersion]) -> str:
        """Return `sha256:<hex>` of a file, or of the shards' digests in order; empty until all are known."""
        digests = [self.digest_of(version) for version in versions]
        if not digests or not all(digests):
            return ""
        whole = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
        return f"sha256:{whole}"

    async def hash_file(self, version: FileVersion) -> str:
        """Compute, remember and return a file's digest; empty where it changed or cannot be read.

        Runs in a thread; cancelling stops that thread within one chunk.
        """
        if known := self.digest_of(version):
            return known
        stop = threading.Event()
        try:
            # No deadline: how long it takes follows from the file's size and the disk, and it can be cancelled.
            digest = await asyncio.to_thread(_sha256, version, stop)
        finally:
            stop.set()
        if digest:
            self._known[version.path] = (version, digest)
            self._prove(version)
            await self._save_to_the_end()
        return digest

    async def _save_to_the_end(self) -> None:
        """Save in a thread. Who is cancelled meanwhile goes when it is done: the folder may go with its node."""
        saving = asyncio.get_running_loop().run_in_executor(None, self.save)
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:
            await asyncio.wait({saving})  # one small file, so no deadline
            raise

    def damage_of(self, version: FileVersion) -> str:
        """Return how a file differs from what is remembered of it, in words; empty where it doesn't."""
        known = self._damage.get(version.path)
        return known[1] if known is not None and known[0] == version else ""

    async def verify_file(self, version: FileVersion) -> bool:
        """Hash a file again whose digest was remembered from an earlier run; tell whether it turned out to be damaged.

        What was hashed since the start is not read again. Runs in a thread, as `hash_file`.
        """
        expected = self.digest_of(version)
        if not expected or version in self._proven:
            return False
        stop = threading.Event()
        try:
            digest = await asyncio.to_thread(_sha256, version, stop)  # no deadline, as above
        finally:
            stop.set()
        if not digest:
            return False  # it changed meanwhile, and is looked at anew
        self._prove(version)
        if digest == expected:
            return False
        message = f"its content changed, though its time did not: sha256 was {expected[:12]}…, is {digest[:12]}…"
        self._damage[version.path] = (version, message)
        _LOG.warning("file damaged path=%s: %s", version.path, message)
        return True

    def _prove(self, version: FileVersion) -> None:
        self._proven = {one for one in self._proven if one.path != version.path} | {version}
        self._damage.pop(version.path, None)

    def save(self) -> None:
        """Write the state file; a failure is logged and costs only time at the next start."""
        entries = list(self._known.values())[-limits.DIGEST_ENTRIES :]
        rows = [[version.path, version.size_bytes, version.mtime_ns, digest] for version, digest in entries]
        scratch = self._state_file.with_name(f"{self._state_file.name}.part")
        try:
            self._state_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(scratch, "w", opener=_private) as stream:
                json.dump({"files": rows}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(self._state_file)
        except OSError as error:
            _LOG.warning("digests not saved path=%s error=%s", self._state_file, error)
            with contextlib.suppress(OSError):
                scratch.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _load(state_file: Path) -> dict[str, tuple[FileVersion, str]]:
    try:
        with state_file.open("rb") as stream:
            data = stream.read(limits.STATE_FILE_BYTES + 1)
        content = json.loads(data) if len(data) <= limits.STATE_FILE_BYTES else None
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _LOG.warning("digests not read path=%s error=%s", state_file, error)
        return {}
    rows = content.get("files") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        return {}
    entries = [_entry(row) for row in rows]
    return {entry[0].path: entry for entry in entries if entry is not None}


def _entry(row: object) -> tuple[FileVersion, str] | None:
    """Return a remembered digest, or None where the row is not one."""
    match row:
        case [str(path), int(size), int(mtime), str(digest)] if len(digest) == _HEX_DIGITS:
            return FileVersion(path, size, mtime), digest
        case _:
            return None


def _sha256(version: FileVersion, stop: threading.Event) -> str:
    """Return a file's digest; empty where it is not that version, cannot be read, or `stop` was set."""
    try:
        with open(version.path, "rb", buffering=0, opener=_without_blocking) as stream:
            if FileVersion.of(version.path, os.fstat(stream.fileno())) != version:
                return ""
            digest = hashlib.sha256()
            while chunk := stream.read(_CHUNK_BYTES):
                if stop.is_set():
                    return ""
                digest.update(chunk)
            unchanged = FileVersion.of(version.path, os.fstat(stream.fileno())) == version
            return digest.hexdigest() if unchanged else ""
    except OSError as error:
        _LOG.info("file not hashed path=%s error=%s", version.path, error)
        return ""


def _without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
