"""`ps`: the models in memory."""

import json

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode, document


def test_ps_shows_what_is_in_memory(shell: Shell, node: ScriptedNode) -> None:
    """Columns without a terminal are plain."""
    assert shell("ps", "--port", node.port) == 0

    head, row, *rest = shell.out.splitlines()
    assert head.split() == ["NAME", "STATE", "MEMORY", "PROCESSOR", "CONTEXT", "SLOTS", "IN", "FLIGHT", "UP"]
    assert row.split()[:2] == ["tiny", "ready"]
    assert "GPU" in row
    assert not rest


def test_json_of_ps_has_its_own_stable_type(shell: Shell, node: ScriptedNode) -> None:
    """It does not change when the status document grows."""
    grown = document("serving")
    grown["models"][0]["something_new"] = 1  # type: ignore[index]
    node.answers["GET /api/status"] = (200, grown)

    assert shell("ps", "--json", "--port", node.port) == 0
    (row,) = json.loads(shell.out)
    assert set(row) == {
        "id", "phase", "size_bytes", "quantization", "parameters", "architecture", "train_context_tokens",
        "capabilities", "digest", "aliases", "context_tokens", "slots", "memory_bytes", "requests", "in_flight", "pid",
        "ready_for_s", "progress", "message", "versions", "health", "pinned",
    }  # fmt: skip
