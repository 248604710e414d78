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


def details(name: str = "tiny") -> dict[str, object]:
    """Return the node's document of a model that is on none of this command's folders."""
    model = {"id": name, "phase": "ready", "size_bytes": 10**8, "architecture": "llama", "aliases": ["t"]}
    return {"model": model, "files": [f"/elsewhere/{name}.gguf"], "memory": {"fits": "yes", "total": "1 GB"}}


def test_a_pinned_model_says_so_and_no_other(shell: Shell, node: ScriptedNode) -> None:
    """What `pin` did can be seen."""
    kept = details("kept")
    kept["model"]["pinned"] = True  # type: ignore[index]
    node.answers |= {"GET /api/models/kept": (200, kept), "GET /api/models/tiny": (200, details())}

    assert shell("show", "kept", "--port", node.port) == 0
    assert "stays in memory once it is there" in shell.out
    assert shell("show", "tiny", "--port", node.port) == 0
    assert "stays in memory" not in shell.out


def test_model_of_a_running_node_is_shown_wherever_its_folders_are(shell: Shell, node: ScriptedNode) -> None:
    """The node may have been started with other folders than this command knows."""
    node.answers["GET /api/models/tiny"] = (200, details())

    assert shell("show", "tiny", "--port", node.port) == 0
    for words in ("ready", "/elsewhere/tiny.gguf", "llama", "memory: fits", "1 GB"):
        assert words in shell.out


@pytest.mark.usefixtures("disk")
def test_running_node_is_believed_over_the_disk(shell: Shell, node: ScriptedNode) -> None:
    """As for `list`: what the node doesn't have is not there, with the node's own words."""
    node.answers["GET /api/models/alone-Q4"] = (404, {"error": {"message": "this node has no model"}})

    assert shell("show", "alone-Q4", "--port", node.port) == 1
    assert "this node has no model" in shell.err


def test_name_with_a_slash_reaches_the_node_whole(shell: Shell, node: ScriptedNode) -> None:
    """Hub names have one."""
    node.answers["GET /api/models/u%2Fr"] = (200, details("r"))

    assert shell("show", "u/r", "--json", "--port", node.port) == 0
    shown = json.loads(shell.out)
    assert (shown["model"]["id"], shown["model"]["phase"]) == ("r", "ready")
    assert shown["files"] == ["/elsewhere/r.gguf"]
    assert shown["memory"]["fits"] == "yes"


@pytest.mark.rows("LST-8")
def test_model_of_other_nodes_is_shown_with_its_nodes_versions_and_health(shell: Shell, node: ScriptedNode) -> None:
    """Also by a client, which has none itself."""
    away = {"id": "far", "phase": "ready", "size_bytes": 10**8, "architecture": "llama", "aliases": []}
    node.answers["GET /api/models/far"] = (200, {
        "model": away, "files": [], "memory": {}, "health_status": "degraded",
        "nodes": [{"name": "attic", "status": "loaded", "health_status": "degraded", "slots": 4}],
        "versions": [{"version": "1.1.0", "digest": "sha256:0123456789abcdef", "aliases": ["stable"]}],
    })  # fmt: skip

    assert shell("show", "far", "--port", node.port) == 0

    for words in ("on other nodes", "node attic", "loaded, degraded, 4 slots", "version 1.1.0", "0123456789ab, stable"):
        assert words in shell.out
    assert shell("show", "far", "--json", "--port", node.port) == 0
    assert json.loads(shell.out)["nodes"][0]["name"] == "attic"
