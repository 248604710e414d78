"""`unload`: what the node is asked, what people are told."""

import pytest

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode


@pytest.mark.parametrize("name", ["unload", "stop"])
def test_unload_asks_and_tells(shell: Shell, node: ScriptedNode, name: str) -> None:
    """Under the name that people know from elsewhere, too."""
    node.answers["POST /v1/models/unload"] = (200, {"model_id": "tiny", "status": "unloaded"})

    assert shell(name, "tiny", "--hold", "--port", node.port) == 0
    assert node.bodies("POST /v1/models/unload") == [{"model_id": "tiny", "hold": True, "force": False}]


@pytest.mark.parametrize("command", ["load", "unload"])
def test_an_order_says_for_whom_it_is(shell: Shell, node: ScriptedNode, command: str) -> None:
    """By scope or by node; both at once make sense only when they agree."""
    path = f"POST /v1/models/{'reload' if command == 'load' else 'unload'}"
    node.answers[path] = (200, {"model_id": "tiny", "status": "unloaded"})

    assert shell(command, "tiny", "--scope", "mesh", "--port", node.port) == 0
    assert shell(command, "tiny", "--node", "studio", "--port", node.port) == 0
    assert shell(command, "tiny", "--node", "studio", "--scope", "mesh", "--port", node.port) == 1

    assert [body["scope"] for body in node.bodies(path)] == ["mesh", "studio"]  # type: ignore[index]
    assert shell.err.endswith("mesh-llm: either --scope or --node\n")
