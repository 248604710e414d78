"""How models are, over HTTP."""

import re
from dataclasses import replace

import pytest

from meshllm.core.events import InventoryChanged
from tests.api.node import a_node
from tests.core.builders import a_member, a_spec

WHEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.mark.rows("HLT-1", "HLT-5")
async def test_health_of_a_model_is_the_same_document_at_both_paths() -> None:
    """Whole and node by node."""
    async with a_node() as (node, client):
        answers = [await client.get(path) for path in ("/v1/models/tiny/health", "/health/model/TINY")]
        one, other = [await answer.json() for answer in answers]

        me = node.views.newest.me
        checks = {"file_integrity": "ok", "memory": "ok", "response_time_s": None, "error_rate": None}
        assert one == other
        assert WHEN.fullmatch(one.pop("last_check"))
        assert WHEN.fullmatch(one["nodes"][0].pop("last_check"))
        assert one == {
            "model_id": "tiny", "health_status": "healthy", "status": "loaded", "checks": checks,
            "nodes": [{
                "node_id": me.node, "name": "a", "status": "loaded", "digest": "sha256:tiny", "slots": 4,
                "context_length": 8192, "health_status": "healthy", "measured_by": me.node, "checks": checks,
            }],
        }  # fmt: skip
        assert (await client.get("/health/model/nothing")).status == 404
        assert not node.intents


async def test_a_check_looks_now_and_answers_for_one_model_or_all() -> None:
    """Without a body: all. Of an unknown model: 404."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("tiny",)) as (_, client):
        one = await (await client.post("/health/check", json={"model_id": "tiny"})).json()
        all_bodies = [await client.post("/health/check"), await client.post("/health/check", json={})]
        unknown = await client.post("/health/check", json={"model_id": "nothing"})

        assert [result["model_id"] for result in one["results"]] == ["tiny"]
        assert one["duration_ms"] >= 0
        for answer in all_bodies:
            assert [result["model_id"] for result in (await answer.json())["results"]] == ["other", "tiny"]
        assert unknown.status == 404
        assert (await client.post("/health/check", data=b"{")).status == 400


@pytest.mark.rows("HLT-3", "HLT-5")
async def test_a_broken_model_is_unhealthy_with_the_reason_and_the_node_degraded() -> None:
    """`/health` tells that somebody should look."""
    async with a_node() as (node, client):
        node.tell(InventoryChanged(models=(replace(a_spec("tiny"), damage="its content changed"),)))

        document = await (await client.get("/health/model/tiny")).json()
        overall = await client.get("/health")

        assert (document["health_status"], document["status"]) == ("unhealthy", "loaded")
        assert document["checks"]["file_integrity"] == "failed"
        assert document["nodes"][0]["reason"] == "its content changed"
        assert (overall.status, (await overall.json())["status"]) == (200, "degraded")


@pytest.mark.rows("HLT-5")
async def test_other_nodes_health_is_what_they_say_of_themselves() -> None:
    """With who measured it, and no numbers that this node does not have."""
    async with a_node() as (node, client):
        node.meet(a_member("b", models=("tiny",)))

        document = await (await client.get("/v1/models/tiny/health")).json()

        _, there = document["nodes"]
        assert (there["name"], there["health_status"], there["reason"]) == ("b", "healthy", "as the node itself says")
        assert there["measured_by"] == there["node_id"]
        assert there["checks"]["response_time_s"] is None
