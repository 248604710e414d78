"""Copies of requests for a model that is tried: which are made, where they go, and how both answers compare.

Owns the turn of each pair of models and the figures of both sides. Decides whether a request is copied, and that only
an engine with little to do takes a copy. Doesn't know bodies nor connections; nobody sees a copy's answer. Pure.

Invariant: only requests that were copied, and whose copy ended, count in the figures, on both sides.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from meshllm.core import limits
from meshllm.core.routing.experiments import Figures, Trial
from meshllm.core.routing.ratings import Candidate
from meshllm.core.routing_config import Shadow

_ROUNDING = 1e-9
"""Of many small shares added up."""


@dataclass(slots=True)
class _Pair:
    """What came of one model's requests that were copied to another."""

    credit: float = 0.0
    """Reaches 1 when the next request is to be copied."""
    copied: int = 0
    dropped: int = 0
    original: Figures = field(default_factory=Figures)
    copy: Figures = field(default_factory=Figures)


class Shadows:
    """The copies of one front door."""

    def __init__(self) -> None:
        """Start with none."""
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self.under_way = 0

    def due(self, wanted: Iterable[Shadow], size_bytes: int) -> list[Shadow]:
        """Return for which of these a request that has ended is copied: a share of all, in an even sequence.

        What is too large is dropped, and so is what comes while enough copies are under way.
        """
        found: list[Shadow] = []
        for shadow in wanted:
            pair = self._pair(shadow)
            pair.credit += shadow.sample
            if pair.credit < 1.0 - _ROUNDING:
                continue
            pair.credit -= 1.0
            if size_bytes > limits.SHADOW_BODY_BYTES or self.under_way + len(found) >= limits.SHADOW_REQUESTS:
                pair.dropped += 1
            else:
                found.append(shadow)
        return found

    def begun(self) -> None:
        """Count a copy that is on its way."""
        self.under_way += 1

    def dropped(self, shadow: Shadow) -> None:
        """Count a copy that nobody took."""
        self._pair(shadow).dropped += 1

    def ended(self, shadow: Shadow, original: Trial, copy: Trial | None) -> None:
        """Count a copy that is over, and what it is a copy of; None: its host did not take it."""
        self.under_way -= 1
        if copy is None:
            self.dropped(shadow)
            return
        pair = self._pair(shadow)
        pair.copied += 1
        pair.original.add(original)
        pair.copy.add(copy)

    def shown(self) -> list[dict[str, object]]:
        """Return the figures of all pairs as a document."""
        return [
            {
                "of": of, "to": to, "copied": pair.copied, "dropped": pair.dropped, "original": pair.original.shown(),
                "copy": pair.copy.shown(), "diff": _difference(pair.original.shown(), pair.copy.shown()),
            }
            for (of, to), pair in sorted(self._pairs.items())
        ]  # fmt: skip

    def _pair(self, shadow: Shadow) -> _Pair:
        key = (shadow.of, shadow.to)
        while key not in self._pairs and len(self._pairs) >= limits.ROUTING_SHADOWS:
            del self._pairs[next(iter(self._pairs))]  # of a plan that was changed since
        return self._pairs.setdefault(key, _Pair())


def host_of(candidates: Iterable[Candidate]) -> Candidate | None:
    """Return the host that takes a copy: the one with the least to do, if it is well and has little; else None."""
    idle = [one for one in candidates if not one.is_doubtful and _load(one) <= limits.SHADOW_LOAD_MOST]
    return min(idle, key=_load, default=None)


def _load(candidate: Candidate) -> float:
    return max(candidate.busy / candidate.slots, candidate.pressure)


def _difference(original: dict[str, object], copy: dict[str, object]) -> dict[str, float | None]:
    """Return what the copies have more than the originals; None where one side has no number."""
    found: dict[str, float | None] = {}
    for name in ("error_rate", "avg_first_byte_ms", "avg_latency_ms", "completion_tokens", "cache_hit_rate"):
        was, now = original[name], copy[name]
        both = isinstance(was, int | float) and isinstance(now, int | float)
        found[name] = round(now - was, 4) if both else None  # type: ignore[operator]
    return found
