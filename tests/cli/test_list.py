"""`list`: the models on disk, with a node and without one."""

import json

import pytest

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode


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
