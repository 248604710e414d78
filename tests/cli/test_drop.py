"""`drop`: what the node is asked, what people are told."""

import pytest

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode


@pytest.mark.rows("CLI-17")
def test_drop_asks_and_tells(shell: Shell, node: ScriptedNode) -> None:
    """CLI-17."""
    node.answers["POST /mesh/drop"] = (200, {"dropped": "tiny-Q4"})

    assert shell("drop", "tiny", "--keep-running", "--port", node.port) == 0
    assert node.bodies("POST /mesh/drop") == [{"model": "tiny", "keep_running": True, "force": False}]
    assert (shell.out, shell.err) == ("", "dropped tiny-Q4\n")


def test_drop_of_nothing_fails(shell: Shell, node: ScriptedNode) -> None:
    """A script has to notice."""
    node.answers["POST /mesh/drop"] = (404, {"error": {"message": "this node does not serve tiny"}})

    assert shell("drop", "tiny", "--port", node.port) == 1
    assert shell.err == "mesh-llm: this node does not serve tiny\n"


def test_drop_everywhere_is_said(shell: Shell, node: ScriptedNode) -> None:
    """It is for all nodes."""
    node.answers["POST /mesh/drop"] = (200, {"dropped": "tiny"})

    assert shell("drop", "tiny", "--everywhere", "--port", node.port) == 0
    assert node.bodies("POST /mesh/drop") == [
        {"model": "tiny", "keep_running": False, "force": False, "everywhere": True}
    ]
