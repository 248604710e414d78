"""The builds of the engine that shares models, as they lie in the cache: listed, held by running nodes, removed.

Owns the lock by which a node says that it uses a build: a shared one on a file in its folder, for as long as the node
runs; the system releases it whatever happens to the node. Decides nothing about which go: `core.engine_builds` does.
Doesn't make builds: `rpc_build` does, which alone removes, and holds the lock of the whole folder meanwhile.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from meshllm.core.engine_builds import StoredBuild, in_order, superfluous
from meshllm.core.engines import EngineBuild
from meshllm.core.split_limits import RPC_HOLD_AGAIN_S, RPC_HOLD_TRIES
from meshllm.engine.rpc_flags import PACKAGE
from meshllm.engine.rpc_programs import CURRENT, ENGINES

IN_USE = "in-use"
"""File in a build's folder: locked by those who use it, and as old as the last choice of the build."""
log = logging.getLogger(__name__)


class Holds:
    """The builds that this process uses, which nobody removes meanwhile."""

    def __init__(self) -> None:
        """Hold none."""
        self._files: list[int] = []
        self._is_closed = False

    async def take(self, build: EngineBuild) -> None:
        """Hold what of an engine lies in a cache, within a second. What cannot be held is logged."""
        programs = (build.program, *((build.rpc.server, build.rpc.worker) if build.rpc is not None else ()))
        for folder in dict.fromkeys(found for program in programs if (found := _build_of(program)) is not None):
            try:
                await self._take(folder)
            except OSError as error:
                log.warning("cannot hold the engine build %s: %s", folder.name, error.strerror or error)

    def close(self) -> None:
        """Hold nothing any more."""
        self._is_closed = True
        while self._files:
            os.close(self._files.pop())

    async def _take(self, folder: Path) -> None:
        for _ in range(RPC_HOLD_TRIES):
            if await asyncio.to_thread(self._hold, folder):
                return
            await asyncio.sleep(RPC_HOLD_AGAIN_S)
        raise TimeoutError("somebody removes it")

    def _hold(self, folder: Path) -> bool:
        """Hold a build; tell whether nothing is left to try. Raises OSError."""
        file = _open(folder)
        if is_held := not self._is_closed and _locked(file, fcntl.LOCK_SH):
            self._files.append(file)
        else:
            os.close(file)
        return is_held or self._is_closed


def chosen_now(folder: Path) -> None:
    """Note that a build was made or chosen now. Raises OSError."""
    (folder / IN_USE).touch()


def stored(cache_dir: Path, named: str = "") -> tuple[StoredBuild, ...]:
    """Return the builds that lie there, the current one first. `named` is the engine that the configuration names."""
    engines = cache_dir / ENGINES
    current = ""
    with contextlib.suppress(OSError):
        current = (engines / CURRENT).read_text(encoding="utf-8").strip()
    folders = [folder for folder in engines.glob(f"{PACKAGE}-*") if folder.is_dir() and not folder.is_symlink()]
    found = [_looked_at(folder, named, is_current=folder.name == current) for folder in folders]
    return in_order(build for build in found if build is not None)


def remove_superfluous(cache_dir: Path, work: Path, named: str = "") -> tuple[StoredBuild, ...]:
    """Remove the builds that nobody needs, and return them. The caller has the lock of the folder of engines.

    Each is moved into `work` whole, which is cleared away by the caller, now or before the next build: half a build
    would pass for one.
    """
    gone = []
    for build in superfluous(stored(cache_dir, named)):
        folder = cache_dir / ENGINES / build.name
        with contextlib.suppress(OSError), _alone_with(folder) as is_free:
            if is_free:
                work.mkdir(exist_ok=True)
                folder.rename(work / build.name)
                gone.append(build)
    for build in gone:
        shutil.rmtree(work / build.name, ignore_errors=True)
    return tuple(gone)


def _looked_at(folder: Path, named: str, *, is_current: bool) -> StoredBuild | None:
    """Return what is to be told of a build; None of one that is gone by now."""
    is_named = bool(named) and Path(named).resolve().is_relative_to(folder.resolve())
    mark = folder / IN_USE
    try:
        return StoredBuild(
            name=folder.name,
            size_bytes=sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()),
            chosen_unix_s=(mark if mark.exists() else folder).stat().st_mtime,
            is_current=is_current,
            is_used=is_named or _is_held(folder),
        )
    except OSError:
        return None


def _build_of(program: str) -> Path | None:
    """Return the folder of the build that a program is of; None for one that is of none in a cache."""
    folder = Path(program).parent.parent
    return folder if folder.parent.name == ENGINES and folder.name.startswith(f"{PACKAGE}-") else None


def _is_held(folder: Path) -> bool:
    """Tell whether somebody uses a build, or nobody can tell."""
    try:
        with _alone_with(folder) as is_free:
            return not is_free
    except OSError:
        return True


@contextlib.contextmanager
def _alone_with(folder: Path) -> Iterator[bool]:
    """Lock out who would use a build; tell whether nobody does. Raises OSError."""
    file = os.open(folder / IN_USE, os.O_RDWR) if (folder / IN_USE).exists() else None
    try:
        yield file is None or _locked(file, fcntl.LOCK_EX)
    finally:
        if file is not None:
            os.close(file)


def _open(folder: Path) -> int:
    """Open the file by which a build is held; make it where an older program made the build. Raises OSError."""
    try:
        return os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:  # a folder of somebody else's
        return os.open(folder / IN_USE, os.O_RDONLY)


def _locked(file: int, kind: int) -> bool:
    """Lock a file; tell whether nobody else has it. Raises OSError."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
