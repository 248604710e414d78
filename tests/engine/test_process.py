"""One child process: started, heard, told to end, reaped."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from meshllm.engine.command import Command
from meshllm.engine.output import LogRing
from meshllm.engine.process import Process, spawn

WITHIN_S = 30.0
STUBBORN = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); sys.stdin.read()"
)
POLITE = "import sys; print('up', flush=True); sys.stdin.read()"


def python(code: str, *, stdin: bytes = b"", holds_stdin: bool = True) -> Command:
    """Return a command that runs a piece of Python."""
    return Command(argv=(sys.executable, "-c", code), env=dict(os.environ), stdin=stdin, holds_stdin=holds_stdin)


class HeardLog(LogRing):
    """A log that tells when something was said."""

    def __init__(self) -> None:
        super().__init__()
        self.spoken = asyncio.Event()

    def feed(self, data: bytes) -> None:
        """Take what came."""
        super().feed(data)
        if self.lines:
            self.spoken.set()


@asynccontextmanager
async def running(command: Command) -> AsyncIterator[tuple[Process, "asyncio.Task[int]"]]:
    """Yield a process that has said its first line, and the task that runs it."""
    log = HeardLog()
    process = await spawn(command, log)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        task = group.create_task(process.run())
        await log.spoken.wait()
        yield process, task


async def test_exit_status_and_output_are_kept() -> None:
    """Both streams are one log."""
    code = "import sys; print(sys.stdin.readline().strip()); sys.stderr.write('bad'); sys.exit(5)"
    command = python(code, stdin=b"told\n")
    process = await spawn(command, LogRing())

    assert await process.run() == 5
    assert process.log.lines == ("told", "bad")
    assert process.exit_code == 5


async def test_standard_input_ends_after_what_is_told_unless_held() -> None:
    """A native server reads its key to the end of the file."""
    command = python("import sys; print(len(sys.stdin.read()))", stdin=b"key\n", holds_stdin=False)
    process = await spawn(command, LogRing())

    assert await process.run() == 0
    assert process.log.lines == ("4",)


async def test_end_is_noticed() -> None:
    """The node tells of a crash by the signal that ended the process."""
    async with running(python(POLITE)) as (process, task):
        psutil.Process(process.pid).send_signal(signal.SIGSEGV)
        code = await task

    assert code == -signal.SIGSEGV


@pytest.mark.parametrize(("code", "status"), [(POLITE, -15), (STUBBORN, -9)], ids=["polite", "stubborn"])
async def test_stop_is_polite_and_then_firm(code: str, status: int) -> None:
    """What ignores SIGTERM is killed when its time is over."""
    async with running(python(code)) as (process, task):
        process.stop(0.2)
        assert await task == status

    process.stop(0.2)  # of one that is gone: nothing happens
    assert not psutil.pid_exists(process.pid)


async def test_suspended_process_can_be_stopped_politely() -> None:
    """SIGTERM waits while a process is suspended; it is woken to hear it."""
    async with running(python(POLITE)) as (process, task):
        psutil.Process(process.pid).suspend()

        process.stop(WITHIN_S)

        assert await task == -15


async def test_whole_group_goes() -> None:
    """A wrapper script's children are engines, too."""
    code = (
        "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE, "
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); print(c.pid, flush=True); sys.stdin.read()"
    )
    async with running(python(code)) as (process, task):
        grandchild = psutil.Process(int(process.log.lines[0]))

        process.stop(0.0)
        await task

        _, alive = psutil.wait_procs([grandchild], timeout=WITHIN_S)
        assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


async def test_cancelled_run_leaves_nothing() -> None:
    """The daemon's end may not wait for anybody's politeness."""
    async with running(python(STUBBORN)) as (process, task):
        task.cancel()
        await asyncio.wait({task})

        assert task.cancelled()
        assert process.exit_code == -9
        assert not psutil.pid_exists(process.pid)


async def test_usage_is_that_of_the_child() -> None:
    """Memory and processor time are what stalls and plans are judged by."""
    async with running(python(POLITE)) as (process, _):
        usage = process.usage()
        process.stop(0.0)

    assert usage is None or usage.resident_bytes > 10**6


async def test_missing_program_is_an_os_error() -> None:
    """The caller explains it."""
    with pytest.raises(OSError, match="No such file"):
        await spawn(Command(argv=("/nowhere/engine",), env={}), LogRing())


async def test_what_is_told_has_to_fit_into_a_pipe() -> None:
    """A paragraph is told, never a file: nothing may wait for a child that doesn't read."""
    with pytest.raises(BlockingIOError, match="longer than a pipe holds"):
        await spawn(python(POLITE, stdin=bytes(10**7)), LogRing())


async def test_standard_input_can_be_opened_by_name() -> None:
    """llama-server reads its key from /dev/stdin, which a socket would refuse."""
    command = python("print(open('/dev/stdin').read())", stdin=b"key\n", holds_stdin=False)
    process = await spawn(command, LogRing())

    assert await process.run() == 0
    assert process.log.lines == ("key",)
