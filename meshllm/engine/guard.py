"""Child entry point that ties an engine's life to its daemon's: `python -m meshllm.engine.guard PPID -- ARGV…`.

Owns the promise that no engine outlives its daemon, however that ends. On Linux it asks the kernel to
kill this process with its parent and becomes the engine; elsewhere it stays as the engine's parent and
watches. Doesn't know what it runs. Standard library only, so that it starts in milliseconds.

Invariant: the engine is in the guard's own process group; a signal to the group reaches both.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
OOM_SCORE = 500  # where memory runs out the kernel should take an engine, not the daemon; 1000 is "first of all"
WATCH_INTERVAL_S = 0.5
CANNOT_EXECUTE = 127
ORPHANED = 125
SHELL_SIGNAL_BASE = 128


def main(arguments: Sequence[str], platform: str = sys.platform) -> int:
    """Run the program after `--` so that it dies with the parent process given before it."""
    parent, argv = arguments[0] if arguments else "", list(arguments[2:])
    if not parent.isdecimal() or arguments[1:2] != ["--"] or not argv:
        sys.stderr.write("usage: guard PARENT_PID -- PROGRAM [ARGUMENT…]\n")
        return 2
    try:
        run = become if platform.startswith("linux") else watch
        return run(int(parent), argv)
    except OSError as error:
        sys.stderr.write(f"meshllm: cannot start {argv[0]}: {error.strerror}\n")
        return CANNOT_EXECUTE


def become(parent: int, argv: list[str]) -> int:
    """Replace this process with the program, which the kernel kills when the parent's thread ends."""
    import ctypes  # noqa: PLC0415 - only where it is used: importing takes as long as the rest

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == parent:  # else it died before the kernel was asked
        _offer_to_oom_killer()
        os.execv(argv[0], argv)  # noqa: S606 - no shell is wanted
    return ORPHANED


def _offer_to_oom_killer() -> None:
    # A container may forbid it; then the kernel judges by size, which also means the engine.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")


def watch(parent: int, argv: list[str]) -> int:
    """Run the program as a child, pass its end on, and kill it when the parent is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the group gets it, and the program's end is ours
    with subprocess.Popen(argv, preexec_fn=_default_signals) as child:  # noqa: PLW1509 - this process has no threads
        while os.getppid() == parent:
            try:
                code = child.wait(WATCH_INTERVAL_S)
            except subprocess.TimeoutExpired:
                continue
            return code if code >= 0 else SHELL_SIGNAL_BASE - code
        child.kill()
    return ORPHANED


def _default_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
