"""How many requests were routed, how, and how that ended: the numbers of `GET /routing/stats`.

Owns the counters. Decides nothing. Doesn't know time nor HTTP; how long decisions took is told, and so is how many
requests went the one way that they had and were counted elsewhere already.

Invariant: a request counts when it ends, once, so the total always is successful plus failed.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import accumulate
from math import inf
from types import MappingProxyType

from meshllm.core import limits
from meshllm.core.routing.experiments import Trials
from meshllm.core.routing.rollout import Rollouts
from meshllm.core.routing.shadowing import Shadows
from meshllm.core.routing_config import Strategy

_EDGES_US = (5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
_LETTERS = "ab"
"""What the first two of the compared models are called in the numbers."""
_OTHERS = "(others)"


STAGES = MappingProxyType({
    "read_prompt": (
        "long prompts take it; without `enable_cache_optimization` they are not looked at, nor are caches then used"
    ),
    "check_quotas": "what is left of quotas is looked up for each host; without `enable_quota_checks` it is not",
    "choose": (
        "each host is rated and put in order: fewer hosts of a model, or a simpler strategy (`round_robin`, `random`) "
        "take less"
    ),
})  # fmt: skip
"""The stages of a decision in their order, and what makes each quicker."""


class RoutingStats:
    """Counts routed requests."""

    def __init__(self) -> None:
        """Start at zero."""
        self._successful = self._failed = self._fallbacks = self._rebinds = 0
        self._took_s = 0.0
        self._stages_s: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._decisions = 0
        self._histogram = [0] * (len(_EDGES_US) + 1)
        self._strategies: Counter[str] = Counter({strategy.value: 0 for strategy in Strategy})
        self._models: Counter[str] = Counter()
        self._nodes: Counter[str] = Counter()
        self._compared: Counter[str] = Counter(a=0, b=0, spill=0)
        self.trials = Trials()
        """What came of requests whose models are compared."""
        self.shadows = Shadows()
        """What came of copies of requests."""
        self.rollouts = Rollouts()
        """How far a new model is that takes over."""
        self.counted_elsewhere: Callable[[], Iterable[tuple[str, str, int]]] = tuple
        """Returns requests that ended well and of which nobody tells: model, node, how many since the start."""

    def decided(self, strategy: Strategy, took_s: float, *, is_rebound: bool = False) -> None:
        """Count a decision and how long it took."""
        self._decisions += 1
        self._took_s += took_s
        self._histogram[bisect_left(_EDGES_US, took_s * 1e6)] += 1
        self._strategies[strategy.value] += 1
        self._rebinds += is_rebound

    def staged(self, read_s: float, quotas_s: float, chose_s: float) -> None:
        """Count how long the stages of a decision took."""
        for stage, took_s in zip(STAGES, (read_s, quotas_s, chose_s), strict=True):
            self._stages_s[stage] += took_s

    def compared(self, place: int, *, is_spilled: bool) -> None:
        """Count a request that got the compared model in that place; `is_spilled`: its own was not to be had."""
        if place < len(_LETTERS):
            self._compared[_LETTERS[place]] += 1
        self._compared["spill"] += is_spilled

    def ended(self, model: str, node: str, *, is_ok: bool, is_fallback: bool = False) -> None:
        """Count a request that ended at a node, or nowhere (an empty one)."""
        if is_ok:
            self._successful += 1
        else:
            self._failed += 1
        self._fallbacks += is_fallback
        _count(self._models, model)
        if node:
            _count(self._nodes, node)

    def strategies(self) -> dict[str, int]:
        """Return how many decisions each strategy made; one that made none too."""
        return dict(self._strategies)

    def durations(self) -> tuple[tuple[tuple[float, int], ...], float]:
        """Return how many decisions took up to so many seconds, up to infinity, and what all took together."""
        edges_s = (*(edge / 1e6 for edge in _EDGES_US), inf)
        return tuple(zip(edges_s, accumulate(self._histogram), strict=True)), self._took_s

    def shown(self, *, is_detailed: bool = False) -> dict[str, object]:
        """Return the numbers as a document."""
        strategies = dict(self._strategies)
        elsewhere = tuple(self.counted_elsewhere())
        successful = self._successful + sum(count for _, _, count in elsewhere)
        found: dict[str, object] = {
            "total_routes": successful + self._failed, "successful_routes": successful,
            "failed_routes": self._failed, "fallback_routes": self._fallbacks, "affinity_rebinds": self._rebinds,
            "avg_routing_time_us": round(self._took_s / self._decisions * 1e6, 2) if self._decisions else 0.0,
            "per_strategy": {**strategies, "affinity": strategies[Strategy.AFFINITY_BASED]},
        }  # fmt: skip
        if any(self._compared.values()):
            found["ab"] = {**self._compared, "variants": self.trials.shown()}
        if shadows := self.shadows.shown():
            found["shadow"] = shadows
        if (rollout := self.rollouts.shown()) is not None:
            found["rollout"] = rollout
        if is_detailed:
            found |= self._slowest()
            edges = [*map(str, _EDGES_US), "+Inf"]
            found["routing_time_us"] = dict(zip(edges, self._histogram, strict=True))
            found["per_model"] = _together(self._models, ((model, count) for model, _, count in elsewhere))
            found["per_node"] = _together(self._nodes, ((node, count) for _, node, count in elsewhere))
        return found

    def _slowest(self) -> dict[str, object]:
        """Return how long each stage takes on average, and which one takes longest, with what makes it quicker."""
        count = max(self._decisions, 1)
        shown = {stage: round(took_s / count * 1e6, 2) for stage, took_s in self._stages_s.items()}
        slowest = max(shown, key=shown.__getitem__) if any(shown.values()) else None
        hint = f"{slowest}: {STAGES[slowest]}" if slowest is not None else None
        return {"stages_us": shown, "slowest_stage": slowest, "hints": [hint] if hint is not None else []}


def _together(counter: Counter[str], others: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return what was counted here and elsewhere."""
    whole = counter.copy()
    for name, count in others:
        whole[name] += count
    return {name: count for name, count in whole.items() if count}


def _count(counter: Counter[str], name: str) -> None:
    """Count a name, or all others together where there are too many."""
    known = name in counter or len(counter) < limits.ROUTING_NAMES_COUNTED
    counter[name if known else _OTHERS] += 1
