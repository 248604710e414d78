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
