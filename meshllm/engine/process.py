"""One child process: started in a group of its own, heard, told to end, reaped.

Owns the process, its standard input and its log. Decides only how an end is enforced: politely, then
firmly. Doesn't know what the child does, nor why it should end.

Invariants: what was started is reaped; a signal goes to the whole group; nothing here blocks.
"""

import asyncio
import contextlib
import errno
import os
import signal

from meshllm.engine.command import Command
from meshllm.engine.output import LogRing
from meshllm.engine.usage import Usage, usage_of

READ_BYTES = 64 * 1024
LAST_OUTPUT_S = 1.0
"""How long the last words of a process that is gone are waited for."""


class Process:
    """A running child. Made by `spawn`."""

    def __init__(self, child: asyncio.subprocess.Process, log: LogRing, stdin: int | None) -> None:
        """Take over a child that was just started; `stdin` is the end that keeps its standard input open."""
        self.pid = child.pid
        self.log = log
        self._child = child
        self._stdin = stdin
        self._firm: asyncio.TimerHandle | None = None
        self.exit_code: int | None = None
        """Status after the end; negative for the number of a signal."""

    async def run(self) -> int:
        """Hear it until its end, reap it, return its exit status. Cancelled, it kills the process first."""
        try:
            async with asyncio.TaskGroup() as group:
                hearing = group.create_task(self._hear(), name=f"engine-output:{self.pid}")
                self.exit_code = await self._child.wait()
                self._signal(signal.SIGKILL)  # whatever of its group is left
                await asyncio.wait({hearing}, timeout=LAST_OUTPUT_S)
                hearing.cancel()
        finally:
            if self.exit_code is None:
                self._signal(signal.SIGKILL)
                self.exit_code = await self._child.wait()
            if self._firm is not None:
                self._firm.cancel()
            if self._stdin is not None:
                os.close(self._stdin)
            self.log.end()
        return self.exit_code

    def stop(self, polite_s: float) -> None:
        """Ask it to end, and kill it when it is still there after `polite_s`; at once for 0."""
        if self.exit_code is not None:
            return
        if polite_s <= 0:
            self._signal(signal.SIGKILL)
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a stopped process hears nothing
        if self._firm is None:
            self._firm = asyncio.get_running_loop().call_later(polite_s, self._signal, signal.SIGKILL)

    def usage(self) -> Usage | None:
        """Return what it takes of the machine; None when unknown."""
        return usage_of(self.pid)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _hear(self) -> None:
        """Keep what it says, until it can say no more."""
        pipe = self._child.stdout
        while pipe is not None and (data := await pipe.read(READ_BYTES)):
            self.log.feed(data)


async def spawn(command: Command, log: LogRing) -> Process:
    """Start a command in a session of its own, with its output in `log`. Raises OSError."""
    theirs, ours = _told(command.stdin)
    try:
        child = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=theirs,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(command.env),
            close_fds=True,
            start_new_session=True,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    if command.holds_stdin:
        return Process(child, log, ours)
    os.close(ours)
    return Process(child, log, None)


def _told(text: bytes) -> tuple[int, int]:
    """Return (reading end, writing end) of a pipe that already holds a text. Raises OSError.

    A pipe of our own, because asyncio's is a socket, and /dev/stdin of a socket cannot be opened.
    """
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    try:
        if os.write(ours, text) == len(text):
            return theirs, ours
        raise BlockingIOError(errno.EAGAIN, "what an engine is told is longer than a pipe holds")
    except OSError:
        os.close(theirs)
        os.close(ours)
        raise
