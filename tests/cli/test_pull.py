"""`pull`, with a node and without one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from meshllm.cli import pull as pull_module
from meshllm.cli import standalone
from meshllm.config import Config
from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode


def lines(*documents: object) -> str:
    """Return one JSON document a line."""
    return "".join(json.dumps(document) + "\n" for document in documents)


def test_pull_through_the_node_shows_progress(
    shell: Shell, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for every tenth, without a terminal."""
    monkeypatch.setattr(pull_module, "PROGRESS_AFTER_S", 0.0)
    steps = [{"status": "downloading", "done_bytes": done, "total_bytes": 10**9} for done in (0, 5_000_000, 5 * 10**8)]
    node.answers["POST /api/pull"] = (200, lines(*steps, {"status": "success", "model": "tiny-Q4"}))

    assert shell("pull", "tiny", "--port", node.port) == 0
    assert shell.err.splitlines() == [
        "downloading tiny 0% 0 B of 1.0 GB", "downloading tiny 50% 500 MB of 1.0 GB", "pulled tiny-Q4",
    ]  # fmt: skip


def test_pull_says_from_whom_a_file_comes(shell: Shell, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of the mesh by their names."""
    monkeypatch.setattr(pull_module, "PROGRESS_AFTER_S", 0.0)
    step = {"status": "downloading", "done_bytes": 10, "total_bytes": 20, "from": ["n2", "n3"]}
    node.answers["POST /api/pull"] = (200, lines(step, {"status": "success", "model": "own"}))

    assert shell("pull", "own", "--port", node.port) == 0
    assert "from n2, n3" in shell.err


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {"error": {"message": "nobody knows it"}}), "nobody knows it"),
        ((200, lines({"status": "downloading"}, {"error": {"message": "the disk is full"}})), "the disk is full"),
        ((200, lines({"status": "downloading"}) + "garbage\n"), "broke off"),
    ],
)
def test_failed_pull_says_why(shell: Shell, node: ScriptedNode, answer: tuple[int, object], message: str) -> None:
    """Before the first line, after it, or not at all."""
    node.answers["POST /api/pull"] = answer

    assert shell("pull", "tiny", "--port", node.port) == 1
    assert message in shell.err


def test_pull_works_without_a_node(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first model comes before the first node."""

    def fetch(_: Config, name: str, on_progress: Callable[[int, int], None]) -> Path:
        on_progress(1, 2)
        return Path(f"/models/{name}.gguf")

    monkeypatch.setattr(standalone, "pull", fetch)

    assert shell("pull", "tiny") == 0
    assert shell.err == "pulled /models/tiny.gguf\n"
