"""`nodes`: who is in the mesh."""

import json

import pytest

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode, document


def nodes(name: str) -> tuple[int, object]:
    """Return what a node answers."""
    status = document(name)
    return 200, {"mesh": status["mesh"], "nodes": status["members"]}


def alone(rights: list[str] | None) -> tuple[int, object]:
    """Return what a node without others answers, which has some rights in its mesh."""
    return 200, {"mesh": {"id": "m" * 52, "name": "", "rights": rights}, "nodes": document("serving")["members"]}


def test_nodes_are_a_table_and_the_mesh_a_line(shell: Shell, node: ScriptedNode) -> None:
    """The line is for people and goes beside the data."""
    node.answers["GET /api/nodes"] = nodes("in_a_mesh")

    assert shell("nodes", "--port", node.port) == 0
    assert [line.split()[0] for line in shell.out.splitlines()] == ["NODE", "a", "desk", "phone", "shed", "attic"]
    assert "mesh home (mmmmmmmm): 3 nodes, 2 not reached, founded here; * is this node" in shell.err
    assert "token" not in shell.err


def test_node_alone_is_told_how_others_join(shell: Shell, node: ScriptedNode) -> None:
    """The next thing that somebody wants."""
    node.answers["GET /api/nodes"] = alone(["infer", "host", "admin"])

    assert shell("nodes", "--port", node.port) == 0
    assert "`mesh-llm token` prints the command" in shell.err


@pytest.mark.parametrize("rights", [[], ["infer", "host"], None])
def test_node_that_may_not_admit_is_not_told_to_invite(
    shell: Shell, node: ScriptedNode, rights: list[str] | None
) -> None:
    """Its token would be refused."""
    node.answers["GET /api/nodes"] = alone(rights)

    assert shell("nodes", "--port", node.port) == 0
    assert "mesh-llm token" not in shell.err


def test_json_of_nodes_is_the_command_s_own_type(shell: Shell, node: ScriptedNode) -> None:
    """It stays when the API grows."""
    node.answers["GET /api/nodes"] = nodes("in_a_mesh")

    shell("nodes", "--json", "--port", node.port)

    assert [(row["name"], row["models"]) for row in json.loads(shell.out)][:2] == [("a", ["tiny"]), ("desk", ["big"])]
