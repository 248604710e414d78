"""`load`: what the node is asked, what people are told."""

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode


def test_load_waits_unless_told_not_to(shell: Shell, node: ScriptedNode) -> None:
    """`--no-wait` comes back at once."""
    node.answers["POST /v1/models/reload"] = (202, {"model_id": "tiny", "status": "reloading"})

    assert shell("load", "tiny", "--no-wait", "--port", node.port) == 0
    assert node.bodies("POST /v1/models/reload") == [{"model_id": "tiny", "wait": False}]
    assert shell.err == "tiny is loading\n"


def test_failed_load_says_why(shell: Shell, node: ScriptedNode) -> None:
    """The engine's reason, in one line."""
    node.answers["POST /v1/models/reload"] = (
        503, {"model_id": "tiny", "status": "unloaded", "error": "capacity: needs 9.1 GB"},
    )  # fmt: skip

    assert shell("load", "tiny", "--port", node.port) == 1
    assert shell.err == "mesh-llm: capacity: needs 9.1 GB\n"
