"""Runs one `download_child` from the event loop: its order, its answers, its progress, its end.

Owns the process. Decides when it has stalled. Doesn't know what it downloads. However `run` ends, the
child's whole process group is killed before it returns.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import meshllm
from meshllm.core import limits
from meshllm.inventory.download_errors import DownloadCode, DownloadError

_LOG: Final = logging.getLogger(__name__)
_MODULE: Final = "meshllm.inventory.download_child"
_LOOK_INTERVAL_S: Final = 0.25
_STDERR_LINES: Final = 5


class ChildRun:
    """One order carried out by a child process."""

    def __init__(
        self,
        order: Mapping[str, Any],
        *,
        watched: Iterable[Path] = (),
        on_progress: Callable[[int, int], None] | None = None,
        scratch: Path | None = None,
        stall_s: float = limits.DOWNLOAD_STALL_S,
    ) -> None:
        """Take the order, the paths whose growth is progress, and the folder for temporary files."""
        self._order = order
        self._watched = tuple(watched)
        self._on_progress = on_progress
        self._scratch = scratch
        self._stall_s = stall_s
        self._total_bytes = int(order.get("size_bytes", 0))
        self._stage = ""
        self._told_bytes = 0
        self._answer: dict[str, Any] | None = None
        self._complaints: deque[str] = deque(maxlen=_STDERR_LINES)

    async def run(self) -> object:
        """Carry the order out and return the result. Raises DownloadError."""
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", _MODULE,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            limit=limits.DOWNLOAD_ANSWER_BYTES, start_new_session=True, env=self._environment(),
        )  # fmt: skip
        try:
            await self._attend(child)
        finally:
            await _end(child)
        if self._answer is None:
            last = self._complaints[-1][:300] if self._complaints else f"exit status {child.returncode}"
            raise DownloadError(DownloadCode.NETWORK, f"the download ended without a result: {last}")
        if "error" in self._answer:
            raise DownloadError(DownloadCode(self._answer["error"]), self._answer["message"])
        return self._answer["result"]

    async def _attend(self, child: asyncio.subprocess.Process) -> None:
        """Send the order and listen until the child has said everything, or nothing grows any more."""
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise DownloadError(DownloadCode.UNSUPPORTED, "the child has no pipes")
        child.stdin.write(json.dumps(dict(self._order)).encode() + b"\n")
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch(), name="download-watch")
                complaints = tasks.create_task(self._read_complaints(child.stderr), name="download-stderr")
                await self._read_answers(child.stdout)
                if self._answer is None:  # it died: what it complained of last says why
                    await asyncio.wait({complaints}, timeout=_LOOK_INTERVAL_S)
                self._tell()
                watch.cancel()
                complaints.cancel()
        except BaseExceptionGroup as group:
            for error in group.exceptions:
                if isinstance(error, DownloadError):
                    raise error from None
            raise

    async def _read_answers(self, stdout: asyncio.StreamReader) -> None:
        while line := await _line(stdout):
            answer = json.loads(line)
            self._total_bytes = answer.get("total_bytes", self._total_bytes)
            self._stage = answer.get("stage", self._stage)
            if "note" in answer:
                _LOG.info("download: %s", answer["note"])
            if "result" in answer or "error" in answer:
                self._answer = answer
                return

    async def _read_complaints(self, stderr: asyncio.StreamReader) -> None:
        while line := await _line(stderr):
            self._complaints.append(line.decode(errors="replace").strip())

    async def _watch(self) -> None:
        """Tell the progress and raise DownloadError when there was none for too long."""
        loop = asyncio.get_running_loop()
        last_done, since_s = -1, loop.time()
        while True:
            done = self._tell()
            if done != last_done or self._stage:
                last_done, since_s = done, loop.time()
            elif loop.time() - since_s > self._stall_s:
                message = f"nothing has arrived for {self._stall_s:.0f} s"
                raise DownloadError(DownloadCode.NETWORK, message)
            await asyncio.sleep(_LOOK_INTERVAL_S)

    def _tell(self) -> int:
        """Tell the progress, which never goes back; return what is there, which may: a wheel, then its content."""
        done = max((_size_of(path) for path in self._watched), default=0)
        self._told_bytes = max(self._told_bytes, min(done, self._total_bytes) if self._total_bytes else done)
        if self._on_progress is not None:
            self._on_progress(self._told_bytes, self._total_bytes)
        return done

    def _environment(self) -> dict[str, str]:
        """Return the child's environment: ours, and where to find this package and a place for temporary files."""
        package_root = str(Path(meshllm.__file__).parent.parent)
        search = os.environ.get("PYTHONPATH", "")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (package_root, search))),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        if self._scratch is not None:
            environment["TMPDIR"] = str(self._scratch)
        return environment


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line, or nothing at the end or where a line is absurdly long."""
    try:
        return await stream.readline()
    except ValueError:
        return b""


async def _end(child: asyncio.subprocess.Process) -> None:
    """Let a child that has answered go; end every other one with its whole group."""
    if child.stdin is not None:
        child.stdin.close()
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal_number)
        if await _is_gone_within(child, limits.DOWNLOAD_STOP_S):
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


async def _is_gone_within(child: asyncio.subprocess.Process, limit_s: float) -> bool:
    try:
        async with asyncio.timeout(limit_s):
            await child.wait()
    except TimeoutError:
        return False
    return True


def _size_of(path: Path) -> int:
    """Return a file's size, or of a folder the size of everything in it."""
    try:
        if path.is_dir():
            return sum(_size_of(inner) for inner in path.iterdir())
        return path.stat().st_size
    except OSError:
        return 0
