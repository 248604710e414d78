"""Averages and counts that forget."""

import pytest

from meshllm.core import limits
from meshllm.core.routing.decay import Decayed

HALF_S = limits.ROUTING_HALF_LIFE_S


def test_nothing_known_has_no_weight_and_no_mean() -> None:
    """Zero, not an error."""
    assert (Decayed().mean(), Decayed().weight_at(100.0)) == (0.0, 0.0)


def test_an_observation_weighs_half_after_a_half_life() -> None:
    """The mean leans to the newer one; it doesn't age by itself."""
    seen = Decayed()
    seen.add(10.0, 1.0, 0.0)
    seen.add(40.0, 1.0, HALF_S)

    assert seen.mean() == pytest.approx((10.0 * 0.5 + 40.0) / 1.5)
    assert seen.weight_at(HALF_S) == pytest.approx(1.5)
    assert seen.weight_at(2 * HALF_S) == pytest.approx(0.75)


def test_time_that_stands_or_goes_back_changes_no_weight() -> None:
    """Two events of one moment, or in the wrong order."""
    seen = Decayed()
    seen.add(1.0, 1.0, 5.0)
    seen.add(1.0, 1.0, 4.0)

    assert seen.weight_at(3.0) == 2.0


def test_after_a_very_long_time_only_the_newest_counts() -> None:
    """Numbers that become too small do no harm."""
    seen = Decayed()
    seen.add(10.0, 1.0, 0.0)
    seen.add(3.0, 1.0, 1e9)

    assert seen.mean() == 3.0


def test_it_says_when_so_little_is_left() -> None:
    """So that nobody has to look each time."""
    seen = Decayed()
    seen.add(1.0, 4.0, 10.0)

    assert seen.reaches_s(1.0) == pytest.approx(10.0 + 2 * HALF_S)
    assert seen.weight_at(seen.reaches_s(0.3)) == pytest.approx(0.3)
