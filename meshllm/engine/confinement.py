"""Child entry point that gives up what a worker's server has no use for: `python -m meshllm.engine.confinement …`.

Owns the limits of one program that others on the network make do its work: memory, files it may write, no core dumps,
no way to more privileges, a working folder with nothing in it, no environment but what it needs; and where Linux can,
nobody's files, and no network but the one port. Decides nothing: the numbers are given. Doesn't know what it runs.
Standard library only, so that it starts in milliseconds.

What a platform lacks is left out, and said: a program that runs with less protection is what every program here runs
with.
"""

import argparse
import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Sequence

from meshllm.engine.landlock import Opening, close_all_but

PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
CANNOT_EXECUTE = 127


def main(arguments: Sequence[str]) -> int:
    """Confine this process as told, and become the program."""
    parser = argparse.ArgumentParser(prog="confinement", allow_abbrev=False)
    parser.add_argument("--folder", required=True, help="working folder")
    parser.add_argument("--address-space-bytes", type=int, default=0, help="0: no limit")
    parser.add_argument("--file-bytes", type=int, default=0, help="the largest file that it may write; 0: none at all")
    parser.add_argument("--keep", action="append", default=[], help="a variable that it gets")
    parser.add_argument("--port", type=int, default=0, help="the one at which it may listen; 0: all stays open to it")
    parser.add_argument("--read", action="append", default=[], help="a folder that it may read")
    parser.add_argument("--write", action="append", default=[], help="a folder that it may write")
    parser.add_argument("program", nargs="+")
    told = parser.parse_args(list(arguments))
    environment = {name: os.environ[name] for name in told.keep if name in os.environ}
    try:
        os.chdir(told.folder)
        _limit(told.address_space_bytes, told.file_bytes)
        if told.port:
            _close(Opening(read=(*told.read, told.folder), write=told.write, listens=told.port))
        os.execve(told.program[0], told.program, environment)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"meshllm: cannot start {told.program[0]}: {error.strerror}\n")
    return CANNOT_EXECUTE


def _limit(address_space_bytes: int, file_bytes: int) -> None:
    """Set what the kernel enforces from here on."""
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, file_bytes)]
    if address_space_bytes:
        limits.append((resource.RLIMIT_AS, address_space_bytes))
    for kind, most in limits:
        _, hard = resource.getrlimit(kind)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(OSError, ValueError):  # macOS refuses some
            resource.setrlimit(kind, (value, value))
    os.umask(0o077)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _close(opening: Opening) -> None:
    """Close what the program has no use for, where this system can."""
    try:
        close_all_but(opening)
    except (OSError, AttributeError) as error:  # another system, or an old kernel
        sys.stderr.write(f"meshllm: files and network stay open to the program: {error}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
