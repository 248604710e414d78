"""The host of each request that has several: asked of the front door's memory, and told to it again.

Owns what one request was promised: the order of its hosts and its place at the one that it is sent to. Decides when
the memory hears of a view: before anything is counted, so that what ends after an announcement is taken off it. Doesn't
know connections, nor who is left out; `ways` does.

Invariant: a place that was taken is given back exactly once, however the request ends.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Protocol

from meshllm.core import limits
from meshllm.core.ids import NodeId
from meshllm.core.routing.attempts import RetryBudget
from meshllm.core.routing.candidates import engines_of, mark_of
from meshllm.core.routing.experiments import Trial
from meshllm.core.routing.explain import Amount, Decision, Kept
from meshllm.core.routing.ratings import Candidate, Rating
from meshllm.core.routing.route_memory import NO_REPORT, Ask, Report, Reservation, RouteMemory
from meshllm.core.routing_config import RoutingConfig
from meshllm.core.view import MeshView
from meshllm.proxy.asks import ask_of, report_of, report_of_events
from meshllm.proxy.intake import Intake
from meshllm.proxy.target import Target

log = logging.getLogger(__name__)


class Newest(Protocol):
    """Who holds the newest view."""

    @property
    def newest(self) -> MeshView:
        """Return the newest view."""


class Allowances(Protocol):
    """Who knows what is left of quotas."""

    def told(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the same engines with what is left of their models' quotas."""


class Planner:
    """Decides for the requests of one front door that have several ways."""

    def __init__(self, memory: RouteMemory, views: Newest, clock: Callable[[], float] = monotonic) -> None:
        """Keep `memory` up to date; `clock` returns monotonic seconds."""
        self.memory = memory
        self.clock = clock
        self.retries = RetryBudget()
        self.quotas: Allowances | None = None
        """Who knows what is left of quotas."""
        self.open = 0
        """Requests that were decided about and are not over, wherever they are."""
        self._views = views
        self._heard: MeshView | None = None
        self._alarmed_s = float("-inf")

    @property
    def config(self) -> RoutingConfig:
        """Return what people said about routing."""
        return self._views.newest.routing.effective

    def hear(self) -> None:
        """Let the memory know what the newest view says, if it is new."""
        view = self._views.newest
        if view is self._heard:
            return
        self._heard = view
        self.memory.heard(lambda node: mark_of(view, node))
        self.memory.keep(engines_of(view))

    def plan(
        self, intake: Intake, body: bytes, request_id: bytes, targets: Iterable[Target], session_id: str = "",
        before: "Plan | None" = None,
    ) -> "Plan":  # fmt: skip
        """Decide in which order the hosts of a request are tried; `before` is what this takes the place of."""
        if before is None:
            self.open += 1
        else:
            before.leave()
        self.hear()
        config, now_s = self.config, self.clock()
        began_s = perf_counter()
        ask = ask_of(intake, body, request_id, config, session_id)
        read_s = perf_counter()
        candidates = [candidate for target in targets if (candidate := _now(target)) is not None]
        if candidates and self.quotas is not None and self._views.newest.quotas.is_limiting:
            candidates = self.quotas.told(candidates)
        asked_s = perf_counter()
        decision = self.memory.choose(candidates, ask, config, now_s)
        took_s = perf_counter() - asked_s
        self.memory.stats.staged(read_s - began_s, asked_s - read_s, took_s)
        kept = self.wrote(decision, took_s, config, now_s)
        return Plan(
            planner=self, ask=ask, config=config, kept=kept, began_s=now_s,
            ratings={rating.candidate.node: rating for rating in decision.ratings},
            known=frozenset([candidate.node for candidate in candidates]),
        )  # fmt: skip

    def wrote(self, decision: Decision, took_s: float, config: RoutingConfig, now_s: float) -> Kept:
        """Keep and count a decision that took so long."""
        self.memory.stats.decided(decision.strategy, took_s, is_rebound=decision.is_rebound)
        kept = self.memory.decisions.add(decision, took_s)
        self._tell(kept, config.alarm_s, now_s)
        return kept

    def _tell(self, kept: Kept, alarm_s: float, now_s: float) -> None:
        """Warn of a decision that took long; at DEBUG, `tracing` tells of all."""
        if kept.took_s <= alarm_s or now_s - self._alarmed_s < limits.ROUTING_ALARM_INTERVAL_S:
            return
        decision = kept.decision
        fields = {
            "model_id": decision.model, "strategy": decision.strategy.value, "reason": decision.reason,
            "node": decision.picked, "score": round(decision.ratings[0].score, 4) if decision.ratings else None,
            "routing_time_us": round(kept.took_s * 1e6, 1), "request_id": decision.request_id,
        }  # fmt: skip
        self._alarmed_s = now_s
        log.warning("routing took long", extra={"fields": fields})


def _now(target: Target) -> Candidate | None:
    """Return a target as a candidate; this node's own engine as busy as it is at this moment."""
    candidate = target.candidate
    if candidate is None or target.peer is not None:
        return candidate
    return candidate.as_busy_as(target.traffic.in_flight + target.pool.opening)


@dataclass(slots=True)
class Plan:
    """What was decided for one request, and what came of it so far."""

    planner: Planner
    ask: Ask
    config: RoutingConfig
    kept: Kept
    began_s: float
    ratings: dict[NodeId, Rating]
    """Of the hosts that may be tried, best first."""
    known: frozenset[NodeId]
    """Those that the decision was about."""
    tail: deque[bytes] = field(default_factory=lambda: deque(maxlen=limits.ANSWER_TAIL_PIECES))
    """The last pieces of a stream, as they came."""
    is_chunked: bool = False
    is_retry: bool = False
    """It is one of the retries that are under way."""
    is_compared: bool = False
    """What comes of it is a figure of its model."""
    then: Callable[[Trial], None] | None = None
    """Is told what came of it, where somebody wants to know."""
    _told: Report = NO_REPORT
    """What the answer said of itself, for that."""
    _place: Reservation | None = None
    _report: Report | None = None

    def covers(self, nodes: Collection[NodeId]) -> bool:
        """Tell whether the decision knew all of these hosts."""
        return self.known.issuperset(nodes)

    def ordered(self, targets: dict[NodeId, Target]) -> list[Target]:
        """Return those of the targets that may be tried, best first."""
        return [targets[node] for node in self.ratings if node in targets]

    def lines(self, target: Target) -> bytes:
        """Return a target's fields for the client, with the rule that decided."""
        reason = self.kept.decision.reason
        if target.is_fallback or not target.reason_line:
            return target.client_lines
        line = b"X-Mesh-Route-Reason: %b\r\n" % reason.encode()
        return target.client_lines.replace(target.reason_line, line, 1)

    def retry(self, in_flight: int) -> bool:
        """Take one of the retries that may be under way, if it has none; tell whether there was one left."""
        self.is_retry = self.is_retry or self.planner.retries.take(in_flight)
        return self.is_retry

    # -- at a host -------------------------------------------------------------------------------------

    def go(self, node: NodeId) -> None:
        """Take a place at a host, before anything is awaited: the next decision knows of it."""
        self._end()
        self.kept.sent(node, self.planner.clock() - self.began_s)
        rating = self.ratings.get(node)
        if rating is not None:
            planner = self.planner
            self._place = planner.memory.sent(rating, self.ask, self.config, planner.clock())

    def begun(self, *, is_chunked: bool) -> None:
        """Note the first piece of an answer that comes in pieces."""
        self._begun()
        self.is_chunked = is_chunked

    def answered(self, document: bytes) -> None:
        """Take a whole answer, and what it says of its prompt."""
        self._begun()
        self._report = self._told = report_of(document)

    def told(self) -> None:
        """Take what the last events of a stream, which is complete, say of its prompt."""
        self._report = self._told = report_of_events(self.tail, is_chunked=self.is_chunked)

    def _begun(self) -> None:
        now_s = self.planner.clock()
        if self.kept.first_byte_s is None:
            self.kept.first_byte_s = now_s - self.began_s
        if self._place is not None:
            self.planner.memory.begun(self._place, now_s)

    def leave(self) -> None:
        """Give a place back, and a retry; nothing if there is none."""
        if self.is_retry:
            self.is_retry = False
            self.planner.retries.give_back()
        self._end()

    def _end(self) -> None:
        place, self._place = self._place, None
        report, self._report = self._report, None
        if place is not None:
            self.planner.hear()
            self.planner.memory.ended(place, report, self.planner.clock())

    def settled(self, node: str, *, is_ok: bool) -> None:
        """Write down where the request was answered in the end. Called once."""
        planner, told = self.planner, self._told
        planner.open -= 1
        self.kept.went, self.kept.is_ok = node, is_ok
        if told is not NO_REPORT:
            self.kept.amount = self._amount(told)
        then, self.then = self.then, None
        if self.is_compared or then is not None:
            trial = Trial(
                is_ok=is_ok, took_s=planner.clock() - self.began_s, first_byte_s=self.kept.first_byte_s,
                prompt_tokens=told.prompt_tokens, cached_tokens=told.cached_tokens, made_tokens=told.made_tokens,
            )  # fmt: skip
            if self.is_compared:
                planner.memory.stats.trials.ended(self.kept.decision.model, trial)
            if then is not None:
                then(trial)

    def _amount(self, told: Report) -> Amount:
        """Return how much the answer was; where its engine says no time, a stream took from its first piece on."""
        begun_s, wrote_s = self.kept.first_byte_s, told.wrote_s
        if not wrote_s and self.tail and begun_s is not None:
            wrote_s = self.planner.clock() - self.began_s - begun_s
        return Amount(
            prompt_tokens=told.prompt_tokens, cached_tokens=told.cached_tokens, made_tokens=told.made_tokens,
            wrote_s=wrote_s,
        )  # fmt: skip
