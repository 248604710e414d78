"""What passes through the front door, counted: by model for the core, in total for metrics.

Owns the numbers. Decides when an engine has room for one more request. Doesn't know bytes' meaning.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Hashable, Iterable
from collections.abc import Set as AbstractSet
from time import monotonic

from meshllm.core import limits
from meshllm.core.events import TrafficMeasured
from meshllm.core.health import first_token_step
from meshllm.core.ids import ModelId
from meshllm.core.routing.fair_turns import FairTurns, Waiting, before
from meshllm.core.routing.priorities import Priority

STATUS_CLASSES = range(1, 6)
"""First digits that HTTP gives a status; an engine's odd one is counted as a request alone."""


class ModelTraffic:
    """The requests at one model's engine. Plain fields: they change with every request."""

    __slots__ = (
        "_moved_s", "answered_since", "failed_since", "finished_since", "first_tokens_before", "first_tokens_since",
        "has_moved", "in_flight", "minded_until_s", "model", "on_lane_before", "turns", "waiters",
    )  # fmt: skip

    def __init__(self, model: ModelId) -> None:
        """Start with nothing."""
        self.model = model
        self.in_flight = 0
        self.finished_since = 0
        """Requests that ended well on the straight lane since the last report."""
        self.on_lane_before = 0
        """The same before that."""
        self.answered_since = 0
        """Requests that ended well through an exchange since the last report; likewise the failed ones."""
        self.failed_since = 0
        self.first_tokens_since: dict[int, int] = {}
        """How long streams took to begin since the last report: how many by step, see `core.health`."""
        self.first_tokens_before: Counter[int] = Counter()
        """The same before that."""
        self.has_moved = False
        """A byte came from the engine, or the first request after a rest went there, since somebody last asked when."""
        self._moved_s = 0.0
        self.minded_until_s = 0.0
        """Until when priorities are minded: requests of different ones met here."""
        self.turns = FairTurns()
        self.waiters: list[tuple[Waiting | None, asyncio.Event]] = []
        """Set and forgotten whenever a request ends, in turn; first of all who waits for no room."""

    def begin(self) -> None:
        """Count a request in."""
        if self.in_flight == 0:
            self.has_moved = True
        self.in_flight += 1

    def end(self, *, is_failure: bool) -> None:
        """Count a request out."""
        self.in_flight -= 1
        if is_failure:
            self.failed_since += 1
        else:
            self.answered_since += 1
        if self.waiters:
            self.wake()

    @property
    def last_progress_s(self) -> float:
        """Return the monotonic time of the last byte from the engine, or of the first request after a rest.

        It may be late by the time since the last question, which `Traffic.look` asks a few times a second: a clock
        that is read for every byte costs more than it tells.
        """
        if self.has_moved:
            self.has_moved, self._moved_s = False, monotonic()
        return self._moved_s

    def first_token(self, took_s: float) -> None:
        """Count how long a stream took to begin, the queue included."""
        step = first_token_step(took_s)
        self.first_tokens_since[step] = self.first_tokens_since.get(step, 0) + 1

    def wake(self) -> None:
        """Wake whoever waits for a request to end, those first whose turn it is."""
        waiters, self.waiters = self.waiters, []
        queued: list[tuple[Waiting, asyncio.Event]] = []
        for waiting, event in waiters:
            if waiting is None:
                event.set()
            else:
                queued.append((waiting, event))
        for number in self.turns.order([waiting for waiting, _ in queued]):
            queued[number][1].set()

    def mind(self, priority: Priority) -> None:
        """Mind priorities for a while, if this is one that says so."""
        if priority is not Priority.NORMAL:
            self.minded_until_s = monotonic() + limits.PRIORITY_MINDED_S

    def came_in(self, priority: Priority) -> None:
        """Count a request of a priority that goes to the engine, where that is minded."""
        if self.is_minding:
            self.turns.served(priority)

    @property
    def is_minding(self) -> bool:
        """Tell whether priorities are minded."""
        return self.minded_until_s > 0.0 and monotonic() < self.minded_until_s

    def before(self, priority: Priority) -> int:
        """Return how many requests take room from a newcomer: those at the engine, and of those that wait its betters.

        Where no priorities are minded, the others that wait come back by themselves.
        """
        if not self.is_minding:
            return self.in_flight
        return self.in_flight + before(priority, (waiting for waiting, _ in self.waiters if waiting is not None))

    @property
    def is_quiet(self) -> bool:
        """Tell whether nothing is in flight and everything was reported."""
        return not (self.in_flight or self.finished_since or self.answered_since or self.failed_since)

    async def idle(self, within_s: float) -> int:
        """Wait until no request is in flight; return how many still are when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.in_flight:
                    await self.one_ended()
        return self.in_flight

    async def one_ended(self, waiting: Waiting | None = None) -> None:
        """Return when a request ended, in turn for those that wait for its room. The caller sets the deadline."""
        if waiting is not None:
            self.mind(waiting[0])
        mine = (waiting, asyncio.Event())
        self.waiters.append(mine)
        try:
            await mine[1].wait()
        finally:
            if mine in self.waiters:
                self.waiters.remove(mine)


def admitted(slots: int) -> int:
    """Return how many requests may be in flight at an engine: those computed and those queued.

    Two for each slot, but never fewer than `ENGINE_QUEUE_REQUESTS`: a queue costs a client only time,
    a refusal costs it the answer, and the engine queues more cheaply than clients retry.
    """
    return slots + max(limits.ENGINE_QUEUE_REQUESTS, slots * limits.HOST_QUEUE_PER_SLOT)


class Traffic:
    """All counters of one front door."""

    __slots__ = (
        "_first_tokens_gone", "_told_in_flight", "aborted", "by_status", "bytes_in", "bytes_out", "fallbacks",
        "from_peers", "lost", "models", "refused", "resumed", "retries", "to_peers", "tunnels", "waiting",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start at zero."""
        self.models: dict[ModelId, ModelTraffic] = {}
        """Of this node's engines."""
        self.tunnels: dict[Hashable, ModelTraffic] = {}
        """Of tunnels to other nodes, by where they lead."""
        self.from_peers: Counter[ModelId] = Counter()
        """Requests of other nodes that ended well here since the last report."""
        self._first_tokens_gone: dict[ModelId, Counter[int]] = {}
        """Of tunnels that were forgotten."""
        self.to_peers = 0
        """Requests that went to other nodes."""
        self.by_status = [0] * 10
        """Answers by the first digit of their status, those on the straight lane not counted."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.refused = 0
        """Connections for which there was no room."""
        self.retries = 0
        self.fallbacks = 0
        """Requests for a name that nothing has, answered by another model."""
        self.aborted = 0
        """Requests whose client left before the end of the answer."""
        self.lost = 0
        """Answers that lost their engine in the middle."""
        self.resumed = 0
        """How often one of those went on at another one."""
        self._told_in_flight: tuple[tuple[ModelId, int], ...] = ()
        self.waiting = 0
        """Requests that wait for a model; the one number here that falls."""

    def of(self, model: ModelId) -> ModelTraffic:
        """Return the traffic of a model."""
        traffic = self.models.get(model)
        if traffic is None:
            traffic = self.models[model] = ModelTraffic(model)
        return traffic

    def through(self, end: Hashable, model: ModelId) -> ModelTraffic:
        """Return the traffic of the tunnels to one place."""
        traffic = self.tunnels.get(end)
        if traffic is None:
            traffic = self.tunnels[end] = ModelTraffic(model)
        return traffic

    def keep_tunnels(self, ends: AbstractSet[Hashable]) -> None:
        """Forget the tunnels to other places, as soon as nothing more is to be told of them."""
        gone = [end for end, traffic in self.tunnels.items() if end not in ends and traffic.is_quiet]
        for end in gone:
            traffic = self.tunnels.pop(end)
            self._first_tokens_gone.setdefault(traffic.model, Counter()).update(traffic.first_tokens_since)

    @property
    def in_flight(self) -> int:
        """Return the requests at all engines together: this node's, and those of others."""
        return sum(traffic.in_flight for traffic in (*self.models.values(), *self.tunnels.values()))

    def look(self) -> None:
        """Take note of the time wherever something has moved."""
        for traffic in (*self.models.values(), *self.tunnels.values()):
            _ = traffic.last_progress_s

    def on_lane(self) -> Iterable[tuple[ModelId, int]]:
        """Return how many requests ended well on the straight lane, by model."""
        return ((model, traffic.on_lane_before + traffic.finished_since) for model, traffic in self.models.items())

    def first_tokens(self) -> dict[str, Counter[int]]:
        """Return how long streams took to begin, here and elsewhere: how many by step, by model."""
        found: dict[str, Counter[int]] = {model: counts.copy() for model, counts in self._first_tokens_gone.items()}
        for traffic in (*self.models.values(), *self.tunnels.values()):
            if counts := traffic.first_tokens_before + Counter(traffic.first_tokens_since):
                found.setdefault(traffic.model, Counter()).update(counts)
        return found

    def counters(self) -> dict[str, float]:
        """Return the totals by name; each only ever grows."""
        by_status = self.by_status.copy()
        by_status[2] += sum(count for _, count in self.on_lane())
        answers: dict[str, float] = {f"answers_{number}xx": by_status[number] for number in STATUS_CLASSES}
        return answers | {
            "requests": sum(by_status), "bytes_in": self.bytes_in, "bytes_out": self.bytes_out,
            "connections_refused": self.refused, "retries": self.retries, "clients_gone": self.aborted,
            "streams_lost": self.lost, "streams_resumed": self.resumed, "requests_to_peers": self.to_peers,
            "fallback_routes": self.fallbacks,
        }  # fmt: skip

    def measured(self) -> TrafficMeasured | None:
        """Return the requests that ended since the last call and those in flight; None when both are as before."""
        finished, failed = _ended(self.models.values())
        elsewhere, _ = _ended(self.tunnels.values())
        from_peers, self.from_peers = self.from_peers, Counter()
        in_flight = tuple((model, traffic.in_flight) for model, traffic in self.models.items() if traffic.in_flight)
        first_tokens = _begun(self.models.values())
        if not (finished or failed or elsewhere or first_tokens) and in_flight == self._told_in_flight:
            return None
        self._told_in_flight = in_flight
        return TrafficMeasured(
            finished=tuple(finished.items()), failed=tuple(failed.items()), from_peers=tuple(from_peers.items()),
            elsewhere=tuple(elsewhere.items()), in_flight=in_flight, first_tokens=first_tokens,
        )  # fmt: skip


def _begun(traffics: Iterable[ModelTraffic]) -> tuple[tuple[ModelId, tuple[tuple[int, int], ...]], ...]:
    """Return how long streams took to begin since the last call, by model."""
    found = []
    for traffic in traffics:
        if traffic.first_tokens_since:
            found.append((traffic.model, tuple(sorted(traffic.first_tokens_since.items()))))
            traffic.first_tokens_before.update(traffic.first_tokens_since)
            traffic.first_tokens_since = {}
    return tuple(found)


def _ended(traffics: Iterable[ModelTraffic]) -> tuple[Counter[ModelId], Counter[ModelId]]:
    """Return the requests that ended well and badly since the last call, by model."""
    finished: Counter[ModelId] = Counter()
    failed: Counter[ModelId] = Counter()
    for traffic in traffics:
        if ended := traffic.finished_since + traffic.answered_since:
            finished[traffic.model] += ended
            traffic.on_lane_before += traffic.finished_since
        if traffic.failed_since:
            failed[traffic.model] += traffic.failed_since
        traffic.finished_since = traffic.answered_since = traffic.failed_since = 0
    return finished, failed
