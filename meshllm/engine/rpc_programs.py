"""What this node has to share models with other machines: a llama-server and a ggml-rpc-server of one build.

Owns the places that are searched, and the memory of self-tests by the files' identity, so that a start does not
repeat them. Decides which pair is taken: the first that works. Doesn't know how one is built.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from meshllm import __version__
from meshllm.core import limits
from meshllm.core.engines import RpcBuild
from meshllm.engine.llama_server import PROGRAM, package_folders, program_in
from meshllm.engine.rpc_flags import PACKAGE
from meshllm.engine.rpc_self_test import Passed, RpcUnusableError, check_pair

WORKERS = ("ggml-rpc-server", "rpc-server")
ENGINES = "engines"
CURRENT = "current"
"""File in the folder of engines that names the build in use: a folder beside it."""
VERDICTS = "verdicts"
BUILD_HINT = "`mesh-llm engine build` makes one"
PACKAGE_METADATA = "llama_cpp_python-*.dist-info"


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcProblem:
    """Why this node cannot share models, in a sentence."""

    message: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two programs that may be of one build."""

    server: str
    worker: str


async def find_rpc(cache_dir: Path, program: str = "", *, again: bool = False) -> RpcBuild | RpcProblem:
    """Return the first pair that works, or why there is none. `program` is the chosen llama-server, if there is one.

    A pair that was tested before is not tested again until its files change; `again` repeats failed tests.
    """
    problem = RpcProblem(message=f"no llama-server with a ggml-rpc-server is installed; {BUILD_HINT}")
    for number, pair in enumerate(await asyncio.to_thread(_pairs, cache_dir, program)):
        found = await verdict_of(cache_dir, pair, again=again)
        if isinstance(found, RpcBuild):
            return found
        if number == 0:
            problem = found
    return problem


async def verdict_of(cache_dir: Path, pair: Pair, *, again: bool = False) -> RpcBuild | RpcProblem:
    """Return what the self-test of a pair found, now or when these same files were tested before."""
    identity = await asyncio.to_thread(_identity, pair)
    path = cache_dir / ENGINES / VERDICTS / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"
    known = await asyncio.to_thread(_read_verdict, path, identity)
    if isinstance(known, RpcBuild) or (known is not None and not again):
        return known
    found = await _test(pair)
    await asyncio.to_thread(_write_verdict, path, identity, found)
    return found


async def _test(pair: Pair) -> RpcBuild | RpcProblem:
    try:
        async with asyncio.timeout(limits.RPC_SELF_TEST_S):
            passed = await check_pair(pair.server, pair.worker)
    except TimeoutError:
        return RpcProblem(message=f"{pair.worker} did not pass its self-test in {limits.RPC_SELF_TEST_S:g} s")
    except (RpcUnusableError, OSError) as error:
        return RpcProblem(message=str(error))
    version = f"{passed.protocol} {await asyncio.to_thread(_source_of, pair, passed)}"
    return RpcBuild(version=version[:64], server=pair.server, worker=pair.worker, devices=passed.devices)


def _source_of(pair: Pair, passed: Passed) -> str:
    """Return which llama.cpp a pair is. A package says it best: what its server says depends on how it was built."""
    metadata = sorted(Path(pair.server).parent.parent.glob(PACKAGE_METADATA))
    return f"{PACKAGE} {metadata[0].name.removesuffix('.dist-info').split('-')[1]}" if metadata else passed.version


def _pairs(cache_dir: Path, program: str) -> list[Pair]:
    """Return the pairs that are installed, the best first."""
    named = [Path(program).parent] if program else []
    with contextlib.suppress(OSError):
        named.append(cache_dir / ENGINES / (cache_dir / ENGINES / CURRENT).read_text().strip() / "bin")
    folders = [*named, *(place / "bin" for place in package_folders())]
    found = [(program_in(folder, PROGRAM), program_in(folder, *WORKERS)) for folder in folders]
    on_path = next((path for name in WORKERS if (path := shutil.which(name)) is not None), None)
    found.append((shutil.which(PROGRAM), on_path))
    return list(dict.fromkeys(Pair(server, worker) for server, worker in found if server and worker))


def _identity(pair: Pair) -> str:
    """Return what tells whether a test was of these files, here, and by these rules: home folders may be shared."""
    facts: list[object] = [__version__, os.uname().nodename, os.uname().machine]
    for path in (pair.server, pair.worker):
        with contextlib.suppress(OSError):
            stat = Path(path).stat()
            facts += [path, stat.st_size, stat.st_mtime_ns]
    return json.dumps(facts)


def _read_verdict(path: Path, identity: str) -> RpcBuild | RpcProblem | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["identity"] != identity:
            return None
        if told["problem"]:
            return RpcProblem(message=str(told["problem"]))
        build = told["build"]
        return RpcBuild(
            version=str(build["version"]), server=str(build["server"]), worker=str(build["worker"]),
            devices=tuple(str(name) for name in build["devices"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_verdict(path: Path, identity: str, found: RpcBuild | RpcProblem) -> None:
    """Keep a verdict. What cannot be written is found out again."""
    build, problem = (asdict(found), "") if isinstance(found, RpcBuild) else (None, found.message)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump({"identity": identity, "build": build, "problem": problem}, file)
        Path(file.name).replace(path)
