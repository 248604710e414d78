"""`routing`: what the node is asked, what people are told."""

import json

import pytest

from meshllm.core.routing_config import RoutingRegister
from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode

PATH = "/routing/config"


def test_routing_shows_every_key_and_who_chose(shell: Shell, node: ScriptedNode) -> None:
    """On stdout: it is data."""
    node.answers[f"GET {PATH}"] = (200, RoutingRegister().shown())

    assert shell("routing", "--port", node.port) == 0
    alone = shell.out
    assert shell("routing", "show", "--port", node.port) == 0
    assert shell.out == alone
    assert "strategy                   cache_aware\n" in alone
    assert alone.endswith("chosen                     by nobody: these are the defaults\n")


def test_routing_as_json_is_the_nodes_document(shell: Shell, node: ScriptedNode) -> None:
    """For programs."""
    node.answers[f"GET {PATH}"] = (200, RoutingRegister().shown())

    assert shell("routing", "--json", "--port", node.port) == 0

    assert json.loads(shell.out) == RoutingRegister().shown()


def test_set_sends_what_was_said_and_no_more(shell: Shell, node: ScriptedNode) -> None:
    """Values are JSON where they can be; a part of a table leaves the rest of it."""
    node.answers[f"POST {PATH}"] = (200, {"scope": "mesh", "version": 3})

    assert shell(
        "routing", "set", "strategy=round_robin", "max_retries=2", "ab_test_model_a=null", "weights.Qwen2.5-7B=1.5",
        "weights.b=null", "--scope", "mesh", "--port", node.port,
    ) == 0  # fmt: skip

    assert node.bodies(f"POST {PATH}") == [{
        "strategy": "round_robin", "max_retries": 2, "ab_test_model_a": None, "scope": "mesh",
        "weights": {"Qwen2.5-7B": 1.5, "b": None},
    }]  # fmt: skip
    assert shell.err == "done: for the mesh, version 3\n"


def test_set_as_json_prints_the_whole(shell: Shell, node: ScriptedNode) -> None:
    """As the node answers."""
    node.answers[f"POST {PATH}"] = (200, {"scope": "node", "version": 3})

    assert shell("routing", "set", "strategy=random", "--json", "--port", node.port) == 0

    assert json.loads(shell.out) == {"scope": "node", "version": 3}


def test_reset_ends_the_nodes_own_choice(shell: Shell, node: ScriptedNode) -> None:
    """Nothing is chosen for the mesh by it."""
    node.answers[f"POST {PATH}"] = (200, {"scope": "mesh", "version": 0})

    assert shell("routing", "reset", "--port", node.port) == 0

    assert node.bodies(f"POST {PATH}") == [{"scope": "mesh"}]
    assert shell.err == "done: by nobody: these are the defaults\n"


@pytest.mark.parametrize("words", [("strategy",), ("=random",), ("weights=3", "weights.a=1")])
def test_what_is_no_change_is_refused_before_anything_is_asked(
    shell: Shell, node: ScriptedNode, words: tuple[str, ...]
) -> None:
    """With exit code 2."""
    assert shell("routing", "set", *words, "--port", node.port) == 2
    assert node.asked == []


def test_what_the_node_refuses_is_said(shell: Shell, node: ScriptedNode) -> None:
    """In its own words."""
    node.answers[f"POST {PATH}"] = (400, {"error": {"message": "there is no key 'x'"}})

    assert shell("routing", "set", "x=1", "--port", node.port) == 1
    assert "there is no key 'x'" in shell.err


def test_stats_are_numbers_by_name(shell: Shell, node: ScriptedNode) -> None:
    """Or the node's document."""
    node.answers["GET /routing/stats"] = (200, {"total_routes": 7, "per_strategy": {"random": 7}})

    assert shell("routing", "stats", "--port", node.port) == 0
    assert shell.out == "total routes  7\nby random     7\n"
    assert shell("routing", "stats", "--json", "--port", node.port) == 0
    assert '"total_routes": 7' in shell.out


def test_an_option_before_a_subcommand_has_no_meaning(shell: Shell, node: ScriptedNode) -> None:
    """It would be lost in silence."""
    assert shell("routing", "--json", "stats", "--port", node.port) == 2
