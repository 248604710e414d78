"""Making what shares models: pip and the compiler are played, everything around them is real."""

import asyncio
import fcntl
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from meshllm.core import split_limits
from meshllm.core.engines import EngineBuild, RpcBuild
from meshllm.core.resources import format_bytes
from meshllm.engine import rpc_build
from meshllm.engine.rpc_build import BuildWishes, RpcBuildError, build_rpc
from meshllm.engine.rpc_build_log import BuildProgress
from meshllm.engine.rpc_programs import find_rpc
from meshllm.engine.rpc_store import IN_USE, Holds, stored
from tests.engine.rpc_programs import write_pair

WITHIN_S = 60.0
PIP = """#!{python}
import os, pathlib, shutil, sys
told = sys.argv
print("  *** Configuring CMake...", flush=True)
print("  [1/2] c++ one", flush=True)
{body}
print("  [2/2] c++ two", flush=True)
shutil.copy("{wheel}", pathlib.Path(told[told.index("--wheel-dir") + 1]))
"""
SEEN = """
words = [*told, *(f"{{k}}={{v}}" for k, v in os.environ.items())]
pathlib.Path({path!r}).write_text(" ".join(words))
"""


def a_wheel(folder: Path, **of_pair: object) -> Path:
    """Return a wheel of programs that pass their self-test, unless they are told to have trouble."""
    programs = write_pair(folder / "made", **of_pair)  # type: ignore[arg-type]
    wheel = folder / "llama_cpp_python-0.3.36-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for program in programs.iterdir():
            archive.write(program, f"bin/{program.name}")
        archive.writestr("lib/libggml.so", b"a library")
        archive.writestr("llama_cpp/llama.py", b"what nobody needs")
        archive.writestr("llama_cpp_python-0.3.36.dist-info/METADATA", b"Version: 0.3.36")
    return wheel


def play_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str = "", **of_pair: object) -> None:
    """Let a script stand for pip. Its `body` runs between two steps of compiling."""
    script = tmp_path / "pip"
    folder = "pathlib.Path(told[told.index('--wheel-dir') + 1])"
    body = f"{folder}.mkdir(parents=True)\n{body}"
    script.write_text(PIP.format(python=sys.executable, body=body, wheel=a_wheel(tmp_path, **of_pair)))
    script.chmod(0o755)
    monkeypatch.setattr(rpc_build, "pip_program", lambda _: (str(script),))
    monkeypatch.setattr(rpc_build, "gpu_tools", frozenset)


async def made(cache: Path, told: list[BuildProgress] | None = None, **wishes: object) -> str:
    """Build and return the version."""
    heard = told if told is not None else []
    async with asyncio.timeout(WITHIN_S):
        return (await build_rpc(cache, BuildWishes(**wishes), heard.append)).version  # type: ignore[arg-type]


async def test_build_is_made_once_and_found_by_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call returns what is there, without pip."""
    cache, count = tmp_path / "cache", tmp_path / "count"
    play_pip(monkeypatch, tmp_path, f"open({str(count)!r}, 'a').write('x')")
    told: list[BuildProgress] = []

    versions = [await made(cache, told), await made(cache)]

    assert versions == ["7.0.1 llama-cpp-python 0.3.36"] * 2
    assert count.read_text() == "x"
    found = await find_rpc(cache)
    assert getattr(found, "server", "").startswith(str(cache))
    steps = [each.step for each in told]
    assert [steps.index(name) for name in ("fetching the source", "compiling", "unpacking", "testing")] == sorted(
        steps.index(name) for name in ("fetching the source", "compiling", "unpacking", "testing")
    )
    assert BuildProgress(step="compiling", done=2, total=2) in told
    unpacked = {path.name for path in Path(found.server).parents[1].iterdir()}  # type: ignore[union-attr]
    assert unpacked == {"bin", "lib", "llama_cpp_python-0.3.36.dist-info", IN_USE}


async def test_pip_gets_the_flags_and_neither_its_cache_nor_our_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached wheel was built with other flags: it would come back in a second, and without RPC."""
    seen = tmp_path / "seen"
    play_pip(monkeypatch, tmp_path, SEEN.format(path=str(seen)))
    monkeypatch.setenv("MESH_LLM_API_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/own/modules")

    await made(tmp_path / "cache", jobs=3, native=True)

    words = seen.read_text()
    assert " wheel " in words
    assert "--no-cache-dir" in words
    assert "--no-binary llama-cpp-python" in words
    assert "llama-cpp-python==0.3.36" in words
    assert "CMAKE_ARGS=-DGGML_NATIVE=ON -DGGML_RPC=ON" in words
    assert "CMAKE_BUILD_PARALLEL_LEVEL=3" in words
    assert "MESH_LLM_API_KEY" not in words
    assert "PYTHONPATH=/own/modules " in f"{words} "


async def test_wheel_that_was_built_elsewhere_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For machines without a compiler or a network."""
    monkeypatch.setattr(rpc_build, "pip_program", lambda _: ("/bin/false",))

    assert await made(tmp_path / "cache", wheel=a_wheel(tmp_path)) == "7.0.1 llama-cpp-python 0.3.36"


async def test_build_that_fails_its_self_test_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked for a native build is told what would run; the next build starts from nothing."""
    play_pip(monkeypatch, tmp_path, worker_trouble="import os; os.kill(os.getpid(), 4)")

    with pytest.raises(RpcBuildError, match=r"self-test.*without --native"):
        await made(tmp_path / "cache", native=True)
    play_pip(monkeypatch, tmp_path)

    assert await made(tmp_path / "cache", native=True)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ERROR: No matching distribution found for llama-cpp-python", "is there a network"),
        ("g++: fatal error: Killed signal terminated program cc1plus", "--jobs 1"),
        ("x.cpp:3: fatal error: nothing.h: No such file", "it said: nothing.h"),
        ("fatal error: error writing to /tmp/x.s: No space left on device", "the disk was full"),
    ],
)
async def test_failure_of_pip_is_one_sentence_that_names_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, words: str
) -> None:
    """Thousands of lines are kept in a file; nobody has to read them first."""
    play_pip(monkeypatch, tmp_path, f"print({said!r}); sys.exit(1)")

    with pytest.raises(RpcBuildError, match=words) as refusal:
        await made(tmp_path / "cache")

    log = tmp_path / "cache" / "engines" / "build.log"
    assert str(log) in str(refusal.value)
    assert said in log.read_text()


async def test_what_is_missing_is_said_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler, disk, leave to fetch, or the wheel that was named."""
    play_pip(monkeypatch, tmp_path, "sys.exit('never run')")
    with pytest.raises(RpcBuildError, match="there is no file"):
        await made(tmp_path / "cache", wheel=tmp_path / "gone.whl")
    (tmp_path / "no.whl").write_text("no zip")
    with pytest.raises(RpcBuildError, match="is no wheel"):
        await made(tmp_path / "cache", wheel=tmp_path / "no.whl")
    with pytest.raises(RpcBuildError, match="offline"):
        await made(tmp_path / "cache", offline=True)
    monkeypatch.setattr(split_limits, "RPC_BUILD_DISK_BYTES", 2**60)
    with pytest.raises(RpcBuildError, match="of disk"):
        await made(tmp_path / "cache")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RpcBuildError, match=r"no C\+\+ compiler"):
        await made(tmp_path / "cache")


async def test_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    """A file stands where the folder would be."""
    (tmp_path / "cache").touch()

    with pytest.raises(RpcBuildError, match="cannot write"):
        await made(tmp_path / "cache")


async def test_interrupted_build_ends_its_children_and_the_next_starts_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle leaves nothing running, and what it left is cleared away."""
    play_pip(monkeypatch, tmp_path, "import signal; signal.pause()")
    compiling = asyncio.Event()

    def tell(progress: BuildProgress) -> None:
        if progress.step == "compiling":
            compiling.set()

    async with asyncio.TaskGroup() as group:
        build = group.create_task(build_rpc(tmp_path / "cache", BuildWishes(), tell))
        async with asyncio.timeout(WITHIN_S):
            await compiling.wait()
        build.cancel()

    assert build.cancelled()
    play_pip(monkeypatch, tmp_path)
    assert await made(tmp_path / "cache")
    assert not (tmp_path / "cache" / "engines" / "work").exists()


async def test_second_build_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is the file's: it holds between processes, and is released whatever happens to its holder."""
    play_pip(monkeypatch, tmp_path)
    folder = tmp_path / "cache" / "engines"
    folder.mkdir(parents=True)
    waiting = asyncio.Event()

    def tell(progress: BuildProgress) -> None:
        if progress.step == "waiting for another build":
            waiting.set()

    async with asyncio.TaskGroup() as group:
        with (folder / "lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            build = group.create_task(build_rpc(tmp_path / "cache", BuildWishes(), tell))
            async with asyncio.timeout(WITHIN_S):
                await waiting.wait()
            assert not (folder / "work").exists()

    assert build.result().version == "7.0.1 llama-cpp-python 0.3.36"


async def test_what_nobody_needs_any_more_goes_after_a_build_that_works(tmp_path: Path) -> None:
    """The last two stay, and what a node uses; a line says what went, and how much that was."""
    cache, wheel, names = tmp_path / "cache", a_wheel(tmp_path), []
    holds = Holds()
    for number in range(3):
        os.utime(wheel, (number, number))  # which makes it another one
        await made(cache, wheel=wheel)
        names.append(stored(cache)[0].name)
        if number == 0:
            found = await find_rpc(cache)
            assert isinstance(found, RpcBuild)
            await holds.take(EngineBuild(kind="fake", version="1", uses_gpu=False, rpc=found))
    while_used = {build.name for build in stored(cache)}
    holds.close()
    going = next(build for build in stored(cache) if build.name == names[0])
    told: list[BuildProgress] = []

    await made(cache, told, wheel=wheel)

    assert while_used == set(names)
    assert {build.name for build in stored(cache)} == set(names[1:])
    said = f"removed what no node uses: {names[0]} ({format_bytes(going.size_bytes)})"
    assert [progress.step for progress in told] == ["testing", said]
    assert going.size_bytes > len(b"a library")
    assert not (cache / "engines" / "work").exists()
    assert isinstance(await find_rpc(cache), RpcBuild)


async def test_a_build_that_does_not_work_removes_no_other(tmp_path: Path) -> None:
    """There may be none left that does."""
    cache, wheel = tmp_path / "cache", a_wheel(tmp_path)
    for number in range(2):
        os.utime(wheel, (number, number))
        await made(cache, wheel=wheel)
    before = stored(cache)
    broken = a_wheel(tmp_path / "broken", worker_trouble="import os; os.kill(os.getpid(), 4)")

    with pytest.raises(RpcBuildError, match="self-test"):
        await made(cache, wheel=broken)

    assert stored(cache) == before
    assert len(before) == 2


async def test_a_build_that_is_chosen_again_is_the_newest(tmp_path: Path) -> None:
    """Who goes back to an older one keeps it, and the one before."""
    cache, wheel = tmp_path / "cache", a_wheel(tmp_path)
    names = []
    for number in (0, 1, 0, 2):
        os.utime(wheel, (number, number))
        await made(cache, wheel=wheel)
        names.append(stored(cache)[0].name)

    assert [build.name for build in stored(cache)] == [names[3], names[0]]
    assert names[2] == names[0]
