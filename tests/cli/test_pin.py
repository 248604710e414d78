"""`pin`: what the node is asked, what people are told."""

import pytest

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode


@pytest.mark.parametrize(
    ("options", "asked", "told"),
    [
        ((), {"pinned": True}, "tiny is pinned\n"),
        (("--off",), {"pinned": False}, "tiny is not pinned\n"),
        (("--node", "studio"), {"pinned": True, "scope": "studio"}, "tiny is pinned at studio\n"),
        (("--off", "--node", "studio"), {"pinned": False, "scope": "studio"}, "tiny is not pinned at studio\n"),
    ],
)
def test_pin_asks_and_tells(
    shell: Shell, node: ScriptedNode, options: tuple[str, ...], asked: dict[str, object], told: str
) -> None:
    """Here or at a node by its name, on or off; people read it apart from data."""
    node.answers["POST /v1/models/pin"] = (200, {"model_id": "tiny", "pinned": asked["pinned"]})

    assert shell("pin", "tiny", *options, "--port", node.port) == 0
    assert node.bodies("POST /v1/models/pin") == [{"model_id": "tiny", **asked}]
    assert (shell.out, shell.err) == ("", told)


@pytest.mark.parametrize(
    ("code", "why"),
    [(404, "this node has no model 'tiny'"), (400, "no node of the mesh is called 'studio'"), (403, "not allowed")],
)
def test_a_refused_pin_fails_in_the_nodes_words(shell: Shell, node: ScriptedNode, code: int, why: str) -> None:
    """A script has to notice."""
    node.answers["POST /v1/models/pin"] = (code, {"error": {"message": why}})

    assert shell("pin", "tiny", "--node", "studio", "--port", node.port) == 1
    assert (shell.out, shell.err) == ("", f"mesh-llm: {why}\n")
