"""Series about prompt caches, and the alarms that are raised by them."""

import re

import pytest
import yaml

from meshllm.core.cache_limits import CACHE_EVICTIONS_PER_HOUR, CACHE_JUDGED_TOKENS, CACHE_LOW_HIT_RATE
from meshllm.core.cache_use import CacheReading
from meshllm.core.events import CacheMeasured
from meshllm.core.ids import ModelId
from tests.api.node import a_node
from tests.api.test_lifecycle import post
from tests.house.tree import ROOT

TINY = ModelId("tiny")
READING = CacheReading(hit_tokens=170, miss_tokens=830, size_bytes=4096)


@pytest.mark.rows("MET-4")
async def test_scrapers_see_hit_rate_and_size() -> None:
    """By the names that older dashboards ask for, too; a rate that is not known is no zero."""
    async with a_node() as (node, client):
        before = await (await client.get("/metrics")).text()
        node.tell(CacheMeasured(model=TINY, reading=READING))
        await post(client, "/cache/allocation", global_cache_size_gb=1)

        text = await (await client.get("/metrics")).text()

        assert 'cache_hit_rate{model="tiny"}' not in before
        for prefix in ("meshllm", "nopenai"):
            assert f'{prefix}_cache_hit_rate{{model="tiny"}} 0.17' in text
            assert f'{prefix}_cache_size_bytes{{model="tiny"}} 4096.0' in text
        assert 'meshllm_cache_prompt_tokens_total{found="hit",model="tiny"} 170.0' in text
        assert 'meshllm_cache_evictions_total{model="tiny"} 0.0' in text
        assert 'meshllm_cache_allocated_bytes{model="tiny"} 1.073741824e+09' in text


@pytest.mark.rows("CAC-11", "OPS-4", "OPS-9")
async def test_alarms_are_of_series_that_there_are_and_of_the_same_numbers_as_hints() -> None:
    """A rule whose series does not exist never fires; one of another number contradicts the hint."""
    groups = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    scraped = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    rules = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}
    async with a_node() as (node, client):
        node.tell(CacheMeasured(model=TINY, reading=READING))
        text = await (await client.get("/metrics")).text()

    named = {name for expression in rules.values() for name in re.findall(r"meshllm_\w+", expression)}

    assert "alerts.yml" in str(scraped["rule_files"])
    assert named
    assert [name for name in sorted(named) if f"\n{name}{{" not in text] == []
    assert f"< {CACHE_LOW_HIT_RATE} " in rules["LowCacheHitRate"]
    assert f">= {CACHE_JUDGED_TOKENS}" in rules["LowCacheHitRate"]
    assert f"> {CACHE_EVICTIONS_PER_HOUR}" in rules["ManyCacheEvictions"]
