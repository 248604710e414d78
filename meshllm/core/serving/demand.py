"""How much models are asked for: request rates that fade, counted where requests enter the mesh.

Owns the counters of this node and the coarse form in which they are told. Decides nothing. Doesn't know
who answers the requests, nor what follows from them: `assignment` and `rebalance` do.

Each node counts only requests that came in at it, so the sum over the members counts none twice.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import DEMAND_HALF_LIFE_S, DEMAND_LEAST, DEMAND_MODELS

_FADE_PER_S = math.log(2) / DEMAND_HALF_LIFE_S
_PER_MINUTE = 60 * _FADE_PER_S
"""One request that has just come, as a rate: what a steady stream of them would add up to."""
EXACT_USES = 100
"""Counts up to here are told exactly, larger ones with two digits."""

Told = tuple[tuple[str, float], ...]
"""Rates as a member announces them, by model."""


class Demand:
    """Requests that entered the mesh at this node, by model."""

    def __init__(self) -> None:
        """Start with none."""
        self._weights: dict[ModelId, tuple[float, float]] = {}
        """Faded count of requests, and when it was that."""

    def note(self, model: ModelId, count: int, now_s: float) -> None:
        """Count requests that came in just now."""
        self._weights[model] = (self._weight(model, now_s) + count, now_s)

    def per_minute(self, model: ModelId, now_s: float) -> float:
        """Return how many requests a minute a model gets, lately rather than long ago."""
        return self._weight(model, now_s) * _PER_MINUTE

    def told(self, now_s: float) -> Told:
        """Return the rates as they are announced: in steps, the highest ones, sorted by model; forget what faded."""
        rates = {model: coarse_rate(self.per_minute(model, now_s)) for model in self._weights}
        for model, rate in rates.items():
            if not rate:
                del self._weights[model]
        most = sorted((model for model, rate in rates.items() if rate), key=lambda model: (-rates[model], model))
        return tuple((model, rates[model]) for model in sorted(most[:DEMAND_MODELS]))

    def _weight(self, model: ModelId, now_s: float) -> float:
        weight, at_s = self._weights.get(model, (0.0, now_s))
        return weight * math.exp(-_FADE_PER_S * max(now_s - at_s, 0.0))


def coarse_rate(per_minute: float) -> float:
    """Return a rate in steps of half an octave, so that one more request is rarely news; 0 for next to none."""
    if per_minute < DEMAND_LEAST:
        return 0.0
    return round(2 ** (round(2 * math.log2(per_minute)) / 2), 3)


def coarse_count(count: int) -> int:
    """Return a count as it is announced: exact while small, then with two digits."""
    if count < EXACT_USES:
        return count
    step = int(10 ** (len(str(count)) - 2))
    return count // step * step


class MeshDemand:
    """The demand of the whole mesh, kept up as members speak: the same sum in whatever order they come."""

    def __init__(self) -> None:
        """Have heard of none."""
        self._told: dict[NodeId, Told] = {}
        self._rates: dict[ModelId, dict[NodeId, float]] = {}
        self._stale: set[ModelId] = set()
        """Models of which somebody told another rate since the sums were made."""
        self._sums: Mapping[ModelId, float] = MappingProxyType({})

    def hear(self, node: NodeId, told: Told) -> None:
        """Take a member's rates in place of those that it told before; none for one that is gone."""
        before = self._told.get(node, ())
        if before == told:
            return
        for model, _ in before:
            self._rates[ModelId(model)].pop(node, None)
            self._stale.add(ModelId(model))
        for model, rate in told:
            rates = self._rates.setdefault(ModelId(model), {})
            rates[node] = rates.get(node, 0.0) + rate
            self._stale.add(ModelId(model))
        if told:
            self._told[node] = told
        else:
            self._told.pop(node, None)

    def sums(self) -> Mapping[ModelId, float]:
        """Return the requests a minute by model, sorted; the same object while nobody tells another rate."""
        if self._stale:
            found = dict(self._sums)
            for model in self._stale:
                if rates := self._rates[model]:
                    found[model] = round(math.fsum(rates.values()), 3)
                else:
                    del self._rates[model]
                    found.pop(model, None)
            self._stale.clear()
            self._sums = MappingProxyType(dict(sorted(found.items())))
        return self._sums
