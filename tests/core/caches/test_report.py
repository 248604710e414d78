"""What people are told of prompt caches: documents and hints."""

from dataclasses import replace

import pytest

from meshllm.core.cache_limits import CACHE_EVICTIONS_PER_HOUR, CACHE_JUDGED_TOKENS
from meshllm.core.cache_use import CacheReading, CacheUse, SlotUse
from meshllm.core.caches.report import allocation, hints, stats
from meshllm.core.events import CacheMeasured
from meshllm.core.ids import ModelId
from meshllm.core.limits import MIB
from meshllm.core.routing_config import DEFAULT, Strategy
from tests.core.caches.cached import WHOLE, CachedNode, some

A = ModelId("a")


def used(hit: int, miss: int, size_mb: int = 0) -> CacheUse:
    """Return what an engine's counters make."""
    return CacheUse(model=A).read(CacheReading(hit_tokens=hit, miss_tokens=miss, size_bytes=size_mb * MIB))


@pytest.mark.rows("CAC-11", "OPS-4")
def test_a_low_hit_rate_says_what_would_help() -> None:
    """By what was measured: the strategy, a full cache, or prompts that have nothing in common."""
    full = hints(used(10, 990, size_mb=90), replace(DEFAULT, strategy=Strategy.ROUND_ROBIN), 100 * MIB)
    roomy = hints(used(10, 990, size_mb=10), DEFAULT, 100 * MIB)

    assert full[0] == "only 1% of 1000 prompt tokens were found cached"
    assert any("cache_aware" in hint for hint in full)
    assert any("its cache is full (90 of 100 MB)" in hint for hint in full)
    assert not any("cache_aware" in hint for hint in roomy)
    assert any("hardly begin alike" in hint for hint in roomy)
    assert any("X-Session-ID" in hint for hint in roomy)


@pytest.mark.parametrize(
    "use", [used(300, 700), used(0, CACHE_JUDGED_TOKENS - 1), CacheUse(model=A).read(CacheReading(miss_tokens=9999))]
)
def test_there_is_no_hint_where_nothing_is_wrong_or_known(use: CacheUse) -> None:
    """Thirty percent is enough; a few tokens, or an engine that does not count, say nothing."""
    assert hints(use, DEFAULT, MIB) == []


@pytest.mark.rows("CAC-5")
def test_rates_are_of_tokens_of_each_model_and_of_all() -> None:
    """A model that was never asked has none."""
    node = CachedNode(*some("a", "b", "c"))
    node.run("a", "b", "c")
    node.fill("a", 10, hit_tokens=900, miss_tokens=100)
    node.fill("b", 20, hit_tokens=0, miss_tokens=1000)

    found = stats(node.core.view, DEFAULT)
    models: dict[str, dict[str, object]] = found["per_model"]  # type: ignore[assignment]

    assert found["global"] == {
        "hit_rate": 0.45, "hit_tokens": 900, "prompt_tokens": 2000, "evictions": 0, "size_bytes": 30 * MIB
    }  # fmt: skip
    assert {name: one["hit_rate"] for name, one in models.items()} == {"a": 0.9, "b": 0.0, "c": None}
    assert [name for name, one in models.items() if one["hints"]] == ["b"]
    assert all(str(hint).startswith("b: ") for hint in found["hints"])  # type: ignore[attr-defined]
    assert "nodes" not in models["a"]


@pytest.mark.rows("CAC-6")
def test_details_are_by_host_and_slot() -> None:
    """Hits, misses and evictions."""
    node = CachedNode(*some("a"))
    node.run("a")
    slot = SlotUse(slot=1, kept_tokens=7, hit_tokens=5, miss_tokens=3)
    reading = CacheReading(hit_tokens=5, miss_tokens=3, size_bytes=MIB, slots=(slot,))
    node.tell(CacheMeasured(model=A, reading=reading))

    found = stats(node.core.view, DEFAULT, is_detailed=True)
    (host,) = found["per_model"]["a"]["nodes"]  # type: ignore[index]

    assert (host["node_id"], host["hit_tokens"], host["miss_tokens"], host["evictions"]) == ("a" * 52, 5, 3, 0)
    assert host["slots"] == [{"slot": 1, "kept_tokens": 7, "hit_tokens": 5, "miss_tokens": 3}]
    assert host["limit_bytes"] == 1024 * MIB


def test_many_evictions_are_worth_a_hint() -> None:
    """Of the node, not of a model."""
    node = CachedNode(*some("a"))
    view = node.core.view

    few, many = (
        stats(replace(view, caches=replace(view.caches, evictions_lately=count)), DEFAULT)["hints"]
        for count in (CACHE_EVICTIONS_PER_HOUR, CACHE_EVICTIONS_PER_HOUR + 1)
    )

    assert few == []
    assert "7 caches were emptied" in many[0]  # type: ignore[index]


@pytest.mark.rows("CAC-4")
def test_an_allocation_shows_shares_limits_and_use() -> None:
    """Without a whole, what the engines took is what they have."""
    node = CachedNode(*some("a", "b"), caches=replace(WHOLE, model_priorities=(("a", 9),)))
    node.run("a", "b")
    node.fill("a", 12)
    alone = CachedNode(*some("a"), caches=None)

    found, undivided = allocation(node.core.view), allocation(alone.core.view)

    assert found["models"] == {
        "a": {"allocated_mb": 512, "limit_mb": 512, "used_mb": 12, "priority": 9, "disk_mb": 0},
        "b": {"allocated_mb": 512, "limit_mb": 512, "used_mb": 0, "priority": 5, "disk_mb": 0},
    }
    assert found["nodes"] == [{"node_id": "a" * 52, "allocated_mb": 1024, "used_mb": 12}]
    assert (found["is_dividing"], found["global_cache_size_gb"], found["allocation_strategy"]) == (
        True,
        1,
        "fair_share",
    )
    one: dict[str, int] = undivided["models"]["a"]  # type: ignore[index]
    assert undivided["is_dividing"] is False
    assert one["allocated_mb"] == one["limit_mb"] > 0
