"""Averages and counts that forget: what happened a half-life ago weighs half as much as what happens now.

Owns the arithmetic of exponential decay in continuous time. Decides nothing. Doesn't know what is measured. Pure.
"""

from dataclasses import dataclass
from math import exp2, log2

from meshllm.core import limits


@dataclass(slots=True)
class Decayed:
    """A decayed sum with its decayed weight: their quotient is a mean, the weight says how much is known."""

    total: float = 0.0
    weight: float = 0.0
    at_s: float = 0.0

    def add(self, total: float, weight: float, now_s: float) -> None:
        """Add an observation."""
        keeps = exp2((self.at_s - now_s) / limits.ROUTING_HALF_LIFE_S) if now_s > self.at_s else 1.0
        self.total = self.total * keeps + total
        self.weight = self.weight * keeps + weight
        self.at_s = max(now_s, self.at_s)

    def mean(self) -> float:
        """Return the mean of all observations, newer ones weighing more; 0 without any. It doesn't age by itself."""
        return self.total / self.weight if self.weight else 0.0

    def weight_at(self, now_s: float) -> float:
        """Return how much of the weight is left now."""
        return (
            self.weight * exp2((self.at_s - now_s) / limits.ROUTING_HALF_LIFE_S) if now_s > self.at_s else self.weight
        )

    def reaches_s(self, weight: float) -> float:
        """Return when so little of the weight is left, if nothing is added."""
        return self.at_s + limits.ROUTING_HALF_LIFE_S * log2(self.weight / weight)
