"""Which engine this node runs, and whether it can: the self-test at the start of a daemon.

Owns the choice among builds and the explanation why one is unusable, in one line for people. Decides
nothing about models. Doesn't import any engine: what loads native code runs in a child with a deadline,
because it may crash.
"""

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path

from meshllm.core import limits
from meshllm.core.engines import EngineBuild, EngineFault, RpcBuild
from meshllm.engine.command import (
    CHILD_MODULES,
    FAKE,
    LLAMA_SERVER,
    XLLAMACPP,
    Host,
    python_module,
    this_host,
)
from meshllm.engine.inquiry import EngineUnusableError, ask
from meshllm.engine.llama_server import find_program, read_gpus, read_version
from meshllm.engine.rpc_programs import find_rpc

AUTO = "auto"
FAKE_PREFIX = "fake:"
INSTALL_HINT = "`pip install xllamacpp` brings one, or --engine names a llama-server"


async def probe_build(
    choice: str = AUTO, *, cache_dir: Path | None = None, within_s: float = limits.ENGINE_SELF_TEST_S
) -> EngineBuild:
    """Return the build that a choice means, after its self-test. Raises EngineUnusableError.

    `auto` is the wheel `xllamacpp` where it is installed, else a llama-server that is found; otherwise
    `xllamacpp`, or the path of a llama-server. With a `cache_dir`, what can share models with other machines
    is looked for, too: there, beside the chosen program, among Python's packages and on PATH.
    """
    if choice == FAKE or choice.startswith(FAKE_PREFIX):
        return _fake(choice)
    found = await _probe(choice, within_s)
    if cache_dir is None:
        return found
    pair = await find_rpc(cache_dir, found.program)
    return replace(found, rpc=pair) if isinstance(pair, RpcBuild) else found


async def _probe(choice: str, within_s: float) -> EngineBuild:
    """Return what runs whole models. Raises EngineUnusableError."""
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
        told = json.loads(switches or "{}")
    except ValueError as error:
        raise EngineUnusableError(f"the switches of the fake engine are no JSON: {error}") from error
    shares = told.get("rpc", "") if isinstance(told, dict) else ""
    rpc = RpcBuild(version=str(shares), server=FAKE, worker=FAKE) if shares else None
    return EngineBuild(kind=FAKE, version="0", uses_gpu=False, program=switches, rpc=rpc)


async def _probe_wheel(host: Host, within_s: float, *, is_installed: bool) -> EngineBuild:
    """Load the wheel in a child and ask what it can do."""
    if not is_installed:
        raise EngineUnusableError(f"the engine xllamacpp is not installed; {INSTALL_HINT}")
    program = (*python_module(host, CHILD_MODULES[XLLAMACPP]), "--probe")
    said = await ask(host, program, within_s, name="xllamacpp")
    try:
        told = json.loads(said.text.splitlines()[-1])
        version, devices = str(told["version"]), [bool(device["is_gpu"]) for device in told["devices"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise EngineUnusableError(f"the engine xllamacpp gave an unexpected answer: {said.excerpt}") from error
    return EngineBuild(kind=XLLAMACPP, version=version, uses_gpu=any(devices))


async def _probe_native(host: Host, program: str, within_s: float) -> EngineBuild:
    """Ask a native llama-server who it is and what it computes on."""
    path = _executable(program)
    version = read_version((await ask(host, (path, "--version"), within_s, name=program)).text)
    if not version:
        raise EngineUnusableError(f"the engine {program} is no llama-server: it tells no version")
    devices = (await ask(host, (path, "--list-devices"), within_s, name=program)).text
    return EngineBuild(kind=LLAMA_SERVER, version=version, uses_gpu=bool(read_gpus(devices)), program=path)


def _executable(program: str) -> str:
    """Return the full path of a program that people named. Raises EngineUnusableError."""
    path = Path(program).expanduser().absolute()
    if path.is_file() and os.access(path, os.X_OK):
        return str(path)
    reason = "is not executable" if path.exists() else "does not exist"
    raise EngineUnusableError(f"the engine {program} {reason}", fault=EngineFault.CANNOT_START)
