"""The eight strategies: in which order candidates are tried, given what was found of each.

Owns the rule of each strategy, at both levels: which model where that is open, and which of its hosts. Decides the
order and names the rule that made it. Doesn't know where ratings come from, nor remembers anything. Pure.

Invariants: every fit candidate is in the order, once; hosts that are not well come after all others, and those that are
suspected last, whatever the strategy.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log
from operator import attrgetter

from meshllm.core import limits
from meshllm.core.routing.affinity import by_rendezvous
from meshllm.core.routing.ratings import UNHEALTHY, Candidate, Rating
from meshllm.core.routing_config import RoutingConfig, Strategy

AFFINITY = "affinity"
"""The reason of a request that went where its session is."""
_QUOTA_LOW = 0.1
_ALIKE_SHARE, _ALIKE_S = 0.1, 0.005
"""Predictions that differ by less say nothing: then load decides."""
_BEARABLE = 1.0
"""Of the mean load: what a host may have that had more than its share, for a conversation to stay there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What strategies need to know besides ratings."""

    config: RoutingConfig
    rng: random.Random
    session: str = ""
    """What the request has in common with others that should go where it goes."""
    is_first: bool = True
    """The prompt begins a conversation: nothing is lost when another host gets it."""
    turn: int = 0
    """How many requests had the same candidates before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A candidate that does not count, with the reason in words."""

    name: str
    why: str


def fit(candidates: Sequence[Candidate], config: RoutingConfig) -> tuple[Sequence[Candidate], tuple[Rejected, ...]]:
    """Return the candidates that may be chosen at all, and why the others may not."""
    if not config.checks_health or UNHEALTHY not in [candidate.health for candidate in candidates]:
        return candidates, ()
    out = tuple(Rejected(name=one.name, why="unhealthy") for one in candidates if one.health == UNHEALTHY)
    return [one for one in candidates if one.health != UNHEALTHY], out


def order(ratings: Sequence[Rating], strategy: Strategy, occasion: Occasion) -> tuple[list[Rating], str]:
    """Return the ratings with the best candidate first, and the name of the rule that decided."""
    if len(ratings) < 2:
        return list(ratings), strategy
    ordered, reason = _RULES[strategy](ratings, occasion)
    if any([rating.candidate.is_doubtful for rating in ordered]):  # noqa: C419 - twice as fast
        ordered.sort(key=lambda rating: (rating.candidate.is_suspect, rating.candidate.is_doubtful))
    return ordered, reason


_Ordered = tuple[list[Rating], str]


def _round_robin(ratings: Sequence[Rating], occasion: Occasion) -> _Ordered:
    ordered = sorted(ratings, key=attrgetter("name"))
    at = occasion.turn % len(ordered)
    return ordered[at:] + ordered[:at], Strategy.ROUND_ROBIN


def _least_loaded(ratings: Sequence[Rating], occasion: Occasion) -> _Ordered:
    most = occasion.config.max_load
    return sorted(ratings, key=lambda rating: (rating.load > most, *_by_load(rating))), Strategy.LEAST_LOADED


def _by_load(rating: Rating) -> tuple[float, bool, bool, float, float, str]:
    """Return what orders candidates by load: among equals this node, unless it had more than its share lately."""
    candidate = rating.candidate
    return (rating.load, rating.is_over, not candidate.is_here, rating.recent, candidate.rtt_s, rating.name)


def _cache_aware(ratings: Sequence[Rating], occasion: Occasion) -> _Ordered:
    """Order by the predicted time to the first token; those about as quick as the quickest, by load.

    Who had more than its share of requests lately comes after all others: for a new conversation always, for one that
    goes on only while it has more to do than others, because its prompt would have to be read anew elsewhere.
    """
    if max([rating.hit_share for rating in ratings]) < occasion.config.min_hit_rate:
        return _least_loaded(ratings, occasion)
    bearable = -1.0 if occasion.is_first else _BEARABLE * sum([rating.load for rating in ratings]) / len(ratings)
    able = [
        one.predicted_s for one in ratings if not ((one.is_over and one.load > bearable) or one.candidate.is_suspect)
    ]
    quickest = min(able, default=inf)
    alike_s = quickest * (1.0 + _ALIKE_SHARE) + _ALIKE_S

    def cost(rating: Rating) -> tuple[bool, float, float, float, bool, float, str]:
        predicted_s, load = rating.predicted_s, rating.load
        return (
            rating.is_over and load > bearable, 0.0 if predicted_s <= alike_s else predicted_s, load,
            -int(rating.hit_share * 10), not rating.candidate.is_here, rating.recent, rating.name,
        )  # fmt: skip

    return sorted(ratings, key=cost), Strategy.CACHE_AWARE


def _quota_aware(ratings: Sequence[Rating], occasion: Occasion) -> _Ordered:
    if not occasion.config.checks_quotas:
        return _least_loaded(ratings, occasion)

    def cost(rating: Rating) -> tuple[bool, float, tuple[float, bool, bool, float, float, str]]:
        left = rating.candidate.quota_left
        return (left <= _QUOTA_LOW, -left, _by_load(rating))

    return sorted(ratings, key=cost), Strategy.QUOTA_AWARE


def _random(ratings: Sequence[Rating], occasion: Occasion) -> _Ordered:
    return occasion.rng.sample(list(ratings), len(ratings)), Strategy.RANDOM


def _weighted_random(ratings: Sequence[Rating], occasion: Occasion) -> _Ordered:
    """Draw without replacement by weight: explicit ones if any candidate has one, else the composite scores.

    The smallest of -log(u) / weight comes first with the chance of its weight (Efraimidis and Spirakis, 2006).
    """
    weights = dict(occasion.config.weights)
    explicit = any(rating.name in weights for rating in ratings)
    drawn = []
    for rating in ratings:
        weight = weights.get(rating.name, 0.0) if explicit else rating.score
        chance = -log(1.0 - occasion.rng.random())
        drawn.append((chance / weight if weight > 0 else inf, rating.name, rating))
    drawn.sort(key=lambda one: one[:2])
    return [rating for _, _, rating in drawn], Strategy.WEIGHTED_RANDOM


def _latency_based(ratings: Sequence[Rating], occasion: Occasion) -> _Ordered:
    """Order by the first bytes seen lately and the queue; one request of twenty looks whether another became quicker.

    Who was not seen lately is taken for the quickest that was, and tried while it has nothing else to do.
    """
    quickest = min((rating.first_byte_s for rating in ratings if rating.first_byte_s is not None), default=0.0)

    def cost(rating: Rating) -> tuple[bool, float, float, float, str]:
        seen_s = rating.first_byte_s
        is_tried = seen_s is None and rating.load == 0.0
        expected_s = (quickest if seen_s is None else seen_s) + rating.wait_s
        return (not is_tried, expected_s, rating.load, rating.candidate.rtt_s, rating.name)

    ordered = sorted(ratings, key=cost)
    if occasion.rng.random() < limits.LATENCY_EXPLORATION:
        ordered.insert(0, ordered.pop(occasion.rng.randrange(1, len(ordered))))
    return ordered, Strategy.LATENCY_BASED


def _affinity_based(ratings: Sequence[Rating], occasion: Occasion) -> _Ordered:
    """Order as every entry node orders this session's hosts; one without a session goes by load."""
    if not occasion.session:
        return _least_loaded(ratings, occasion)
    return by_rendezvous(occasion.session, ratings, occasion.config.max_load), AFFINITY


_RULES: dict[Strategy, Callable[[Sequence[Rating], Occasion], _Ordered]] = {
    Strategy.ROUND_ROBIN: _round_robin,
    Strategy.LEAST_LOADED: _least_loaded,
    Strategy.CACHE_AWARE: _cache_aware,
    Strategy.QUOTA_AWARE: _quota_aware,
    Strategy.RANDOM: _random,
    Strategy.WEIGHTED_RANDOM: _weighted_random,
    Strategy.LATENCY_BASED: _latency_based,
    Strategy.AFFINITY_BASED: _affinity_based,
}
