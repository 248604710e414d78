"""`status`: the node in one look."""

import json

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode, document


def test_status_shows_node_machine_engine_and_models(shell: Shell, node: ScriptedNode) -> None:
    """One look."""
    assert shell("status", "--port", node.port) == 0

    for words in ("version 0.1.0", "http://127.0.0.1:9337", "21.5 GB of 25.8 GB free", "fake 1 on the GPU", "dropped"):
        assert words in shell.out


def test_status_tells_what_is_wrong(shell: Shell, node: ScriptedNode) -> None:
    """In the table and as warnings."""
    node.answers["GET /api/status"] = (200, document("troubled"))

    assert shell("status", "--port", node.port) == 0
    assert "it is broken" in shell.out
    assert "warning: nope: nobody knows it" in shell.err
    assert "warning: /models/x.gguf: ends too early" in shell.err


def test_json_of_status_is_the_document(shell: Shell, node: ScriptedNode) -> None:
    """The one that is documented."""
    shell("status", "--json", "--port", node.port)

    assert json.loads(shell.out) == document("serving")


def test_members_of_the_mesh_are_shown_with_what_is_wrong(shell: Shell, node: ScriptedNode) -> None:
    """A node alone has no such table."""
    assert shell("status", "--port", node.port) == 0
    assert "NODE" not in shell.out
    node.answers["GET /api/status"] = (200, document("in_a_mesh"))

    assert shell("status", "--port", node.port) == 0
    assert "mesh           home (mmmmmmmm): 3 nodes, 2 not reached, founded here" in shell.out
    assert "2.1 ms" in shell.out
    assert "told of by desk" in shell.out
    assert "no answer for 12 s" in shell.out


def test_adopted_servers_are_shown_with_what_is_wrong(shell: Shell, node: ScriptedNode) -> None:
    """In one line each."""
    servers = [
        {"name": "box", "url": "http://h:1", "is_up": True, "models": 3, "left_out": 2, "message": ""},
        {"name": "gone", "url": "", "is_up": False, "models": 0, "left_out": 0, "message": "nobody is there"},
    ]
    node.answers["GET /api/status"] = (200, document("serving") | {"servers": servers})

    assert shell("status", "--port", node.port) == 0
    assert "box at http://h:1: 3 models, 2 more are not served" in shell.out
    assert "gone at no place: nobody is there" in shell.out
