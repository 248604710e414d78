"""What a build says while it runs: how far it is, and why it failed.

Owns the words of pip, CMake, ninja, make and compilers that mean something to people. Decides which of them is the
reason. Doesn't run anything: it is fed bytes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from meshllm.engine.output import LogRing
from meshllm.engine.rpc_flags import PACKAGE, VERSION

LOG_LINES, LOG_LINE_BYTES = 400, 2048
QUOTED_CHARS = 200
_STEP = re.compile(rb"^\s*\[\s*(\d+)/(\d+)\]", re.MULTILINE)
_PERCENT = re.compile(rb"^\s*\[\s*(\d+)%\]", re.MULTILINE)
_NETWORK = re.compile(
    r"No matching distribution|Could not find a version|Temporary failure in name resolution|Connection refused"
    r"|NewConnectionError|Network is unreachable|ReadTimeoutError|ProxyError|SSLError"
)
_KILLED = re.compile(r"Killed signal terminated program|internal compiler error: Killed|out of memory|cannot allocate")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_FAULT = re.compile(r"(?:fatal error|error|Error):\s+(?!subprocess-exited-with-error)(.+)")
_CMAKE_FAULT = re.compile(r"CMake Error at [^\n]*:\n\s*(\S[^\n]*(?:\n\s+\S[^\n]*){0,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildProgress:
    """How far a build is. `total` is 0 where that cannot be said."""

    step: str
    done: int = 0
    total: int = 0


Tell = Callable[[BuildProgress], None]


class Heard(LogRing):
    """The last lines of a build, which tells how far it is while it is heard."""

    def __init__(self, keep: Callable[[bytes], object], tell: Tell) -> None:
        """Give everything to `keep`, too."""
        super().__init__(lines=LOG_LINES, line_bytes=LOG_LINE_BYTES)
        self._keep = keep
        self._tell_progress = tell

    def feed(self, data: bytes) -> None:
        """Take what came, and tell what it says of the progress."""
        self._keep(data)
        super().feed(data)
        if progress := read_progress(data):
            self._tell_progress(progress)


def read_progress(said: bytes) -> BuildProgress | None:
    """Return how far a build is by what it just said: ninja's `[3/274]`, make's `[ 12%]`, or pip's steps."""
    if steps := _STEP.findall(said):
        return BuildProgress(step="compiling", done=int(steps[-1][0]), total=int(steps[-1][1]))
    if shares := _PERCENT.findall(said):
        return BuildProgress(step="compiling", done=int(shares[-1]), total=100)
    for words, step in ((b"Configuring CMake", "configuring"), (b"Installing build dependencies", "fetching tools")):
        if words in said:
            return BuildProgress(step=step)
    return None


def why_failed(lines: tuple[str, ...], flags: tuple[str, ...]) -> str:
    """Return why a build failed, in a sentence."""
    text = "\n".join(lines)
    if _FULL.search(text):
        return "the disk was full before the build was done"
    if _NETWORK.search(text):
        return f"the source of {PACKAGE} {VERSION} could not be fetched: is there a network, and a package index?"
    if _KILLED.search(text):
        return "memory ran out while compiling; --jobs 1 takes the least"
    gpu = any(flag in flags for flag in ("-DGGML_CUDA=ON", "-DGGML_HIP=ON", "-DGGML_VULKAN=ON"))
    hint = "; --cpu leaves the GPU out" if gpu else ""
    match = _CMAKE_FAULT.search(text) or _FAULT.search(text)
    said = match[1] if match else lines[-1] if lines else "nothing"
    return f"the build failed{hint}; it said: {' '.join(said.split())[:QUOTED_CHARS]}"
