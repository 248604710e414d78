"""The folders of one daemon: state that survives, and a runtime folder for sockets.

Owns the lock that keeps two daemons from one state folder, and how files are written: whole or not at
all. Doesn't know what the files mean. Folders are 0700, files 0600.
"""

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import psutil

from meshllm.core.redaction import redacted_command
from meshllm.daemon.errors import StartError, StateInUseError
from meshllm.daemon.places import DIGESTS_NAME

LOCK_NAME = "node.lock"
ADDRESS_NAME = "api.json"
OWN_NAMES = (LOCK_NAME, DIGESTS_NAME)
"""What the folder of a client holds, which is gone when it ends."""


class StateDir:
    """An open, locked state folder. Close it by `release`."""

    def __init__(self, path: Path, runtime: Path) -> None:
        """Make the folders and take the lock. Raises StateInUseError, naming the holder, or StartError."""
        self.path = _private_folder(path)
        self.runtime = _private_folder(runtime)
        self._lock = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 200, 0).decode(errors="replace").split()
            os.close(self._lock)
            raise StateInUseError(_in_use(self.path, holder)) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()} {psutil.Process().create_time():.2f}\n".encode(), 0)

    def write_address(self, address: str) -> None:
        """Leave a note where this daemon's API answers, for commands on the same machine."""
        write_json(self.path / ADDRESS_NAME, {"address": address, "pid": os.getpid()})

    def release(self, *, forget: bool = False) -> None:
        """Remove the note and the runtime folder, and let the lock go; with `forget` the state folder too.

        A folder in which others' files lie stays.
        """
        for name in (ADDRESS_NAME, *(OWN_NAMES if forget else ())):
            (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something lies in it that is not ours
            self.runtime.rmdir()
            if forget:
                self.path.rmdir()
        os.close(self._lock)


def write_json(file: Path, content: Mapping[str, object]) -> None:
    """Write a small JSON file whole or not at all: beside it, synced, renamed over it."""
    part = file.with_name(f"{file.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def _private_folder(path: Path) -> Path:
    """Make a folder that only its owner can enter. Raises StartError where that is impossible."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.stat()
        if facts.st_uid != os.getuid():
            msg = f"{path} belongs to another user; choose another folder with --state-dir"
            raise StartError(msg)
        if stat.S_IMODE(facts.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        msg = f"cannot use the folder {path}: {error.strerror or error}"
        raise StartError(msg) from error
    return path


def _in_use(path: Path, holder: list[str]) -> str:
    """Name the process that holds the lock, as far as it can be known."""
    advice = "`mesh-llm status` talks to it; --state-dir starts a second node beside it"
    if not holder or not holder[0].isdigit():
        return f"another mesh-llm already runs on {path}; {advice}"
    try:
        command = redacted_command(psutil.Process(int(holder[0])).cmdline()[:6]) or "unknown"
    except psutil.Error:
        command = "unknown"
    return f"another mesh-llm already runs on {path}: process {holder[0]} ({command}); {advice}"
