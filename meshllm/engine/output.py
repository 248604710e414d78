"""What an engine says while it runs, and what its end means.

Owns the bounded log of one engine (`LogRing`) and the table that turns known lines and exit statuses into
a fault with a sentence for people (`explain`). Decides nothing about restarts. Doesn't know processes: it
is fed bytes, and told an exit status.
"""

import re
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from meshllm.core import limits
from meshllm.core.engines import EngineFailure, EngineFault

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Terminal codes: a log that people read must not move their cursor."""
SHELL_SIGNAL_BASE = 128
CANNOT_EXECUTE_CODES = frozenset({126, 127})
QUOTED_LINE_CHARS = 200
LAST_WORDS_LINES = 80
"""Lines before an end that may explain it; older ones belong to troubles that were survived."""
NOBODY: Mapping[int, str] = MappingProxyType({})
FROM_OUTSIDE = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL})
"""Signals that no program raises by its own mistake: what it said before explains nothing."""


class LogRing:
    """The last lines of one engine. Lines that are too long are cut, invalid UTF-8 is replaced."""

    def __init__(
        self,
        lines: int = limits.ENGINE_LOG_LINES,
        line_bytes: int = limits.ENGINE_LOG_LINE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep at most `lines` lines of at most `line_bytes` bytes each, with the clock's time of their end."""
        self._lines: deque[tuple[float, str]] = deque(maxlen=lines)
        self._clock = clock
        self._line_bytes = line_bytes
        self._open = bytearray()
        self.fed_lines = 0
        """Lines that ever came; grows with every one."""

    def feed(self, data: bytes) -> None:
        """Take what came, in pieces of any size."""
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._extend(piece)
            self._close()
        self._extend(rest)

    def end(self) -> None:
        """Take what came without a newline for a line: nothing more will come."""
        if self._open:
            self._close()

    def _extend(self, piece: bytes) -> None:
        room = self._line_bytes - len(self._open)
        if room > 0:
            self._open += piece[:room]

    def _close(self) -> None:
        text = CONTROL.sub("", self._open.decode("utf-8", "replace")).rstrip()
        self._open.clear()
        self.fed_lines += 1
        if text:
            self._lines.append((self._clock(), text))

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the lines that are kept, oldest first."""
        return tuple(text for _, text in self._lines)

    def lines_since(self, at_s: float) -> tuple[str, ...]:
        """Return the lines that came after a moment of the clock, oldest first."""
        return tuple(text for came_s, text in self._lines if came_s > at_s)


_MEMORY = re.compile(
    r"out of memory|failed to allocate|unable to allocate|insufficient memory|cannot allocate memory|bad_alloc"
    r"|cudaMalloc failed|ErrorOutOfDeviceMemory|OutOfMemory",
    re.IGNORECASE,
)
_ARCHITECTURE = re.compile(r"unknown model architecture: '([^']*)'")
_MISSING = re.compile(r"failed to open .*\((No such file or directory|Permission denied)\)")
_BAD_FILE = (
    re.compile(r"(invalid magic characters[^,]*)"),
    re.compile(r"(tensor '[^']*' data is not within the file bounds)"),
    re.compile(r"(failed to read (?:magic|header|key-value pairs|tensor info|tensor data))"),
    re.compile(r"(this GGUF file is version \d+ but this software only supports up to version \d+)"),
    re.compile(r"(tensor '[^']*' (?:of type|has)[^;]*)"),
    re.compile(r"(wrong number of tensors[^;]*)"),
    re.compile(r"(missing tensor '[^']*')"),
    re.compile(r"(key not found in model: \S+)"),
    re.compile(r"(illegal split file[^;]*|invalid split[^;]*|failed to load GGUF split[^;]*)"),
)
_WORKER_LOST = re.compile(r"Remote RPC server crashed or returned malformed response")
_WORKER_UNREACHED = re.compile(r"(?:Failed to connect to|RPC handshake failed for) \S+:(\d+)")
_BIND = re.compile(r"couldn't bind HTTP server socket|Address already in use|failed to bind")
_CANNOT_START = re.compile(r"^meshllm: (cannot (?:start|import) .*)")
_OF_A_REQUEST = re.compile(r"\bsend_error\b")
"""An error that was told to a client: the engine lived on."""
_ERROR = re.compile(r"\bE (?:\S+\s+)*?\S+: (.+)|(?:error|what\(\)|Error):\s+(.+)", re.IGNORECASE)


def explain(
    lines: Iterable[str], exit_code: int | None, *, oom_killed: bool = False, workers: Mapping[int, str] = NOBODY
) -> EngineFailure:
    """Return why an engine ended that nobody asked to end, by what it said lately.

    `exit_code` is negative for a signal, as in `subprocess`; 128 and more is a shell's way to say the
    same. `oom_killed` tells that the kernel ended a process for want of memory in that time. `workers` names
    those who share its model, by the local port at which each is reached.
    """
    said = tuple(lines)[-LAST_WORDS_LINES:]
    number = _signal_of(exit_code)
    if oom_killed and number == signal.SIGKILL:
        message = "the system ended it because memory ran out; a smaller model, context or --parallel would help"
        return EngineFailure(fault=EngineFault.OUT_OF_MEMORY, message=message, exit_code=exit_code)
    found = None if number in FROM_OUTSIDE else _explain_lines(said) or _explain_loss(said, workers)
    if found is None:
        found = _explain_status(said, exit_code, number)
    fault, message = found
    return EngineFailure(fault=fault, message=message, exit_code=exit_code)


def _signal_of(exit_code: int | None) -> int | None:
    """Return the number of the signal that an exit status tells of."""
    if exit_code is None:
        return None
    if exit_code < 0:
        return -exit_code
    if SHELL_SIGNAL_BASE < exit_code < SHELL_SIGNAL_BASE + signal.NSIG:
        return exit_code - SHELL_SIGNAL_BASE
    return None


def _explain_lines(lines: tuple[str, ...]) -> tuple[EngineFault, str] | None:
    """Return what an engine itself said of its end. Causes come before the lines that follow from them."""
    for line in lines:
        if match := _ARCHITECTURE.search(line):
            message = f"this engine does not know the model's architecture {match[1]!r}; a newer engine may"
            return EngineFault.UNKNOWN_ARCHITECTURE, message
        if match := _MISSING.search(line):
            return EngineFault.MISSING_FILE, f"the model file cannot be opened: {match[1].lower()}"
        if _MEMORY.search(line):
            message = f"memory ran out ({_quoted(line)}); a smaller model, context or --parallel would help"
            return EngineFault.OUT_OF_MEMORY, message
        for pattern in _BAD_FILE:
            if match := pattern.search(line):
                return EngineFault.BAD_FILE, f"the model file is damaged or incomplete: {match[1]}; fetch it again"
        if match := _CANNOT_START.search(line):
            return EngineFault.CANNOT_START, match[1]
        if _BIND.search(line):
            return EngineFault.EXITED, "it could not listen on its socket; the runtime folder may not be writable"
    if any("failed to load model" in line for line in lines):
        return EngineFault.BAD_FILE, "the engine cannot load the model file; `mesh-llm logs` has its own words"
    return None


def _explain_loss(lines: tuple[str, ...], workers: Mapping[int, str]) -> tuple[EngineFault, str] | None:
    """Return that a machine which shares the model was lost; which one, where the engine or their number tells."""
    everybody = next(iter(workers.values())) if len(workers) == 1 else ""
    for line in lines:
        if match := _WORKER_UNREACHED.search(line):
            name = workers.get(int(match[1]), "") or everybody or "a worker"
            return (
                EngineFault.CRASHED,
                f"{name}, which was to share this model, was not reached over its RPC connection",
            )
        if _WORKER_LOST.search(line):
            name = everybody or (f"one of {', '.join(workers.values())}" if workers else "a worker")
            return EngineFault.CRASHED, f"the RPC connection to {name}, which shared this model, was lost"
    return None


def _explain_status(lines: tuple[str, ...], exit_code: int | None, number: int | None) -> tuple[EngineFault, str]:
    """Return what an exit status says where the engine itself said nothing that is known."""
    if number == signal.SIGILL:
        message = (
            "this engine build uses processor instructions that this machine refuses; "
            "take a portable build, or name another program with --engine"
        )
        return EngineFault.ILLEGAL_INSTRUCTION, message
    if number in FROM_OUTSIDE:
        aside = ", perhaps because memory ran out" if number == signal.SIGKILL else ""
        return EngineFault.CRASHED, f"it was killed by signal {_signal_name(number)} from outside{aside}"
    if number is not None:
        return EngineFault.CRASHED, f"it crashed by signal {number} ({_signal_name(number)}){_last_words(lines)}"
    if exit_code in CANNOT_EXECUTE_CODES:
        return EngineFault.CANNOT_START, f"the engine's program cannot be executed{_last_words(lines)}"
    return EngineFault.EXITED, f"it ended by itself with status {exit_code}{_last_words(lines)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _last_words(lines: tuple[str, ...]) -> str:
    """Return the last error line, as the end of a sentence."""
    for line in reversed(lines):
        if _ERROR.search(line) and not _OF_A_REQUEST.search(line):
            return f"; it said: {_quoted(line)}"
    return ""


def _quoted(line: str) -> str:
    """Return the words of a log line, without llama.cpp's time stamp and place."""
    match = _ERROR.search(line)
    text = next((group for group in match.groups() if group), line) if match else line
    return text.strip()[:QUOTED_LINE_CHARS]
