"""Small files that survive a crash at any moment: a header that proves the content, and the last one kept beside it.

Owns the form on disk and what happens to a damaged file: it is put aside under another name, never deleted, and the
kept one is used. Doesn't know what the contents mean. Nothing in them is ever executed: the content is JSON.
"""

import contextlib
import json
import logging
import os
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from meshllm.core.limits import STATE_FILE_BYTES
from meshllm.daemon.errors import StartError

log = logging.getLogger(__name__)

MAGIC = "meshllm-state"
VERSION = 1
BAK_SUFFIX = ".bak"


class _DamagedError(Exception):
    """The bytes are not what was written."""


def write(file: Path, content: Mapping[str, object]) -> None:
    """Replace a file's content, whole or not at all; what was there before is kept beside it. Raises OSError."""
    payload = json.dumps(content).encode()
    part = file.with_name(f"{file.name}.part")
    write_private(part, f"{MAGIC} {VERSION} {len(payload)} {zlib.crc32(payload):08x}\n".encode() + payload)
    with contextlib.suppress(FileNotFoundError):
        file.replace(_bak(file))
    part.replace(file)
    sync_folder(file.parent)


def read(file: Path) -> dict[str, object] | None:
    """Return a file's content, or that of the one before when it is damaged; None when there is neither.

    Raises StartError for a file of a later version of the program, and OSError.
    """
    for candidate in (file, _bak(file)):
        try:
            content = _content(candidate)
        except FileNotFoundError:
            continue
        except _DamagedError as damage:
            _put_aside(candidate, damage)
            continue
        if candidate != file:
            log.warning("the file before is used instead file=%s", candidate.name)
        return content
    return None


def was_damaged(file: Path) -> bool:
    """Tell whether a damaged version of this file was ever put aside and nothing was written since."""
    return not file.exists() and any(file.parent.glob(f"{file.name}*.corrupt-*"))


def write_private(file: Path, content: bytes) -> None:
    """Write a file that only its owner can read, and wait until the disk has it. Raises OSError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's names, where the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _content(file: Path) -> dict[str, object]:
    with file.open("rb") as stream:
        data = stream.read(STATE_FILE_BYTES + 1)
    head, _, payload = data.partition(b"\n")
    words = head.decode(errors="replace").split()
    if len(data) > STATE_FILE_BYTES or len(words) != 4 or words[0] != MAGIC or not words[1].isdecimal():
        raise _DamagedError("it has no header of ours")
    if int(words[1]) > VERSION:
        msg = f"{file} was written by a later version of mesh-llm; use that one, or another --state-dir"
        raise StartError(msg)
    if words[2:] != [str(len(payload)), f"{zlib.crc32(payload):08x}"]:
        raise _DamagedError("its content is not what was written")
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _DamagedError("its content is no JSON object")
    return value


def _put_aside(file: Path, damage: _DamagedError) -> None:
    aside = file.with_name(f"{file.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    file.replace(aside)
    log.warning("a damaged file was put aside file=%s as=%s: %s", file.name, aside.name, damage)


def _bak(file: Path) -> Path:
    return file.with_name(file.name + BAK_SUFFIX)
