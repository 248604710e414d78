"""`default`: what the node is asked, what people are told."""

import json

import pytest

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode

PATH = "/v1/models/default"


def test_default_without_a_model_shows_it(shell: Shell, node: ScriptedNode) -> None:
    """On stdout: it is data."""
    node.answers[f"GET {PATH}"] = (200, {"id": "default", "default_model_id": "tiny"})

    assert shell("default", "--port", node.port) == 0
    assert shell.out == "tiny\n"
    assert shell("default", "--json", "--port", node.port) == 0
    assert json.loads(shell.out.removeprefix("tiny\n"))["default_model_id"] == "tiny"


def test_no_default_is_said(shell: Shell, node: ScriptedNode) -> None:
    """Not an empty line."""
    node.answers[f"GET {PATH}"] = (200, {"id": "default", "default_model_id": None})

    assert shell("default", "--port", node.port) == 0
    assert shell.out == "there is no default model\n"


@pytest.mark.rows("ADR-10")
def test_default_chooses(shell: Shell, node: ScriptedNode) -> None:
    """For the mesh, a node, or nobody any more."""
    node.answers[f"POST {PATH}"] = (200, {"default_model_id": "tiny", "previous": None, "scope": "mesh"})

    assert shell("default", "tiny", "--port", node.port) == 0
    assert shell("default", "tiny", "--node", "studio", "--port", node.port) == 0
    assert shell("default", "--clear", "--port", node.port) == 0

    assert node.bodies(f"POST {PATH}") == [
        {"model_id": "tiny"}, {"model_id": "tiny", "scope": "studio"}, {"model_id": None, "scope": "node"},
    ]  # fmt: skip
    assert shell.err == "the default is tiny\n"


def test_a_model_and_clear_are_too_much(shell: Shell, node: ScriptedNode) -> None:
    """Nothing is asked."""
    assert shell("default", "tiny", "--clear", "--port", node.port) == 1
    assert node.bodies(f"POST {PATH}") == []
