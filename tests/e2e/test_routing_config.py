"""How requests are routed, chosen at one real daemon and seen at the others: by HTTP, command line and file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemons import Daemon, Reply, until
from tests.e2e.test_mesh import token_of
from tests.e2e.test_orders import BUSY_S, SEEN_S

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
PATH = "/routing/config"


def change(node: Daemon, **body: object) -> Reply:
    """Ask a node for a change."""
    return node.request("POST", PATH, body)


def until_seen(node: Daemon, **facts: object) -> None:
    """Wait until a node shows this, as soon as it has to."""
    until(lambda: node.get(PATH).items() >= facts.items(), f"{facts}", within_s=SEEN_S + BUSY_S)


@pytest.mark.rows("RTE-13")
def test_a_change_at_one_node_is_seen_at_all_and_outlives_its_author(daemon: Make) -> None:
    """The version tells who was late; a node's own choice stays where it was made, and over a restart."""
    with daemon(models=()) as first:
        second = daemon("--join", token_of(first), models=())
        with second:
            until(lambda: len(first.get("/api/nodes")["nodes"]) == 2, "two nodes")
            assert change(first, strategy="round_robin").status == 200
            until_seen(second, strategy="round_robin", version=1, scope="mesh")

            late = change(second, max_retries=1, version=0)
            assert (late.status, late.error["code"]) == (409, "version_conflict")
            assert change(second, max_retries=1, version=1).json["version"] == 2
            until_seen(first, strategy="round_robin", max_retries=1, version=2)

            own = change(first, strategy="random", scope="node").json
            assert (own["scope"], own["max_retries"], own["version"]) == ("node", 1, 2)
            assert second.get(PATH)["strategy"] == "round_robin"
            assert "routing changed" in first.log
            assert "module=audit" in first.log
    with first:
        until_seen(first, scope="node", strategy="random", version=2)
        assert first.run("routing", "reset").returncode == 0
        assert first.get(PATH)["strategy"] == "round_robin"


def test_the_command_line_shows_and_changes_it(daemon: Make) -> None:
    """With what the node says where it refuses."""
    with daemon() as node:
        done = node.run("routing", "set", "strategy=weighted_random", "weights.tiny=2", "retry_delay_ms=null")
        bad = node.run("routing", "set", "strategy=fastest")

        shown = json.loads(node.run("routing", "--json").stdout)
        assert (done.returncode, bad.returncode) == (0, 1), done.stderr
        assert "round_robin, least_loaded" in bad.stderr
        assert (shown["strategy"], shown["weights"], shown["version"]) == ("weighted_random", {"tiny": 2.0}, 1)


@pytest.mark.rows("CFG-19")
def test_a_file_is_the_nodes_own_choice_and_a_flag_wins(daemon: Make, tmp_path: Path) -> None:
    """And a mistake in it is told with its line before anything opens."""
    file, bad = tmp_path / "node.toml", tmp_path / "bad.toml"
    file.write_text('[routing]\nmax_retries = 1\nunknown_model = "reject"\n')
    bad.write_text('[routing]\nstrategy = "fastest"\n')
    with daemon("--config", str(file), "--unknown-model", "fallback", "--model", "tiny") as node:
        node.until_model("tiny", phase="ready")
        shown = node.get(PATH)
        refused = node.run("config", "check", str(bad))

        assert (shown["scope"], shown["max_retries"], shown["unknown_model"]) == ("node", 1, "fallback")
        assert node.chat("hello", model="nobody-has-it").headers["x-mesh-fallback"] == "unknown_model"
        assert refused.returncode == 2
        assert "bad.toml:2: routing.strategy:" in refused.stderr


def test_what_becomes_of_unknown_names_can_be_changed_while_nodes_run(daemon: Make) -> None:
    """From the next request on."""
    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")
        assert node.chat("hello", model="nobody-has-it").status == 404

        assert change(node, routing_config={"unknown_model": "fallback"}).status == 200

        assert node.chat("hello", model="nobody-has-it").status == 200


@pytest.mark.rows("RTE-18")
def test_plan_and_explain_say_where_a_request_goes(daemon: Make) -> None:
    """The total is what succeeded and what failed."""
    with (
        daemon("--model", "tiny") as first,
        daemon("--model", "tiny", "--join", token_of(first), models=("tiny",)) as second,
    ):
        until(lambda: len(second.get("/api/explain?model=tiny")["candidates"]) == 2, "two candidates")
        assert second.chat("hello").status == 200

        plan = second.run("plan", "tiny")
        assert plan.returncode == 0, plan.stderr
        assert "(this node)" in plan.stdout
        stats = second.get("/routing/stats")
        assert stats["total_routes"] == stats["successful_routes"] + stats["failed_routes"]
        assert stats == second.get("/metrics/routing")
        assert "decisions" in second.get("/metrics/routing?detailed=true")
