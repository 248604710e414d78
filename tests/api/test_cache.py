"""Prompt caches over HTTP: shares shown and changed, statistics, series."""

import pytest

from meshllm.core.cache_use import CacheReading
from meshllm.core.events import CacheMeasured
from meshllm.core.ids import ModelId
from tests.api.node import a_node
from tests.api.test_lifecycle import post
from tests.api.test_routing import got

TINY = ModelId("tiny")
PATH = "/cache/allocation"
READING = CacheReading(hit_tokens=170, miss_tokens=830, size_bytes=4096)


@pytest.mark.rows("CAC-4")
async def test_the_division_is_shown_and_changed_key_by_key() -> None:
    """A change answers with the whole; the keys may lie below a wrapper, and models may be said by themselves."""
    async with a_node(requested=("tiny",)) as (_, client):
        status, before = await got(client, PATH)
        changed = await post(client, PATH, global_cache_size_gb=1, allocation_strategy="dynamic")
        wrapped = await post(client, PATH, cache_config={"global_eviction_policy": "least_recently_used_model"})
        fixed = await post(client, PATH, models={"TINY": {"allocated_mb": 128, "priority": 7}})

        assert (status, before["is_dividing"], before["allocation_strategy"]) == (200, False, "fair_share")
        assert (changed[0], changed[1]["allocation_strategy"]) == (200, "dynamic")
        assert changed[1]["models"]["tiny"]["allocated_mb"] == 1024  # type: ignore[index]
        assert (wrapped[0], wrapped[1]["global_eviction_policy"]) == (200, "lru")
        assert (fixed[0], fixed[1]["model_sizes_mb"]) == (200, {"tiny": 128})
        assert fixed[1]["models"]["tiny"]["priority"] == 7  # type: ignore[index]
        assert await got(client, PATH) == (200, fixed[1])
        undone = await post(client, PATH, model_sizes_mb={"tiny": None})
        assert undone[1]["models"]["tiny"]["allocated_mb"] == 1024  # type: ignore[index]


@pytest.mark.rows("CAC-4")
@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"global_cache_size_gb": -1}, 400, "invalid_value", "global_cache_size_gb"),
        ({"allocation_strategy": "best"}, 400, "invalid_strategy", "allocation_strategy"),
        ({"size": 1}, 400, "unknown_key", "size"),
        ({"models": {"none": {"priority": 3}}}, 404, "model_not_found", "model"),
        ({"model_priorities": {"none": 3}}, 404, "model_not_found", "model"),
        ({"model_priorities": {"default": 3}}, 400, "invalid_value", "model_priorities"),
        ({"models": {"tiny": {"allocated_mb": 9999}}}, 400, "invalid_value", "model_sizes_mb"),
        ({"models": 3}, 400, "invalid_value", "models"),
        ({"x" * 20_000: 1}, 413, "body_too_large", None),
    ],
)
async def test_a_bad_change_is_named_and_nothing_of_it_is_taken(
    body: dict[str, object], status: int, code: str, param: str | None
) -> None:
    """Sums and ids are looked at; the next good change is taken."""
    async with a_node(requested=("tiny",)) as (_, client):
        found, document = await post(client, PATH, **body)

        assert (found, document["error"]["code"], document["error"]["param"]) == (status, code, param)  # type: ignore[index]
        assert (await post(client, PATH, global_cache_size_gb=1))[1]["global_cache_size_gb"] == 1


@pytest.mark.rows("CAC-5", "CAC-6", "CAC-11")
async def test_statistics_are_at_both_of_their_paths() -> None:
    """By model, with hints; in detail by host."""
    async with a_node() as (node, client):
        bare = await got(client, "/cache/stats")
        node.tell(CacheMeasured(model=TINY, reading=READING))

        stats, metrics = await got(client, "/cache/stats"), await got(client, "/metrics/cache")
        _, detailed = await got(client, "/metrics/cache?detailed=true")

        assert bare[1]["per_model"]["tiny"]["hit_rate"] is None  # type: ignore[index]
        assert stats == metrics
        assert metrics[1]["per_model"]["tiny"]["hit_rate"] == 0.17  # type: ignore[index]
        assert metrics[1]["hints"]
        assert detailed["per_model"]["tiny"]["nodes"][0]["hit_tokens"] == 170  # type: ignore[index]
