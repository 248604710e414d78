"""Who serves what, in meshes of all sorts of machines; `scripts/simulate --serving small` runs more of it."""

from dataclasses import replace

import pytest

from meshllm.testing.serving_invariants import SERVED_S
from meshllm.testing.serving_report import summed
from meshllm.testing.serving_runs import LARGE, Scale, play

SHORT = Scale(nodes=8, models=6, misfortunes=2, pause_s=30.0, calm_s=40.0)
ALWAYS = range(4)
NOW_AND_THEN = range(1010, 1013)
"""Of the ones that `scripts/simulate --serving small --first 1000` runs: as many as fit into half a minute."""
LOAD_MOST_S = 16.0
"""What the largest model takes on the slowest disk."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", ALWAYS)
def test_models_are_served_whatever_happens(seed: int) -> None:
    """Deaths, joiners, heat, divisions: no memory promised twice, no gap filled twice, nothing wanted left alone."""
    outcome = play(seed, SHORT)

    assert outcome.counts.starts > 5
    assert outcome.ends["complete"] > 30


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_models_are_served_over_many_seeds() -> None:
    """Other seeds than the ones above, larger and longer; what lost its last host has one again in time."""
    found = summed(play(seed) for seed in NOW_AND_THEN)

    assert found.reserved_most_s <= SERVED_S + LOAD_MOST_S
    assert found.moves_per_change <= 2.0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_models_are_served_in_a_mesh_of_forty() -> None:
    """The same with many at once, most of whom learn of one another through others."""
    outcome = play(3, replace(LARGE, nodes=40, models=14, misfortunes=1, requests_per_s=1.0))

    assert outcome.counts.starts > 40
