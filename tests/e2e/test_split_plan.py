"""What real daemons say of a model that fits on none of them, and cannot be split."""

from collections.abc import Callable

import pytest

from tests.e2e.daemons import Daemon, until
from tests.e2e.test_mesh import token_of
from tests.e2e.test_orders import BUSY_S, SEEN_S

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
TOO_LITTLE = ("--max-vram", "60MB")
"""A generated model takes 79 MB with its overhead."""


def lacks(node: Daemon) -> dict[str, str]:
    """Return what keeps each node out of a split of `tiny`, as one of them says; empty where it says nothing."""
    split = node.get("/api/explain?model=tiny")["split"] or {"nodes": []}
    return {one["node"]: one["lack"] for one in split["nodes"]}


def test_every_node_says_why_no_split_is_possible_and_none_is_tried(daemon: Make) -> None:
    """One engine cannot share, one node lends nothing; a request is told that there is no room, as ever."""
    with (
        daemon("--name", "studio", *TOO_LITTLE, "--no-mdns") as first,
        daemon("--name", "attic", *TOO_LITTLE, "--no-rpc", "--join", token_of(first), "--no-mdns") as second,
    ):
        expected = {"studio": "no_rpc", "attic": "no_right"}
        nodes = (first, second)
        until(lambda: all(lacks(node) == expected for node in nodes), "the reasons", within_s=SEEN_S + BUSY_S)

        plan = second.run("plan", "tiny")
        assert plan.returncode == 0, plan.stderr
        assert "no split: " in plan.stdout
        assert "mesh-llm token --rights infer,host,rpc" in plan.stdout
        assert first.chat("hello", model="tiny").status == 503
