"""Child entry point that gives up what a worker's server has no use for: `python -m meshllm.engine.confinement …`.

Owns the limits of one program that others on the network make do its work: memory, files it may write, no core dumps,
no way to more privileges, a working folder with nothing in it, and no environment but what it needs.
Decides nothing: the numbers are given. Doesn't know what it runs. Standard library only, so that it starts in
milliseconds.

What a platform lacks is left out: a program that runs with less protection is what every program here runs with.
"""

import argparse
import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Sequence

PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
CANNOT_EXECUTE = 127


def main(arguments: Sequence[str]) -> int:
    """Confine this process as told, and become the program."""
    parser = argparse.ArgumentParser(prog="confinement", allow_abbrev=False)
    parser.add_argument("--folder", required=True, help="working folder")
    parser.add_argument("--address-space-bytes", type=int, default=0, help="0: no limit")
    parser.add_argument("--file-bytes", type=int, default=0, help="the largest file that it may write; 0: none at all")
    parser.add_argument("--keep", action="append", default=[], help="a variable that it gets")
    parser.add_argument("program", nargs="+")
    told = parser.parse_args(list(arguments))
    environment = {name: os.environ[name] for name in told.keep if name in os.environ}
    try:
        os.chdir(told.folder)
        _limit(told.address_space_bytes, told.file_bytes)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
