"""What came of the requests of compared models."""

import pytest

from meshllm.core import limits
from meshllm.core.ids import ModelId
from meshllm.core.routing.experiments import Figures, Trial, Trials

ONE, TWO = ModelId("one"), ModelId("two")
GOOD = Trial(is_ok=True, took_s=2.0, first_byte_s=0.5, prompt_tokens=10, cached_tokens=5, made_tokens=7)
BAD = Trial(is_ok=False, took_s=4.0)


def test_each_variant_has_its_own_figures() -> None:
    """Errors count in the time that they took, not in that of first bytes."""
    trials = Trials()

    for model, trial in ((ONE, GOOD), (ONE, GOOD), (ONE, BAD), (TWO, GOOD)):
        trials.ended(model, trial)
    shown = trials.shown()

    assert list(shown) == [ONE, TWO]
    assert shown[ONE] == {
        "requests": 3, "errors": 1, "error_rate": 0.3333, "avg_first_byte_ms": 500.0, "avg_latency_ms": 2666.67,
        "prompt_tokens": 20, "completion_tokens": 14, "cache_hit_rate": 0.5,
    }  # fmt: skip


def test_nothing_is_made_up_where_nothing_was_seen() -> None:
    """A variant that nobody got."""
    figures = Trials().of(ONE)

    assert (figures.error_share, figures.mean_first_byte_s) == (0.0, None)
    assert figures.shown()["avg_latency_ms"] is None


def test_figures_since_others_are_the_difference() -> None:
    """What was taken before stays as it was."""
    trials = Trials()
    trials.ended(ONE, BAD)
    before = trials.of(ONE)
    trials.ended(ONE, GOOD)

    since = trials.of(ONE).since(before)

    assert (before.requests, since.requests, since.errors) == (1, 1, 0)
    assert since.mean_first_byte_s == pytest.approx(0.5)
    assert before.since(Figures()) == before


def test_there_is_an_end_to_what_is_kept() -> None:
    """Whatever is compared in turn."""
    trials = Trials()

    for number in range(limits.ROUTING_WEIGHTS + 5):
        trials.ended(ModelId(f"m{number}"), GOOD)

    assert len(trials.shown()) == limits.ROUTING_WEIGHTS
