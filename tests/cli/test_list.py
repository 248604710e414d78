"""`list`: the models on disk, with a node and without one."""

import json

import pytest

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode, document


def test_json_is_all_that_is_on_standard_output(shell: Shell, node: ScriptedNode) -> None:
    """Programs read it without cleaning."""
    assert shell("ls", "--json", "--port", node.port) == 0
    assert json.loads(shell.out)


@pytest.mark.usefixtures("disk")
def test_list_works_without_a_node(shell: Shell) -> None:
    """The disk is there all the same."""
    assert shell("list") == 0
    assert "alone-Q4" in shell.out
    assert shell.err == "warning: /models/bad.gguf: ends too early\n"


def test_empty_disk_has_a_hint(shell: Shell) -> None:
    """What to do next."""
    assert shell("list") == 0
    assert "mesh-llm pull" in shell.err


def test_list_shows_what_else_a_model_is_called(shell: Shell, node: ScriptedNode) -> None:
    """Aliases, and the versions under which it is registered."""
    status = document("serving")
    models = status["models"]
    assert isinstance(models, list)
    models[0] |= {"aliases": ["nick"], "versions": ["foo@1.1.0"]}
    node.answers["GET /api/status"] = (200, status)

    assert shell("list", "--port", node.port) == 0
    assert "nick, foo@1.1.0" in shell.out
