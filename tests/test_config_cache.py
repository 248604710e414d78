"""The table `[cache]`: how a node shares out its prompt cache, presets, and mistakes at their lines."""

import json
from pathlib import Path

import pytest

from meshllm.config_cache import MEANINGS, PRESETS, schemas
from meshllm.config_quotas import schema_of_limits
from meshllm.core.cache_config import KEYS, AllocationStrategy, CacheConfig, EvictionPolicy
from meshllm.core.quota_config import UNLIMITED, Quotas, patched
from tests.config_builders import configured, refused

LONG_FORM = {
    "global_cache_size_gb": 300, "allocation_strategy": "priority_based",
    "global_eviction_policy": "least_recently_used_model", "model_priorities": {"phi-4": 9},
    "per_model_quota": {"max_ram_mb": 81920, "hourly_token_limit": 1_000_000},
}  # fmt: skip


@pytest.mark.rows("CFG-20")
@pytest.mark.parametrize("wrapper", ["", "cache", "cache_config"])
def test_keys_of_the_long_form_mean_the_same_wherever_they_stand(tmp_path: Path, wrapper: str) -> None:
    """At the top of the file or in a table of either name; what a model may be used for becomes a quota."""
    document = {wrapper: LONG_FORM} if wrapper else LONG_FORM

    config = configured(tmp_path, json.dumps(document), name="c.json")

    assert config.caches == CacheConfig(
        global_cache_size_gb=300.0, allocation_strategy=AllocationStrategy.PRIORITY_BASED,
        global_eviction_policy=EvictionPolicy.LRU, model_priorities=(("phi-4", 9),),
    )  # fmt: skip
    assert dict(config.quotas) == {"": Quotas(max_ram_mb=81920, hourly_token_limit=1_000_000)}


@pytest.mark.rows("CFG-21")
@pytest.mark.parametrize(
    ("preset", "size_gb", "strategy", "ram_mb", "tokens"),
    [
        ("small", 100, "fair_share", 40_960, 500_000),
        ("medium", 300, "proportional", 81_920, 1_000_000),
        ("large", 500, "dynamic", 81_920, 2_000_000),
    ],
)
@pytest.mark.parametrize("place", ["", "[cache]\n"])
def test_a_preset_is_exactly_its_numbers(
    tmp_path: Path, preset: str, size_gb: int, strategy: str, ram_mb: int, tokens: int, place: str
) -> None:
    """Of the cache and of quotas, at the top of the file or in the table."""
    config = configured(tmp_path, f'{place}preset = "{preset}"')

    assert config.caches == CacheConfig(
        global_cache_size_gb=float(size_gb), allocation_strategy=AllocationStrategy(strategy),
        global_eviction_policy=EvictionPolicy.LRU,
    )  # fmt: skip
    assert dict(config.quotas) == {"": patched(UNLIMITED, {"max_ram_mb": ram_mb, "hourly_token_limit": tokens})}


@pytest.mark.rows("CFG-21")
def test_what_is_written_wins_over_a_preset(tmp_path: Path) -> None:
    """Each key by itself; a preset of quotas alone leaves caches alone."""
    text = 'preset = "large"\n[cache]\nglobal_cache_size_gb = 7\n[quotas.default]\nmax_ram_mb = 1'
    config, quotas_alone = configured(tmp_path, text), configured(tmp_path, '[quotas]\npreset = "small"')

    assert config.caches is not None
    assert (config.caches.global_cache_size_gb, config.caches.allocation_strategy) == (7.0, AllocationStrategy.DYNAMIC)
    assert dict(config.quotas)[""] == Quotas(max_ram_mb=1, hourly_token_limit=2_000_000)
    assert quotas_alone.caches is None
    assert configured(tmp_path, "port = 9000").caches is None


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("[cache]\nsize = 1", 2, "cache.size", "there is no key 'size'"),
        ("[cache]\nglobal_cache_size_gb = -1", 2, "cache.global_cache_size_gb", "a number from 0"),
        ("global_cache_size_gb = 'x'", 1, "global_cache_size_gb", "a number from 0"),
        ("[cache]\nallocation_strategy = 'best'", 2, "cache.allocation_strategy", "fair_share, proportional"),
        ("[cache]\n[cache.model_priorities]\nx = 11", 2, "cache.model_priorities", "from 1 to 10"),
        ("[cache]\nmodel_sizes_mb = {x = 5}", 2, "cache.model_sizes_mb", "more than the whole of 0 MB"),
        ("preset = 'huge'", 1, "preset", "expected one of small, medium, large"),
        ("[cache]\npreset = 3", 2, "cache.preset", "expected one of small"),
        ("cache = 3", 1, "cache", "expected a table, [cache]"),
        ("preset = 'small'\n[cache]\npreset = 'small'", 1, "preset", "given twice"),
        ("per_model_quota = 3", 1, "per_model_quota", "expected a table of limits"),
    ],
)
def test_mistakes_are_refused_at_their_line(tmp_path: Path, text: str, line: int, key: str, words: str) -> None:
    """By the name that the file has."""
    error = refused(tmp_path, text)

    assert words in error.message
    assert (error.line, error.key) == (line, key)


def test_every_key_has_its_meaning_and_presets_name_keys() -> None:
    """Also for editors."""
    described = schemas(schema_of_limits())

    assert set(MEANINGS) == set(KEYS)
    assert {key for numbers in PRESETS.values() for key in numbers} <= set(KEYS)
    assert set(KEYS) < set(described["cache"]["properties"])  # type: ignore[index]
