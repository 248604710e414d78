"""What one front door remembers of where its requests went, and the choice of where the next one goes.

Owns the loads, prompts, sessions and turns that are local to an entry node, as one object for each front door. Decides
by composing them: a session goes where it is, everything else where the strategy says. Doesn't know names, HTTP nor
the clock: the time and the random source are handed in.

Invariants: what is reserved is ended exactly once; everything remembered is bounded, and forgotten with its engine.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshllm.core import limits
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.affinity import Affinity
from meshllm.core.routing.explain import Decision, Decisions
from meshllm.core.routing.loads import EngineLoad, Loads
from meshllm.core.routing.prefix_index import NO_PROMPT, EngineKey, Expectation, PrefixIndex, Prompt
from meshllm.core.routing.ratings import ANY_NODE, DEGRADED, HEALTHY, UNHEALTHY, Candidate, Rating, rate
from meshllm.core.routing.stats import RoutingStats
from meshllm.core.routing.strategies import AFFINITY, Occasion, fit, order
from meshllm.core.routing_config import RoutingConfig, Strategy

OPEN_MODEL = ModelId("")
"""The scope of a choice among models."""
_FIRST_MARK = 1
_WORST_FIRST = (UNHEALTHY, DEGRADED, HEALTHY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a request says that routing depends on, besides its model."""

    prompt: Prompt = NO_PROMPT
    session: str = ""
    """What the client calls its session; empty where it names none."""
    is_first: bool = True
    """The prompt holds no answer yet: it begins a conversation."""
    strategy: Strategy | None = None
    """Instead of the configured one, for this request."""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an answer said of its prompt; zeros where it said nothing."""

    prompt_tokens: int = 0
    """All of them, cached ones too."""
    cached_tokens: int = 0
    made_tokens: int = 0
    read_s: float = 0.0
    """How long the engine read the new ones."""
    wrote_s: float = 0.0
    """How long it made the answer."""


NO_REPORT = Report()
"""Of an answer that said nothing."""


@dataclass(slots=True)
class Reservation:
    """One request at one engine, from being sent until it ends."""

    key: EngineKey
    life: str
    new_tokens: float
    size_bytes: int
    sent_s: float
    expected: Expectation | None
    is_reading: bool = True
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class _Summary:
    """All engines of a model as one candidate, and of which engines it was made."""

    engines: Sequence[Candidate]
    whole: Candidate


class RouteMemory:
    """Chooses hosts, and learns from what comes of it."""

    def __init__(self, rng: random.Random) -> None:
        """Start with nothing remembered."""
        self.loads = Loads()
        self.index = PrefixIndex()
        self.affinity = Affinity()
        self.stats = RoutingStats()
        self.decisions = Decisions()
        self._rng = rng
        self._turns: OrderedDict[tuple[str, ...], int] = OrderedDict()
        self._summaries: dict[ModelId, _Summary] = {}

    def heard(self, mark_of: Callable[[NodeId], int]) -> None:
        """Take note of announcements as they come, so that what ends afterwards is taken off what they say.

        `mark_of` returns the mark of a node's newest one, 0 where there is none.
        """
        for (node, _), load in self.loads.known.items():
            mark = mark_of(node) if node else 0
            if mark:
                load.heard(mark)

    def choose(self, candidates: Sequence[Candidate], ask: Ask, config: RoutingConfig, now_s: float) -> Decision:
        """Return in which order the hosts of one model are tried."""
        model = candidates[0].model if candidates else OPEN_MODEL
        return self._choose(model, candidates, ask, ask.strategy or config.strategy, config, now_s)

    def choose_model(
        self, models: Mapping[ModelId, Sequence[Candidate]], ask: Ask, config: RoutingConfig, now_s: float
    ) -> Decision:
        """Return in which order models are tried, each given by the hosts that it has."""
        wholes = [self._whole(model, engines) for model, engines in models.items() if engines]
        strategy = config.model_strategy
        return self._choose(OPEN_MODEL, wholes, ask, strategy, config, now_s)

    def foretold(self, candidates: Sequence[Candidate], config: RoutingConfig, now_s: float) -> Decision:
        """Return in which order the hosts of one model would be tried for a request without a prompt.

        Nothing is remembered of it: the turn stays whose it is, and where chance decides, this is one of its draws.
        """
        able, rejected = fit(candidates, config)
        ratings = rate(able, NO_PROMPT, config, loads=self.loads, index=self.index, now_s=now_s)
        model = candidates[0].model if candidates else OPEN_MODEL
        turn = self._turns.get(_turn_key(model, able), 0)
        occasion = Occasion(config=config, rng=random.Random(int(now_s)), turn=turn)
        ordered, reason = order(ratings, config.strategy, occasion)
        return Decision(
            request_id="", model=model, at_s=now_s, strategy=config.strategy, reason=reason, ratings=tuple(ordered),
            rejected=rejected,
        )  # fmt: skip

    def sent(self, rating: Rating, ask: Ask, config: RoutingConfig, now_s: float) -> Reservation:
        """Note that a request goes to a candidate. Whoever calls this calls `ended`, whatever happens."""
        candidate = rating.candidate
        key = candidate.key
        summary = self._summaries.get(candidate.model)
        marks = (candidate.mark, summary.whole.mark if summary is not None else _FIRST_MARK)
        for load, mark in zip(self._both(key), marks, strict=True):
            load.begin(rating.new_tokens, mark, now_s)
        expected = self.index.sent(key, candidate.life, ask.prompt) if config.optimizes_cache else None
        if config.optimizes_cache and config.model_strategy is Strategy.CACHE_AWARE:
            whole = (ANY_NODE, candidate.model)
            self.index.answered(whole, "", self.index.sent(whole, "", ask.prompt), None)
        if ask.session:
            self.affinity.bind(ask.session, candidate.model, candidate.node, now_s, config.affinity_timeout_s)
        return Reservation(key, candidate.life, rating.new_tokens, ask.prompt.size_bytes, now_s, expected)

    def chose_model(self, model: ModelId, ask: Ask, config: RoutingConfig, now_s: float) -> None:
        """Note that a request whose model was open got this one, so that its session stays with it."""
        if ask.session:
            self.affinity.bind(ask.session, OPEN_MODEL, model, now_s, config.affinity_timeout_s)

    def begun(self, reservation: Reservation, now_s: float) -> None:
        """Note the first byte of an answer."""
        if reservation.is_reading and not reservation.is_over:
            reservation.is_reading = False
            for load in self._both(reservation.key):
                load.begun(reservation.new_tokens, now_s - reservation.sent_s, now_s)

    def ended(self, reservation: Reservation, report: Report | None, now_s: float) -> None:
        """Note that a request is over; `report` is None when it came to no answer. Ending twice changes nothing."""
        if reservation.is_over:
            return
        reservation.is_over = True
        for load in self._both(reservation.key):
            if reservation.is_reading:
                load.gave_up(reservation.new_tokens)
            load.end()
            if report is not None:
                _learn(load, reservation, report, now_s)
        if reservation.expected is not None:
            cached = _cached_bytes(reservation, report)
            self.index.answered(reservation.key, reservation.life, reservation.expected, cached)

    def keep(self, engines: Collection[EngineKey]) -> None:
        """Forget what belongs to engines that are gone."""
        models = {model for _, model in engines}
        kept = {*engines, *((ANY_NODE, model) for model in models)}
        self.loads.keep(kept)
        self.index.keep(kept)
        for model in [model for model in self._summaries if model not in models]:
            del self._summaries[model]

    def _both(self, key: EngineKey) -> tuple[EngineLoad, EngineLoad]:
        """Return what is known of an engine, and of all engines of its model."""
        return self.loads.opened(key), self.loads.opened((ANY_NODE, key[1]))

    def _choose(
        self, scope: ModelId, candidates: Sequence[Candidate], ask: Ask, strategy: Strategy, config: RoutingConfig,
        now_s: float,
    ) -> Decision:  # fmt: skip
        able, rejected = fit(candidates, config)
        ratings = rate(able, ask.prompt, config, loads=self.loads, index=self.index, now_s=now_s)
        occasion = Occasion(
            config=config, rng=self._rng, session=ask.session, is_first=ask.is_first,
            turn=self._turn(scope, able) if strategy is Strategy.ROUND_ROBIN else 0,
        )  # fmt: skip
        rule = Strategy.AFFINITY_BASED if ask.session else strategy
        ordered, reason = order(ratings, rule, occasion)
        is_rebound = False
        if ask.session:
            bound = self.affinity.where(ask.session, scope, now_s)
            ordered, is_rebound = _bound_first(ordered, bound)
            reason = AFFINITY
        return Decision(
            request_id=ask.request_id, model=scope, at_s=now_s, strategy=rule, reason=reason, ratings=tuple(ordered),
            rejected=rejected, is_rebound=is_rebound,
        )  # fmt: skip

    def _turn(self, scope: ModelId, candidates: Sequence[Candidate]) -> int:
        """Return whose turn it is among these, and make it the next one's. The first turn is anybody's."""
        key = _turn_key(scope, candidates)
        turn = self._turns.pop(key, None)
        if turn is None:
            turn = self._rng.randrange(max(len(candidates), 1))
        self._turns[key] = turn + 1
        while len(self._turns) > limits.ROUND_ROBIN_SETS:
            self._turns.popitem(last=False)
        return turn

    def _whole(self, model: ModelId, engines: Sequence[Candidate]) -> Candidate:
        """Return all engines of a model as one candidate, made anew only when they are other objects."""
        summary = self._summaries.get(model)
        if summary is None or summary.engines is not engines:
            mark = summary.whole.mark + 1 if summary is not None else _FIRST_MARK
            summary = self._summaries[model] = _Summary(engines, _summed(model, engines, mark))
        return summary.whole


def _turn_key(scope: ModelId, candidates: Iterable[Candidate]) -> tuple[str, ...]:
    return (scope, *sorted(candidate.name for candidate in candidates))


def _bound_first(ordered: list[Rating], bound: str | None) -> tuple[list[Rating], bool]:
    """Return candidates with the one first where a session is, and whether that one is gone."""
    if bound is None:
        return ordered, False
    there = [rating for rating in ordered if rating.name == bound]
    return there + [rating for rating in ordered if rating.name != bound], not there


def _summed(model: ModelId, engines: Sequence[Candidate], mark: int) -> Candidate:
    """Return the sum of a model's engines that are as well as the best of them."""
    health = max((one.health for one in engines), key=_WORST_FIRST.index)
    able = [one for one in engines if one.health == health]
    return Candidate(
        node=ANY_NODE, model=model, slots=sum(one.slots for one in able), busy=sum(one.busy for one in able),
        mark=mark, health=health, is_here=any(one.is_here for one in able),
        is_suspect=all(one.is_suspect for one in able), rtt_s=min(one.rtt_s for one in able),
        pressure=min(one.pressure for one in able), quota_left=max(one.quota_left for one in able),
    )  # fmt: skip


def _learn(load: EngineLoad, reservation: Reservation, report: Report, now_s: float) -> None:
    """Take what an answer tells of its engine."""
    load.served(now_s - reservation.sent_s, now_s)
    if report.prompt_tokens <= 0:
        return
    load.read(report.prompt_tokens - report.cached_tokens, report.read_s, now_s)
    if reservation.size_bytes:
        load.spelt(reservation.size_bytes, report.prompt_tokens, now_s)
    expected, cached = reservation.expected, _cached_bytes(reservation, report)
    if expected is not None and expected.size_bytes and cached is not None:
        load.hit(cached, expected.size_bytes, now_s)


def _cached_bytes(reservation: Reservation, report: Report | None) -> float | None:
    """Return how many bytes of the prompt were cached, or None when nobody said."""
    if report is None or report.prompt_tokens <= 0:
        return None
    return reservation.size_bytes * report.cached_tokens / report.prompt_tokens
