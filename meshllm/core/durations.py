"""How long things took, counted by phase and name in steps, so that many fit into a few numbers.

Owns the counts and the steps. Decides nothing, and reads no clock: who measures says how long it was. Doesn't know
what a phase is for.
"""

from bisect import bisect_left
from dataclasses import dataclass

STEPS_S = tuple(1e-6 * 4.0**power for power in range(14))
"""Upper ends of the steps, from a microsecond to a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """What is known of one phase of one thing."""

    phase: str
    name: str
    counts: tuple[int, ...]
    """How many took at most as long as each of `STEPS_S` and longer than the one before; the last took longer."""
    sum_s: float


class Durations:
    """Counts by phase and name. Bounded by the names that its owner gives."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._sums_s: dict[tuple[str, str], float] = {}

    def add(self, phase: str, name: str, took_s: float, count: int = 1) -> None:
        """Count something that took so long, or several that did."""
        key = (phase, name)
        counts = self._counts.setdefault(key, [0] * (len(STEPS_S) + 1))
        counts[bisect_left(STEPS_S, took_s)] += count
        self._sums_s[key] = self._sums_s.get(key, 0.0) + took_s * count

    def histograms(self) -> tuple[Histogram, ...]:
        """Return what was counted, by phase and name."""
        return tuple(
            Histogram(phase=phase, name=name, counts=tuple(counts), sum_s=self._sums_s[phase, name])
            for (phase, name), counts in sorted(self._counts.items())
        )
