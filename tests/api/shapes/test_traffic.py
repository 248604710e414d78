"""What is said of routing, quotas and caches is what the reference says, key by key."""

import pytest

from meshllm.core.ids import ModelId
from meshllm.core.routing.explain import Amount, Decision
from meshllm.core.routing_config import Strategy
from tests.api.described import asked
from tests.api.node import FakeNode, a_node


def routed(node: FakeNode) -> None:
    """Let a request have gone somewhere."""
    strategy = Strategy.CACHE_AWARE
    decision = Decision(
        request_id="r1", model=ModelId("tiny"), at_s=1.0, strategy=strategy, reason=strategy, ratings=()
    )
    kept = node.routes.decisions.add(decision, 1e-5)
    kept.went, kept.is_ok, kept.first_byte_s = "a", True, 0.1
    kept.sent("a", 0.01)
    kept.amount = Amount(prompt_tokens=3, cached_tokens=1, made_tokens=2, wrote_s=0.5)
    node.routes.stats.decided(strategy, 1e-5)
    node.routes.stats.compared(0, is_spilled=False)
    node.routes.stats.ended("tiny", "a", is_ok=True)


@pytest.mark.parametrize("path", ["/routing/stats", "/metrics/routing", "/routing/stats?detailed=true"])
async def test_routing_figures_are_described(path: str) -> None:
    """In short and in detail."""
    async with a_node() as (node, client):
        routed(node)

        document = await asked(client, "GET", path)

        assert document["total_routes"] == document["ab"]["a"] == 1
        assert ("decisions" in document) == ("detailed" in path)


async def test_the_way_that_a_request_takes_is_described() -> None:
    """By model, by request, and the newest of all."""
    async with a_node() as (node, client):
        routed(node)

        would_go = await asked(client, "GET", "/api/explain?model=tiny&tokens=5")
        went = await asked(client, "GET", "/api/explain?request=r1")
        newest = await asked(client, "GET", "/api/explain")

        assert would_go["candidates"][0]["candidate"] == would_go["picked"]
        assert went["decisions"] == newest["decisions"] == would_go["decisions"]


async def test_what_is_shown_of_routing_can_be_sent_back_as_a_change() -> None:
    """Every key of the document, by the types of its change."""
    change = {
        "strategy": "round_robin", "ab_test_enabled": True, "ab_test_model_a": "tiny", "ab_test_model_b": "other",
        "weights": {"tiny": 2.0}, "shadow": [{"of": "tiny", "to": "other", "sample": 0.5}], "max_retries": None,
        "rollout": {"of": "tiny", "to": "other", "steps": [[0.1, 60], [1.0]]},
    }  # fmt: skip
    async with a_node() as (_, client):
        changed = await asked(client, "POST", "/routing/config", change)
        shown = await asked(client, "GET", "/routing/config")
        again = await asked(client, "POST", "/routing/config", shown)

        assert changed["strategy"] == again["strategy"] == "round_robin"
        assert again["version"] > shown["version"]


async def test_quotas_and_their_reports_are_described() -> None:
    """Set at the top or below `quotas`, shown, reported of one and of all."""
    async with a_node() as (_, client):
        await asked(client, "POST", "/quotas/tiny", {"hourly_token_limit": 100, "max_requests_per_second": 2.5})
        shown = await asked(client, "POST", "/quotas/tiny", {"quotas": {**NOTHING, "daily_request_limit": 9}})
        report = await asked(client, "GET", "/quotas/tiny/report")
        reports = await asked(client, "GET", "/metrics/quotas")
        in_detail = await asked(client, "GET", "/metrics/quotas?detailed=true")

        assert shown == await asked(client, "GET", "/quotas/tiny")
        assert report["windows"]["daily_requests"]["limit"] == 9
        assert in_detail["per_model"]["tiny"].keys() > reports["per_model"]["tiny"].keys()


NOTHING = {
    "max_ram_mb": 0, "max_ssd_gb": 0, "hourly_token_limit": 0, "hourly_request_limit": 0, "daily_token_limit": 0,
    "daily_request_limit": 0, "burst_token_limit": 0, "max_concurrent_requests": 0,
}  # fmt: skip


async def test_caches_are_described() -> None:
    """Shared out, changed, counted."""
    async with a_node() as (_, client):
        shown = await asked(client, "GET", "/cache/allocation")
        changed = await asked(
            client, "POST", "/cache/allocation", {"global_cache_size_gb": 1.5, "model_priorities": {"tiny": 8}}
        )
        said = {key: value for key, value in changed.items() if key != "model_priorities"}  # `models` says them, too
        again = await asked(client, "POST", "/cache/allocation", said)
        for path in ("/cache/stats", "/metrics/cache", "/cache/stats?detailed=true"):
            assert "tiny" in (await asked(client, "GET", path))["per_model"]

        assert shown["models"]["tiny"]["priority"] == 5
        assert again["models"]["tiny"]["priority"] == 8
