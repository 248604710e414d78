"""With a node or without one, and orders that take long."""

from pathlib import Path

import pytest

from meshllm.cli import node as node_module
from tests.cli.conftest import Shell
from tests.cli.scripted import Answer, ScriptedNode, document


def test_long_load_shows_how_far_it_is(shell: Shell, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal, as lines."""
    monkeypatch.setattr(node_module, "PROGRESS_AFTER_S", 0.0)
    monkeypatch.setattr(node_module, "PROGRESS_INTERVAL_S", 0.01)
    node.answers["GET /api/status"] = (200, document("loading"))

    def answer_once_the_status_was_asked() -> Answer:
        while not node.bodies("GET /api/status"):
            pass
        return 200, {"model_id": "tiny", "status": "loaded"}

    node.answers["POST /v1/models/reload"] = answer_once_the_status_was_asked

    assert shell("load", "tiny", "--port", node.port) == 0
    assert shell.err == "loading tiny 41%\ntiny is loaded\n"


@pytest.mark.usefixtures("disk")
def test_named_node_that_is_not_there_is_an_error(shell: Shell) -> None:
    """The disk of this machine is not what was asked for."""
    assert shell("list", "--port", "1") == 1
    assert "no node is running" in shell.err


def test_nothing_is_written_by_reading(shell: Shell, home: Path) -> None:
    """Looking leaves no trace in a fresh home."""
    shell("ps")

    assert list(home.iterdir()) == []
