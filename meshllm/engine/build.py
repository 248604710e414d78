"""Which engine this node runs, and whether it can: the self-test at the start of a daemon.

Owns the choice among builds and the explanation why one is unusable, in one line for people. Decides
nothing about models. Doesn't import any engine: what loads native code runs in a child with a deadline,
because it may crash.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import platform
import signal
from dataclasses import dataclass
from pathlib import Path

from meshllm.core import limits
from meshllm.core.engines import EngineBuild, EngineFailure, EngineFault
from meshllm.engine.command import (
    CHILD_MODULES,
    FAKE,
    LLAMA_SERVER,
    XLLAMACPP,
    Host,
    child_environment,
    guarded,
    python_module,
    this_host,
)
from meshllm.engine.llama_server import find_program, read_gpus, read_version
from meshllm.engine.output import explain

AUTO = "auto"
FAKE_PREFIX = "fake:"
INSTALL_HINT = "`pip install xllamacpp` brings one, or --engine names a llama-server"
OUTPUT_CHARS = 200


class EngineUnusableError(Exception):
    """No engine can run here. `failure` has the sentence for people."""

    def __init__(self, message: str, *, fault: EngineFault = EngineFault.UNUSABLE_BUILD) -> None:
        super().__init__(message)
        self.failure = EngineFailure(fault=fault, message=message)


async def probe_build(choice: str = AUTO, *, within_s: float = limits.ENGINE_SELF_TEST_S) -> EngineBuild:
    """Return the build that a choice means, after its self-test. Raises EngineUnusableError.

    `auto` is the wheel `xllamacpp` where it is installed, else a llama-server that is found; otherwise
    `xllamacpp`, or the path of a llama-server.
    """
    if choice == FAKE or choice.startswith(FAKE_PREFIX):
        return _fake(choice)
    host = this_host()
    has_wheel = importlib.util.find_spec(XLLAMACPP) is not None
    if choice == XLLAMACPP or (choice == AUTO and has_wheel):
        return await _probe_wheel(host, within_s, is_installed=has_wheel)
    program = find_program() if choice in {AUTO, LLAMA_SERVER} else choice
    if program is None:
        raise EngineUnusableError(f"no engine is installed; {INSTALL_HINT}")
    return await _probe_native(host, program, within_s)


def _fake(choice: str) -> EngineBuild:
    """Return the engine double that tests use, with its switches."""
    switches = choice.removeprefix(FAKE).removeprefix(":")
    try:
        json.loads(switches or "{}")
    except ValueError as error:
        raise EngineUnusableError(f"the switches of the fake engine are no JSON: {error}") from error
    return EngineBuild(kind=FAKE, version="0", uses_gpu=False, program=switches)


async def _probe_wheel(host: Host, within_s: float, *, is_installed: bool) -> EngineBuild:
    """Load the wheel in a child and ask what it can do."""
    if not is_installed:
        raise EngineUnusableError(f"the engine xllamacpp is not installed; {INSTALL_HINT}")
    program = (*python_module(host, CHILD_MODULES[XLLAMACPP]), "--probe")
    said = await _ask(host, program, within_s, name="xllamacpp")
    try:
        told = json.loads(said.text.splitlines()[-1])
        version, devices = str(told["version"]), [bool(device["is_gpu"]) for device in told["devices"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise EngineUnusableError(f"the engine xllamacpp gave an unexpected answer: {said.excerpt}") from error
    return EngineBuild(kind=XLLAMACPP, version=version, uses_gpu=any(devices))


async def _probe_native(host: Host, program: str, within_s: float) -> EngineBuild:
    """Ask a native llama-server who it is and what it computes on."""
    path = _executable(program)
    version = read_version((await _ask(host, (path, "--version"), within_s, name=program)).text)
    if not version:
        raise EngineUnusableError(f"the engine {program} is no llama-server: it tells no version")
    devices = (await _ask(host, (path, "--list-devices"), within_s, name=program)).text
    return EngineBuild(kind=LLAMA_SERVER, version=version, uses_gpu=bool(read_gpus(devices)), program=path)


def _executable(program: str) -> str:
    """Return the full path of a program that people named. Raises EngineUnusableError."""
    path = Path(program).expanduser().absolute()
    if path.is_file() and os.access(path, os.X_OK):
        return str(path)
    reason = "is not executable" if path.exists() else "does not exist"
    raise EngineUnusableError(f"the engine {program} {reason}", fault=EngineFault.CANNOT_START)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a program said on both its outputs."""

    text: str

    @property
    def excerpt(self) -> str:
        """Return its last line, short enough for a message."""
        lines = self.text.strip().splitlines()
        return repr(lines[-1][:OUTPUT_CHARS]) if lines else "nothing"


async def _ask(host: Host, program: tuple[str, ...], within_s: float, *, name: str) -> _Said:
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
    said = _Said(output.decode("utf-8", "replace"))
    if child.returncode:
        raise EngineUnusableError(f"the engine {name} cannot run here: {_reason(said, child.returncode)}")
    return said


def _reason(said: _Said, code: int) -> str:
    """Return why a self-test failed: the loader's and the kernel's words, made plain."""
    text = said.text
    if "Exec format error" in text or "wrong ELF class" in text or "incompatible architecture" in text:
        return f"it is built for another kind of machine than this one ({platform.machine()})"
    if "error while loading shared libraries" in text or "cannot open shared object file" in text:
        return f"a library is missing: {said.excerpt}"
    if "GLIBC" in text and "not found" in text:
        return f"it needs a newer system: {said.excerpt}"
    return explain(text.splitlines(), code).message
