"""The numbers of routing add up."""

from math import inf
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.routing.stats import RoutingStats
from meshllm.core.routing_config import Strategy


def test_the_total_always_is_successful_plus_failed() -> None:
    """A request that is still under way is in none of them; fallbacks are counted beside."""
    stats = RoutingStats()
    for number in range(10):
        stats.decided(Strategy.CACHE_AWARE, 0.00005)
        shown: Any = stats.shown()
        assert shown["total_routes"] == shown["successful_routes"] + shown["failed_routes"] == number
        stats.ended("m", "a", is_ok=number % 3 > 0, is_fallback=number == 4)

    shown = stats.shown()

    assert (shown["total_routes"], shown["successful_routes"], shown["failed_routes"]) == (10, 6, 4)
    assert (shown["fallback_routes"], shown["avg_routing_time_us"]) == (1, 50.0)


def test_every_strategy_has_its_number_and_affinity_its_other_name() -> None:
    """Zero is a number too."""
    stats = RoutingStats()
    stats.decided(Strategy.AFFINITY_BASED, 0.0, is_rebound=True)

    empty: Any = RoutingStats().shown()
    shown: Any = stats.shown()

    assert empty["per_strategy"] == dict.fromkeys([*Strategy, "affinity"], 0)
    assert shown["per_strategy"]["affinity"] == shown["per_strategy"]["affinity_based"] == 1
    assert shown["affinity_rebinds"] == 1
    assert empty["avg_routing_time_us"] == 0.0


def test_durations_are_cumulative_counts_in_seconds() -> None:
    """As histograms of Prometheus are."""
    stats = RoutingStats()
    for took_s in (4e-6, 6e-6, 1.0):
        stats.decided(Strategy.RANDOM, took_s)

    buckets, total_s = stats.durations()

    assert [(edge_s, count) for edge_s, count in buckets if edge_s in (5e-6, 1e-5, 5e-3, inf)] == [
        (5e-6, 1), (1e-5, 2), (5e-3, 2), (inf, 3),
    ]  # fmt: skip
    assert round(total_s, 5) == 1.00001
    assert stats.strategies()["random"] == 3


def test_details_are_a_histogram_and_the_picks() -> None:
    """A decision as long as an edge is below it; a request that went nowhere is no pick."""
    stats = RoutingStats()
    for took_us in (3, 10, 150, 9_000):
        stats.decided(Strategy.RANDOM, took_us / 1e6)
    stats.ended("m", "a", is_ok=True)
    stats.ended("m", "", is_ok=False)

    shown: Any = stats.shown(is_detailed=True)

    assert {edge: count for edge, count in shown["routing_time_us"].items() if count} == {
        "5": 1, "10": 1, "200": 1, "+Inf": 1,
    }  # fmt: skip
    assert (shown["per_model"], shown["per_node"]) == ({"m": 2}, {"a": 1})
    assert "per_model" not in stats.shown()


def test_names_that_are_counted_are_bounded() -> None:
    """Whoever asks for a million names fills no memory."""
    stats = RoutingStats()
    for number in range(limits.ROUTING_NAMES_COUNTED + 500):
        stats.ended(f"m{number}", "a", is_ok=False)

    shown: Any = stats.shown(is_detailed=True)
    models = shown["per_model"]

    assert len(models) == limits.ROUTING_NAMES_COUNTED + 1
    assert models["(others)"] == 500


@pytest.mark.rows("EXP-8")
def test_what_each_of_two_compared_models_got_is_counted_and_what_spilled_over() -> None:
    """Nothing is shown of it while nothing is compared."""
    stats = RoutingStats()
    before = "ab" in stats.shown()

    stats.compared(0, is_spilled=False)
    stats.compared(1, is_spilled=True)
    stats.compared(2, is_spilled=False)

    assert not before
    assert stats.shown()["ab"] == {"a": 1, "b": 1, "spill": 1, "variants": {}}


@pytest.mark.rows("OPS-2")
def test_details_name_the_slowest_stage_and_what_makes_it_quicker() -> None:
    """Whoever sees a high routing time knows where to look."""
    stats = RoutingStats()
    before = stats.shown(is_detailed=True)
    for _ in range(2):
        stats.decided(Strategy.CACHE_AWARE, 4e-6)
        stats.staged(9e-6, 1e-6, 4e-6)

    shown: Any = stats.shown(is_detailed=True)

    assert (before["slowest_stage"], before["hints"]) == (None, [])
    assert shown["stages_us"] == {"read_prompt": 9.0, "check_quotas": 1.0, "choose": 4.0}
    assert shown["slowest_stage"] == "read_prompt"
    assert "enable_cache_optimization" in shown["hints"][0]
    assert "stages_us" not in stats.shown()
