"""`engine show`: the self-test in words."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from meshllm.cli import standalone
from meshllm.cli.failures import CommandError
from meshllm.config import Config
from meshllm.core.engine_builds import StoredBuild
from meshllm.core.engines import EngineBuild, EngineFault, RpcBuild
from tests.cli.conftest import Shell
from tests.core.builders import a_failure

STORED = (
    StoredBuild(name="llama-cpp-python-2-b", size_bytes=390_000_000, chosen_unix_s=2.0, is_current=True, is_used=True),
    StoredBuild(name="llama-cpp-python-1-a", size_bytes=12_000_000, chosen_unix_s=1.0, is_current=False, is_used=False),
)
RPC = RpcBuild(version="7.0.0 x", server="/b/llama-server", worker="/b/ggml-rpc-server")


@pytest.fixture(autouse=True)
def nothing_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't look into this machine's cache."""
    monkeypatch.setattr(standalone, "stored_builds", lambda _: ())


def test_engine_show_tells_the_build_or_why_there_is_none(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the self-test."""
    monkeypatch.setattr(standalone, "sharing", lambda _: "nothing is installed")
    monkeypatch.setattr(standalone, "engine", lambda _: EngineBuild(kind="fake", version="1", uses_gpu=False))
    good = shell("engine", "show")
    shown = shell.out
    monkeypatch.setattr(standalone, "engine", lambda _: a_failure(EngineFault.CANNOT_START, "it is gone"))
    bad = shell("engine", "show", "--json")

    assert (good, bad) == (0, 1)
    assert shown.split() == [
        "engine", "fake", "version", "1", "GPU", "no", "sharing", "models", "no:", "nothing", "is", "installed",
    ]  # fmt: skip
    assert json.loads(shell.out)["fault"] == "cannot_start"
    assert "it is gone" in shell.err


def test_engine_show_tells_what_shares_models(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is what members compare."""
    build = EngineBuild(kind="fake", version="1", uses_gpu=False, rpc=RPC)
    monkeypatch.setattr(standalone, "engine", lambda _: build)

    code = shell("engine", "show")

    assert code == 0
    assert "yes, RPC 7.0.0 x" in shell.out
    assert "/b/ggml-rpc-server" in shell.out


@pytest.mark.parametrize("can_run", [True, False])
def test_engine_show_lists_what_lies_in_the_cache(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, *, can_run: bool
) -> None:
    """With sizes, and which of them somebody needs; also where no engine can run."""
    build = EngineBuild(kind="fake", version="1", uses_gpu=False, rpc=RPC)
    found = build if can_run else a_failure(EngineFault.CANNOT_START, "it is gone")
    monkeypatch.setattr(standalone, "engine", lambda _: found)
    monkeypatch.setattr(standalone, "stored_builds", lambda _: STORED)

    code = shell("engine", "show")
    lines = [line.split(maxsplit=1) for line in shell.out.splitlines()]
    json_code = shell("engine", "show", "--json")

    assert code == json_code == int(not can_run)
    assert [words for what, words in (line for line in lines if len(line) == 2) if what == "build"] == [
        "llama-cpp-python-2-b: 390 MB, current, in use", "llama-cpp-python-1-a: 12.0 MB",
    ]  # fmt: skip
    told = json.loads(shell.out)["builds"]
    assert [(one["size_bytes"], one["is_current"], one["is_used"]) for one in told] == [
        (390_000_000, True, True), (12_000_000, False, False),
    ]  # fmt: skip


def test_engine_build_shows_its_progress_and_what_came_of_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps as lines, compiling as a share; what was asked for reaches the build."""
    asked: list[dict[str, object]] = []

    def build(_: Config, tell: Callable[[str, int, int], None], **wishes: object) -> RpcBuild:
        asked.append(wishes)
        for step, done, total in (("fetching the source", 0, 0), ("compiling", 1, 2), ("compiling", 2, 2)):
            tell(step, done, total)
        return RPC

    monkeypatch.setattr(standalone, "build_engine", build)
    code = shell("engine", "build", "--native", "--jobs", 3)
    told = shell.err
    json_code = shell("engine", "build", "--cpu", "--wheel", "/w.whl", "--json")

    assert (code, json_code) == (0, 0)
    assert "fetching the source" in told
    assert "compiling 50% 1 of 2" in told
    assert json.loads(shell.out)["version"] == "7.0.0 x"
    assert asked == [
        {"native": True, "cpu": False, "jobs": 3, "wheel": None},
        {"native": False, "cpu": True, "jobs": 0, "wheel": Path("/w.whl")},
    ]


def test_build_that_fails_is_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """And an exit code."""

    def build(*_: object, **__: object) -> RpcBuild:
        raise CommandError("no C++ compiler is installed")

    monkeypatch.setattr(standalone, "build_engine", build)

    assert shell("engine", "build") == 1
    assert shell.err == "mesh-llm: no C++ compiler is installed\n"
