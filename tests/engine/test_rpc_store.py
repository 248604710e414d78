"""The builds in the cache: what is told of them, who holds one, and which go."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meshllm.core.engines import EngineBuild, RpcBuild
from meshllm.core.split_limits import RPC_BUILDS_KEPT
from meshllm.engine import rpc_store
from meshllm.engine.rpc_store import IN_USE, Holds, chosen_now, remove_superfluous, stored

WITHIN_S = 30.0
HOLDER = """
import asyncio, sys
from meshllm.core.engines import EngineBuild
from meshllm.engine.rpc_store import Holds
holds = Holds()
asyncio.run(holds.take(EngineBuild(kind="x", version="1", uses_gpu=False, program=sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


def a_folder(cache: Path, number: int) -> Path:
    """Make a build that was chosen so late, of a thousand bytes and more."""
    folder = cache / "engines" / f"llama-cpp-python-0.3.{number}-abcd"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "llama-server").write_bytes(b"x" * 1000)
    (folder / "bin" / "ggml-rpc-server").write_bytes(b"x" * number)
    chosen_now(folder)
    os.utime(folder / IN_USE, (number, number))
    return folder


def an_engine(folder: Path, *, is_chosen: bool = False) -> EngineBuild:
    """Return an engine whose programs are of a build: as what shares models, or as the one that somebody named."""
    server, worker = str(folder / "bin" / "llama-server"), str(folder / "bin" / "ggml-rpc-server")
    if is_chosen:
        return EngineBuild(kind="llama-server", version="1", uses_gpu=False, program=server)
    rpc = RpcBuild(version="1", server=server, worker=worker)
    return EngineBuild(kind="fake", version="1", uses_gpu=False, rpc=rpc)


def removed(cache: Path, named: str = "") -> list[str]:
    """Remove what is superfluous; return the names."""
    gone = remove_superfluous(cache, cache / "engines" / "work", named)
    assert [(cache / "engines" / build.name).exists() for build in gone] == [False] * len(gone)
    return [build.name for build in gone]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cache with two builds more than are kept, and what else lies there."""
    for number in range(1, RPC_BUILDS_KEPT + 3):
        a_folder(tmp_path, number)
    engines = tmp_path / "engines"
    (engines / "current").write_text(f"llama-cpp-python-0.3.{RPC_BUILDS_KEPT + 2}-abcd\n")
    (engines / "verdicts").mkdir()
    (engines / "build.log").touch()
    (engines / "llama-cpp-python-of-mine").symlink_to(engines / "verdicts")
    return tmp_path


def name_of(number: int) -> str:
    """Return the name of a build in the cache."""
    return f"llama-cpp-python-0.3.{number}-abcd"


def test_builds_are_listed_with_their_sizes_the_current_one_first(cache: Path) -> None:
    """Nothing else that lies there is one."""
    found = stored(cache)

    newest = RPC_BUILDS_KEPT + 2
    assert [build.name for build in found] == [name_of(number) for number in range(newest, 0, -1)]
    assert [build.size_bytes for build in found] == [1000 + number for number in range(newest, 0, -1)]
    assert [build.is_current for build in found] == [True] + [False] * (newest - 1)
    assert not any(build.is_used for build in found)


def test_nothing_lies_where_nothing_was_built(tmp_path: Path) -> None:
    """A cache that is not there is none to complain of."""
    assert stored(tmp_path / "none") == ()


def test_the_oldest_go_and_nothing_else_does(cache: Path) -> None:
    """Their folders are gone; a second look finds nothing to do."""
    others = {"current", "verdicts", "build.log", "llama-cpp-python-of-mine", "work"}

    assert sorted(removed(cache)) == [name_of(1), name_of(2)]
    assert removed(cache) == []
    left = {path.name for path in (cache / "engines").iterdir()}
    assert left == others | {name_of(number) for number in range(3, RPC_BUILDS_KEPT + 3)}
    assert not list((cache / "engines" / "work").iterdir())


@pytest.mark.parametrize("is_chosen", [True, False])
async def test_what_a_node_holds_stays_until_it_lets_go(cache: Path, *, is_chosen: bool) -> None:
    """Two nodes may hold one."""
    first, second = Holds(), Holds()
    for holds in (first, second):
        await holds.take(an_engine(cache / "engines" / name_of(1), is_chosen=is_chosen))

    assert [build.name for build in stored(cache) if build.is_used] == [name_of(1)]
    assert removed(cache) == [name_of(2)]
    first.close()
    assert removed(cache) == []
    second.close()
    assert removed(cache) == [name_of(1)]


def test_a_node_that_is_killed_holds_nothing(cache: Path) -> None:
    """Another process; nobody has to clear up after it."""
    program = str(cache / "engines" / name_of(1) / "bin" / "llama-server")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        said = child.stdout.readline()
        while_it_lives = removed(cache)
        child.kill()
        child.wait(WITHIN_S)

    assert said == "held\n"
    assert while_it_lives == [name_of(2)]
    assert removed(cache) == [name_of(1)]


def test_what_the_configuration_names_stays(cache: Path) -> None:
    """Its node need not be running."""
    named = str(cache / "engines" / name_of(2) / "bin" / "llama-server")

    assert removed(cache, named) == [name_of(1)]
    assert [build.name for build in stored(cache, named) if build.is_used] == [name_of(2)]


async def test_a_build_of_an_older_program_can_be_held_and_removed(cache: Path) -> None:
    """It has no file to lock yet: its folder says how old it is."""
    old = [cache / "engines" / name_of(number) for number in (1, 2)]
    for number, folder in enumerate(old, 1):
        (folder / IN_USE).unlink()
        os.utime(folder, (number, number))
    holds = Holds()

    await holds.take(an_engine(old[0]))
    os.utime(old[0] / IN_USE, (1, 1))

    assert removed(cache) == [name_of(2)]
    holds.close()
    assert removed(cache) == [name_of(1)]


async def test_programs_from_elsewhere_are_let_alone(tmp_path: Path) -> None:
    """Whoever installed them removes them; so is a node without any."""
    folder = tmp_path / "opt" / "llama-cpp-python-1"
    (folder / "bin").mkdir(parents=True)
    holds = Holds()

    await holds.take(an_engine(folder))
    await holds.take(EngineBuild(kind="fake", version="1", uses_gpu=False))
    holds.close()

    assert [path.name for path in folder.iterdir()] == ["bin"]


async def test_what_cannot_be_held_is_logged_and_no_failure(
    cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is gone, and one that somebody removes just now."""
    monkeypatch.setattr(rpc_store, "RPC_HOLD_TRIES", 2)
    monkeypatch.setattr(rpc_store, "RPC_HOLD_AGAIN_S", 0.001)
    folder, holds = cache / "engines" / name_of(1), Holds()
    with (folder / IN_USE).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        await holds.take(an_engine(folder))
        was_used = stored(cache)[-1].is_used
    await holds.take(an_engine(cache / "engines" / "llama-cpp-python-gone"))

    assert was_used  # somebody has it, whoever that is
    assert not any(build.is_used for build in stored(cache))
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot hold the engine build {name_of(1)}: somebody removes it",
        "cannot hold the engine build llama-cpp-python-gone: No such file or directory",
    ]


async def test_a_node_that_has_ended_holds_nothing_more(cache: Path) -> None:
    """Its probe may end after it."""
    holds = Holds()
    holds.close()

    await holds.take(an_engine(cache / "engines" / name_of(1)))

    assert not any(build.is_used for build in stored(cache))


def test_where_nobody_can_tell_a_build_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have no locks."""

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)

    assert all(build.is_used for build in stored(cache))
    assert removed(cache) == []


async def test_a_build_that_only_this_user_may_read_is_held_all_the_same(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache of somebody else's: a shared lock needs no leave to write."""
    opened = os.open

    def open_to_read(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, mode)

    holds = Holds()
    monkeypatch.setattr(os, "open", open_to_read)
    await holds.take(an_engine(cache / "engines" / name_of(1)))
    monkeypatch.undo()

    assert stored(cache)[-1].is_used
    holds.close()


def test_a_build_that_goes_while_it_is_looked_at_is_not_listed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing needs no lock: another process may build at the same time."""
    going, looked_at = cache / "engines" / name_of(1), Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if going in path.parents and going.exists():
            shutil.rmtree(going)
        return looked_at(path)

    monkeypatch.setattr(Path, "lstat", lstat)

    assert name_of(1) not in [build.name for build in stored(cache)]
    assert len(stored(cache)) == RPC_BUILDS_KEPT + 1
