"""`node revoke`: expelling is asked for once."""

import io
import sys

import pytest

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode


class Terminal(io.StringIO):
    """Somebody at the keyboard."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@pytest.fixture
def expelling(node: ScriptedNode) -> ScriptedNode:
    """Return a node that expels."""
    node.answers["POST /api/nodes/my%20desk/revoke"] = (200, {"revoked": "d" * 52})
    return node


def test_script_is_not_asked(shell: Shell, expelling: ScriptedNode) -> None:
    """It said what it wants."""
    assert shell("node", "revoke", "my desk", "--reason", "sold", "--port", expelling.port) == 0

    assert expelling.bodies("POST /api/nodes/my%20desk/revoke") == [{"reason": "sold"}]
    assert f"{'d' * 52} is expelled" in shell.err


@pytest.mark.parametrize(("typed", "options", "orders"), [("y\n", [], 1), ("n\n", [], 0), ("", ["--yes"], 1)])
def test_person_is_asked_before(
    shell: Shell, expelling: ScriptedNode, monkeypatch: pytest.MonkeyPatch, typed: str, options: list[str], orders: int
) -> None:
    """There is no way back for that identity."""
    monkeypatch.setattr(sys, "stdin", Terminal(typed))

    code = shell("node", "revoke", "my desk", *options, "--port", expelling.port)

    assert code == (0 if orders else 1)
    assert len(expelling.bodies("POST /api/nodes/my%20desk/revoke")) == orders


def test_refusal_is_told_in_the_node_s_words(shell: Shell, node: ScriptedNode) -> None:
    """A guest cannot expel."""
    node.answers["POST /api/nodes/x/revoke"] = (403, {"error": {"message": "this node is a guest here"}})

    assert shell("node", "revoke", "x", "--port", node.port) == 1
    assert shell.err == "mesh-llm: this node is a guest here\n"
