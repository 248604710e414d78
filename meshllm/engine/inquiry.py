"""A question to a program that answers and ends, such as `llama-server --version`.

Owns one such run with its deadline, and why it failed in one line for people. Decides nothing about what the
answer means. Doesn't know engines: it is given a program.
"""

import asyncio
import contextlib
import os
import platform
import signal
from dataclasses import dataclass

from meshllm.core import limits
from meshllm.core.engines import EngineFailure, EngineFault
from meshllm.engine.command import Host, child_environment, guarded
from meshllm.engine.output import explain

OUTPUT_CHARS = 200


class EngineUnusableError(Exception):
    """No engine can run here. `failure` has the sentence for people."""

    def __init__(self, message: str, *, fault: EngineFault = EngineFault.UNUSABLE_BUILD) -> None:
        super().__init__(message)
        self.failure = EngineFailure(fault=fault, message=message)


@dataclass(frozen=True, slots=True)
class Said:
    """What a program said on both its outputs."""

    text: str

    @property
    def excerpt(self) -> str:
        """Return its last line, short enough for a message."""
        lines = self.text.strip().splitlines()
        return repr(lines[-1][:OUTPUT_CHARS]) if lines else "nothing"


async def ask(host: Host, program: tuple[str, ...], within_s: float, *, name: str) -> Said:
    """Run a program to its end and return what it said. Raises EngineUnusableError, with the reason."""
    try:
        child = await asyncio.create_subprocess_exec(
            *guarded(host, program),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=child_environment(host),
            start_new_session=True,
        )
    except OSError as error:
        message = f"the engine {name} cannot be started: {error.strerror}"
        raise EngineUnusableError(message, fault=EngineFault.CANNOT_START) from error
    try:
        async with asyncio.timeout(within_s):
            output, _ = await child.communicate()
    except TimeoutError as error:
        raise EngineUnusableError(f"the engine {name} did not answer its self-test in {within_s:g} s") from error
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.ENGINE_STOP_POLITE_S):
                    await child.communicate()  # to the end of its output, which may come after its own
    said = Said(output.decode("utf-8", "replace"))
    if child.returncode:
        raise EngineUnusableError(f"the engine {name} cannot run here: {_reason(said, child.returncode)}")
    return said


def _reason(said: Said, code: int) -> str:
    """Return why a self-test failed: the loader's and the kernel's words, made plain."""
    text = said.text
    if "Exec format error" in text or "wrong ELF class" in text or "incompatible architecture" in text:
        return f"it is built for another kind of machine than this one ({platform.machine()})"
    if "error while loading shared libraries" in text or "cannot open shared object file" in text:
        return f"a library is missing: {said.excerpt}"
    if "GLIBC" in text and "not found" in text:
        return f"it needs a newer system: {said.excerpt}"
    return explain(text.splitlines(), code).message
