"""Invariants under whatever a seed comes up with; `scripts/simulate --seeds 1000` runs more of it."""

import pytest

from meshllm.testing.chaos import play

ALWAYS = range(16)
NOW_AND_THEN = range(1000, 1040)


@pytest.mark.parametrize("seed", ALWAYS)
def test_invariants_hold_under_misfortune(seed: int) -> None:
    """Crashes, sleep, partitions, one-way cuts, loss, restarts, leaps of clocks; then one view, and peace."""
    outcome = play(seed)

    assert outcome.heal_s <= 10.0
    assert outcome.events > 500


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_invariants_hold_under_a_lot_of_misfortune() -> None:
    """Other seeds than the ones above."""
    for seed in NOW_AND_THEN:
        play(seed)
