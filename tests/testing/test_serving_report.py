"""Numbers over many runs."""

import pytest

from meshllm.testing.serving_invariants import ServingCounts
from meshllm.testing.serving_report import summed
from meshllm.testing.serving_runs import ServingOutcome


def an_outcome(**counts: object) -> ServingOutcome:
    """Return the outcome of a run in which these things were counted."""
    return ServingOutcome(
        seed=1, counts=ServingCounts(**counts), accepted=10, events=1, simulated_s=1.0, story=(),
        ends={"complete": 6, "client_gone": 1, "no_capacity": 1, "stream_lost": 1, "model_not_found": 1},
    )  # fmt: skip


def test_runs_are_summed_up() -> None:
    """Times by their middle and their worst, the rest by how much there was."""
    one = an_outcome(starts=6, stops=2, changes=4, yields=1, served_s=[1.0, 2.0, 9.0], reserved_s=[3.0])
    other = an_outcome(starts=0, stops=0, changes=4, flaps=2, served_s=[2.0, 2.0], refetched_s=[45.0, 30.0])

    found = summed([one, other])

    assert (found.runs, found.served_p50_s, found.served_most_s) == (2, 2.0, 9.0)
    assert (found.reserved, found.reserved_p50_s, found.reserved_most_s) == (1, 3.0, 3.0)
    assert (found.refetched, found.refetched_p50_s, found.refetched_most_s) == (2, 45.0, 45.0)
    assert (found.moves_per_change, found.yields, found.flaps) == (1.0, 1, 2)
    assert (found.requests, found.complete_share) == (20, round(12 / 18, 4))
    assert (found.refused_capacity, found.broken, found.failed) == (2, 2, 2)


def test_a_run_in_which_nothing_happened_has_numbers_too() -> None:
    """Zeros, not a division by them."""
    quiet = ServingOutcome(
        seed=1, counts=ServingCounts(), accepted=0, ends={}, events=0, simulated_s=0.0, story=()
    )  # fmt: skip

    found = summed([quiet])

    assert (found.served_most_s, found.moves_per_change, found.complete_share) == (0.0, 0.0, 0.0)


def test_no_runs_are_no_numbers() -> None:
    """A report of nothing is a mistake."""
    with pytest.raises(ValueError, match="no runs"):
        summed([])
