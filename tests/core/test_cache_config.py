"""The keys of the prompt cache's division: spellings, bounds, sums, and documents that come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.cache_config import (
    DEFAULT,
    KEYS,
    AllocationStrategy,
    CacheConfig,
    CacheConfigError,
    EvictionPolicy,
    checked,
    patched,
    shown,
    unwrapped,
)
from meshllm.core.limits import GIB, MIB
from meshllm.core.routing_config import ConfigFault

CHOSEN = CacheConfig(global_cache_size_gb=2.0, model_sizes_mb=(("a", 1024),), model_priorities=(("a", 9), ("b", 1)))


@pytest.mark.rows("CAC-3")
@pytest.mark.parametrize(
    ("spelling", "policy"),
    [
        *((policy.value, policy) for policy in EvictionPolicy),
        ("least_recently_used_model", EvictionPolicy.LRU), ("LeastRecentlyUsed", EvictionPolicy.LRU),
        ("least_frequently_used_model", EvictionPolicy.LFU), ("LFU", EvictionPolicy.LFU),
        ("smallest_model", EvictionPolicy.SMALLEST_MODEL_FIRST), ("round-robin", EvictionPolicy.ROUND_ROBIN),
        ("RoundRobinModels", EvictionPolicy.ROUND_ROBIN),
    ],
)  # fmt: skip
def test_a_policy_has_several_spellings(spelling: str, policy: EvictionPolicy) -> None:
    """Those of other programs too; it is shown by one."""
    found = patched(DEFAULT, {"global_eviction_policy": spelling})

    assert found.global_eviction_policy is policy
    assert shown(found)["global_eviction_policy"] == policy.value


@pytest.mark.parametrize(
    "spelling", ["fair_share", "FairShare", "proportional", "priority_based", "Priority-Based", "dynamic"]
)
def test_a_strategy_is_one_of_four(spelling: str) -> None:
    """However it is written; fair shares are the default."""
    folded = spelling.replace("-", "").replace("_", "").lower()

    assert str(patched(DEFAULT, {"allocation_strategy": spelling}).allocation_strategy).replace("_", "") == folded
    assert DEFAULT.allocation_strategy is AllocationStrategy.FAIR_SHARE


@pytest.mark.parametrize(
    ("changes", "fault", "key"),
    [
        ({"size": 1}, ConfigFault.UNKNOWN_KEY, "size"),
        ({"global_cache_size_gb": -1}, ConfigFault.INVALID_VALUE, "global_cache_size_gb"),
        ({"global_cache_size_gb": True}, ConfigFault.INVALID_VALUE, "global_cache_size_gb"),
        ({"global_cache_size_gb": float("nan")}, ConfigFault.INVALID_VALUE, "global_cache_size_gb"),
        ({"allocation_strategy": "best"}, ConfigFault.INVALID_STRATEGY, "allocation_strategy"),
        ({"global_eviction_policy": 3}, ConfigFault.INVALID_STRATEGY, "global_eviction_policy"),
        ({"model_priorities": {"a": 0}}, ConfigFault.INVALID_VALUE, "model_priorities.a"),
        ({"model_priorities": {"": 3}}, ConfigFault.INVALID_VALUE, "model_priorities"),
        ({"model_priorities": 3}, ConfigFault.INVALID_VALUE, "model_priorities"),
        ({"model_floors_mb": {str(n): 1 for n in range(99)}}, ConfigFault.INVALID_VALUE, "model_floors_mb"),
        ({"min_ram_mb": 1.5}, ConfigFault.INVALID_VALUE, "min_ram_mb"),
    ],
)
def test_a_bad_value_is_refused_by_its_key(changes: dict[str, object], fault: ConfigFault, key: str) -> None:
    """With the kind of mistake that it is."""
    with pytest.raises(CacheConfigError) as caught:
        patched(DEFAULT, changes)

    assert (caught.value.fault, caught.value.key) == (fault, key)


@pytest.mark.rows("CAC-4")
@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model_sizes_mb": {"b": 1025}}, "model_sizes_mb"),
        ({"global_cache_size_gb": 0.5}, "global_cache_size_gb"),
    ],
)
def test_sizes_of_single_models_have_to_fit_into_the_whole(changes: dict[str, object], key: str) -> None:
    """Whichever of the two is changed."""
    with pytest.raises(CacheConfigError) as caught:
        patched(CHOSEN, changes)

    assert caught.value.key == key
    assert "more than the whole" in caught.value.message


def test_a_table_is_changed_in_parts_and_null_brings_defaults_back() -> None:
    """One model's number, or the whole key."""
    changed = patched(CHOSEN, {"model_priorities": {"a": None, "c": 3}, "model_sizes_mb": None})

    assert changed.model_priorities == (("b", 1), ("c", 3))
    assert changed.model_sizes_mb == ()
    assert changed.whole_bytes == 2 * GIB


def test_a_document_may_wrap_its_keys_and_say_things_of_models() -> None:
    """What is only shown changes nothing."""
    document = {
        "cache": {"min_ram_mb": 64}, "nodes": [], "is_dividing": True,
        "models": {"a": {"allocated_mb": 10, "priority": 7, "used_mb": 3}, "b": {"priority": 2}},
    }  # fmt: skip

    assert unwrapped(document) == {
        "min_ram_mb": 64, "model_sizes_mb": {"a": 10}, "model_priorities": {"a": 7, "b": 2}
    }  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [
        {"cache": 3}, {"cache": {"min_ram_mb": 1}, "min_ram_mb": 2}, {"models": 3}, {"models": {"a": 3}},
        {"models": {"a": {"size": 3}}}, {"models": {"a": {"priority": 1}}, "model_priorities": {"a": 2}},
        {"models": {"a": {"priority": 1}}, "model_priorities": 3},
    ],
)  # fmt: skip
def test_a_document_that_contradicts_itself_is_refused(document: dict[str, object]) -> None:
    """Nothing of it is guessed."""
    with pytest.raises(CacheConfigError):
        unwrapped(document)


@given(st.floats(0, 1000), st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 10), max_size=5))
def test_what_is_shown_is_what_can_be_set(size_gb: float, priorities: dict[str, int]) -> None:
    """A configuration that was written down comes back as it was."""
    config = patched(DEFAULT, {"global_cache_size_gb": size_gb, "model_priorities": priorities})

    assert checked(config) == config
    assert tuple(shown(config)) == KEYS


def test_completions_are_switched_by_word_or_truth() -> None:
    """And shown by word; what they may take is a whole number of megabytes."""
    found = [patched(DEFAULT, {"completions": value}).completions for value in ("on", True, "off", False, None)]

    assert found == [True, True, False, False, False]
    assert shown(patched(DEFAULT, {"completions": True, "completions_mb": 3}))["completions"] == "on"
    shared = [patched(DEFAULT, {"completions": "on", "completions_shared": on}) for on in ("on", "off", None)]
    assert [one.shares_completions for one in (DEFAULT, *shared)] == [False, True, False, True]
    for change in (
        {"completions": "maybe"}, {"completions": 1}, {"completions_mb": 0}, {"completions_mb": 1.5},
        {"completions_shared": 3},
    ):  # fmt: skip
        with pytest.raises(CacheConfigError, match="must be"):
            patched(DEFAULT, change)


def test_the_disk_has_a_size_and_a_floor_for_each_model() -> None:
    """Nothing, unless somebody says so; null takes it back."""
    config = patched(DEFAULT, {"disk_cache_size_gb": 1.5, "min_disk_mb": 7})

    assert (DEFAULT.disk_bytes, DEFAULT.min_disk_mb) == (0, 1024)
    assert (config.disk_bytes, config.min_disk_mb) == (1536 * MIB, 7)
    assert patched(config, {"disk_cache_size_gb": None}).disk_bytes == 0
    for change in ({"disk_cache_size_gb": -1}, {"disk_cache_size_gb": "1"}, {"min_disk_mb": 0.5}, {"min_disk_mb": -1}):
        with pytest.raises(CacheConfigError, match="must be"):
            patched(DEFAULT, change)
