"""`show`: one model."""

import json

import pytest

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode


@pytest.mark.usefixtures("disk")
def test_show_has_the_facts_and_the_arithmetic(shell: Shell) -> None:
    """By a part of the name, as everywhere."""
    assert shell("show", "ALONE") == 0

    for words in ("alone-Q4", "sha256:alone-Q4", "memory: fits", "memory: weights", "memory: KV cache"):
        assert words in shell.out


@pytest.mark.usefixtures("disk")
def test_show_of_nothing_fails_with_what_is_near(shell: Shell) -> None:
    """No guess."""
    assert shell("show", "alon") == 1
    assert "did you mean alone-Q4?" in shell.err


@pytest.mark.usefixtures("disk")
def test_json_has_what_the_node_knows_too(shell: Shell, node: ScriptedNode) -> None:
    """The state is the node's, the arithmetic this machine's."""
    assert shell("show", "tiny", "--json", "--port", node.port) == 0

    shown = json.loads(shell.out)
    assert shown["model"]["phase"] == "ready"
    assert shown["memory"]["fits"] == "yes"
    assert shown["files"] == ["/models/tiny.gguf"]
