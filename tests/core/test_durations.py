"""Durations are counted in steps."""

from meshllm.core.durations import STEPS_S, Durations


def test_each_is_counted_in_its_step() -> None:
    """The end of a step belongs to it, and what is longer than all has a place too."""
    durations = Durations()

    durations.add("a", "x", STEPS_S[2])
    durations.add("a", "x", STEPS_S[2] * 1.01, count=2)
    durations.add("a", "x", 1e9)
    durations.add("a", "b", 0.0)
    first, second = durations.histograms()

    assert (first.name, first.counts[0]) == ("b", 1)
    assert second.counts[2:4] == (1, 2)
    assert second.counts[-1] == 1
    assert sum(second.counts) == 4
    assert second.sum_s > 1e9
