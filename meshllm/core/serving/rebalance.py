"""When a model gets another host, when it loses one, and what makes room for what.

Owns the thresholds and their hysteresis. Decides nothing about single nodes: it answers the questions that
`gap_filling` asks. Doesn't know engines or announcements.

A model is added to slowly and taken from more slowly still: hot for half a minute, cool for ten, with a
gap between the two thresholds that one host more or less cannot bridge.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from meshllm.core.cache_config import EvictionPolicy
from meshllm.core.caches.victims import Occupant, in_order
from meshllm.core.ids import NO_MODEL, ModelId, NodeId
from meshllm.core.limits import COOL_PER_SLOT, COOL_S, HOT_PER_SLOT, HOT_S
from meshllm.core.serving.election import preference


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of a model, and what its ready hosts can do at a time."""

    per_minute: float
    slots: int
    busy: int = 0
    queued: int = 0

    def asked(self, per_minute: float) -> "Load":
        """Return the same with so many requests a minute."""
        return Load(per_minute=per_minute, slots=self.slots, busy=self.busy, queued=self.queued)

    @property
    def is_high(self) -> bool:
        """Tell whether its hosts have more to do than they can."""
        return self.slots > 0 and (self.per_minute > HOT_PER_SLOT * self.slots or self.queued >= self.slots)

    def is_low_without(self, slots: int) -> bool:
        """Tell whether the others could easily do it all without so many slots."""
        left = self.slots - slots
        return left > 0 and not self.queued and self.per_minute < COOL_PER_SLOT * left and self.busy * 2 <= left


class Heat:
    """Which models have been hot, or cool, for long enough."""

    def __init__(self) -> None:
        """Start with all of them neither."""
        self._high: dict[ModelId, tuple[float, int]] = {}
        """Since when, and with how many slots: with others, it begins anew."""
        self._low: dict[ModelId, float] = {}

    def look(self, loads: Mapping[ModelId, Load], spare_slots: Mapping[ModelId, int], now_s: float) -> None:
        """Take the loads of served models, and the slots of those models that this node could do without."""
        for model, load in loads.items():
            _, slots = self._high.get(model, (0.0, -1))
            if not load.is_high:
                self._high.pop(model, None)
            elif slots != load.slots:
                self._high[model] = (now_s, load.slots)
            if not load.is_low_without(spare_slots.get(model, load.slots)):
                self._low.pop(model, None)
            else:
                self._low.setdefault(model, now_s)
        for gone in (self._high.keys() | self._low.keys()) - loads.keys():
            self._high.pop(gone, None)
            self._low.pop(gone, None)

    def hot(self, now_s: float) -> frozenset[ModelId]:
        """Return the models that should have another host."""
        return frozenset(model for model, (since_s, _) in self._high.items() if now_s >= since_s + HOT_S)

    def cool(self, now_s: float) -> frozenset[ModelId]:
        """Return the models that can do without this node."""
        return frozenset(model for model, since_s in self._low.items() if now_s >= since_s + COOL_S)

    def next_s(self, now_s: float) -> float | None:
        """Return when the next model will have been hot or cool for long enough."""
        due = [since_s + HOT_S for since_s, _ in self._high.values()]
        due += [since_s + COOL_S for since_s in self._low.values()]
        return min((at_s for at_s in due if at_s > now_s), default=None)


def may_go(me: NodeId, ready: Iterable[NodeId], model: ModelId, floor: int) -> bool:
    """Tell whether a host may stop serving a model without its hosts falling below a number.

    Of several hosts that would like to stop at the same moment, only as many may as can be spared, and all of
    them know which.
    """
    staying = [node for node in ready if node != me and preference(node, model) < preference(me, model)]
    return len(staying) >= floor


def victims(
    occupants: Collection[Occupant], is_enough: Callable[[frozenset[ModelId]], bool],
    policy: EvictionPolicy = EvictionPolicy.LRU, last: ModelId = NO_MODEL,
) -> tuple[ModelId, ...] | None:  # fmt: skip
    """Return which models have to go, by a policy whose last one was `last`; None when all are too few.

    As few as it takes: what was picked early and turns out not to be needed stays.
    """
    chosen: list[ModelId] = []
    for occupant in in_order(occupants, policy, last):
        if is_enough(frozenset(chosen)):
            break
        chosen.append(occupant.model)
    if not is_enough(frozenset(chosen)):
        return None
    for model in reversed(list(chosen)):
        rest = [other for other in chosen if other != model]
        if is_enough(frozenset(rest)):
            chosen = rest
    return tuple(chosen)
