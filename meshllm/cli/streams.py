"""The standard streams of a command line: what happens when the output is full, closed, or nobody reads it.

Owns turning a failed write to standard output into one `OutputError`, wherever in a command it happens. Decides the
exit code for it. Doesn't know what is written.
"""

import errno
import io
import os
import sys
from typing import Any

from meshllm.cli.failures import CommandError, ExitCode


class OutputError(CommandError):
    """Standard output takes nothing any more. Quiet where a reader left, as `head` does when it has seen enough."""

    def __init__(self, error: OSError) -> None:
        """Make the sentence of an error of the system."""
        if error.errno == errno.EPIPE:
            super().__init__("", ExitCode.NO_READER)
        else:
            super().__init__(f"cannot write the output: {error.strerror or error}")


class _Output(io.FileIO):
    """Standard output; after the first failed write it swallows the rest, which Python would complain about again."""

    def __init__(self, descriptor: int | None) -> None:
        """Write to a descriptor, which stays open; None for an output that was closed from the beginning."""
        super().__init__(os.devnull if descriptor is None else descriptor, "w", closefd=descriptor is None)
        self._error = OSError(errno.EBADF, os.strerror(errno.EBADF)) if descriptor is None else None
        self._has_failed = False

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer, which has no type in 3.11
        """Write bytes. Raises OutputError once."""
        if self._has_failed:
            return len(data)
        try:
            if self._error is None:
                return super().write(data)
        except OSError as error:
            self._error = error
        self._has_failed = True
        raise OutputError(self._error) from None


def prepare() -> None:
    """Make the standard streams of this process what commands expect, also where the parent has closed them.

    Characters that the terminal's encoding lacks are written as escapes.
    """
    # In the order of their numbers: an open file takes the lowest descriptor that is free.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - open for the process's life
    output = _Output(None if sys.stdout is None else sys.stdout.fileno())
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding="utf-8" if sys.stdout is None else sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=output.isatty(),
    )
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - as above
