"""How much of its quotas a model used: counters that each host says of itself, and that anybody may merge.

Owns the shape of what is told and how two tellings become one. Decides nothing. Doesn't know limits; windows are named
by when they begin, in Unix seconds, so that every node calls the same hour the same.

Invariant: merging is commutative, associative and idempotent, so that it makes no difference how news travels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from meshllm.core.ids import ModelId


@dataclass(frozen=True, slots=True, order=True)
class Spent:
    """What was used in one window: within it, both numbers only grow."""

    window_unix_s: int = 0
    """When it began."""
    tokens: int = 0
    requests: int = 0

    def merged(self, other: "Spent") -> "Spent":
        """Return what both know: the later window, and of the same one the most."""
        if self.window_unix_s != other.window_unix_s:
            return max(self, other, key=lambda one: one.window_unix_s)
        return Spent(self.window_unix_s, max(self.tokens, other.tokens), max(self.requests, other.requests))

    def within(self, window_unix_s: int) -> "Spent":
        """Return what this says of one window: nothing, if it is about another."""
        return self if self.window_unix_s == window_unix_s else Spent(window_unix_s)


NOTHING_SPENT = Spent()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUse:
    """What one host used of one model's quotas."""

    model: ModelId
    hour: Spent = NOTHING_SPENT
    day: Spent = NOTHING_SPENT

    def merged(self, other: "QuotaUse") -> "QuotaUse":
        """Return what two statements of one host about one model amount to."""
        return QuotaUse(model=self.model, hour=self.hour.merged(other.hour), day=self.day.merged(other.day))


def merged(*parts: Iterable[QuotaUse]) -> dict[ModelId, QuotaUse]:
    """Return what several statements of one host amount to, by model."""
    found: dict[ModelId, QuotaUse] = {}
    for part in parts:
        for use in part:
            known = found.get(use.model)
            found[use.model] = use if known is None else known.merged(use)
    return found
