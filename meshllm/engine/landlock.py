"""Closes the files and the network of Linux to this process and whatever it becomes, as far as the kernel can.

Owns three calls of the kernel that have no other way in. Decides which rights a kernel of some age knows. Doesn't know
what the process is. Described in the kernel's userspace-api/landlock.rst; no privilege is needed for it.

Invariant: what was open before stays open; nothing that was closed can be opened again.
"""

import ctypes
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every machine
VERSION_FLAG = 1
PATH_RULE, PORT_RULE = 1, 2
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE, MAKE_REG = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8
REFER, TRUNCATE = 1 << 13, 1 << 14
FIRST_RIGHTS = (1 << 13) - 1
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
"""Those that a rule for a file may have, not for a folder."""
BIND_TCP, CONNECT_TCP = 1, 2
SCOPES = 1 | 2
"""Sockets without a path, and signals: only those of its own."""
WITH_REFER, WITH_TRUNCATE, WITH_NETWORK, WITH_SCOPES = 2, 3, 4, 6
"""Versions of the interface that brought each."""

SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/opt", "/proc", "/sys", "/etc/ld.so.cache", "/etc/ld.so.conf",
    "/etc/ld.so.conf.d", "/etc/alternatives",
)  # fmt: skip
DEVICES = ("/dev",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What stays open beside the system's own programs and libraries."""

    read: Sequence[str] = ()
    write: Sequence[str] = ()
    listens: int = 0
    """The one TCP port at which it may listen; it connects to nothing."""


def close_all_but(opening: Opening) -> int:
    """Close everything else, for good; return the version of the kernel's interface. Raises OSError where it has none.

    The process must have given up new privileges before.
    """
    version = _call(CREATE_RULESET, None, 0, VERSION_FLAG)
    files = FIRST_RIGHTS | (REFER if version >= WITH_REFER else 0) | (TRUNCATE if version >= WITH_TRUNCATE else 0)
    network = BIND_TCP | CONNECT_TCP if version >= WITH_NETWORK else 0
    fields = [files, network, SCOPES if version >= WITH_SCOPES else 0]
    known = 3 if version >= WITH_SCOPES else 2 if version >= WITH_NETWORK else 1
    attributes = struct.pack(f"={known}Q", *fields[:known])
    rules = _call(CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for paths, rights in (
            ((*SYSTEM, *opening.read), EXECUTE | READ_FILE | READ_DIR),
            (DEVICES, WRITE_FILE | READ_FILE | READ_DIR),
            (opening.write, files & ~EXECUTE),
        ):
            for path in paths:
                _allow(rules, path, rights)
        if network and opening.listens:
            _call(ADD_RULE, rules, PORT_RULE, struct.pack("=QQ", BIND_TCP, opening.listens), 0)
        _call(RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
    return version


def _allow(rules: int, path: str, rights: int) -> None:
    """Leave a path open, where there is one. Raises OSError."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights &= -1 if Path(path).is_dir() else FILE_RIGHTS
        _call(ADD_RULE, rules, PATH_RULE, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


def _call(number: int, *arguments: int | bytes | None) -> int:
    """Call the kernel. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    result = int(library.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
