"""The slow paths of a request: connecting, waiting for its model, trying again after a loss.

Owns the order of these steps and their deadlines. Decides when waiting has become pointless and what
the client is told then. Doesn't know how views are made nor what an engine is; one task for each request
that needs it, none for the others.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from math import inf
from time import monotonic

from meshllm.core import limits
from meshllm.core.events import Event, ModelWanted
from meshllm.core.ids import ModelId
from meshllm.core.routing.asleep import coming, order_version, unloaded, unloaded_since
from meshllm.core.routing.attempts import Setback, Trail, pause_s
from meshllm.core.routing.priorities import Priority, aged
from meshllm.core.routing.routes import Refusal, RefusalCode, Wait
from meshllm.core.view import MeshView
from meshllm.proxy import openai
from meshllm.proxy.forward import Exchange
from meshllm.proxy.intake import Intake
from meshllm.proxy.openai import Problem
from meshllm.proxy.peek import Peek
from meshllm.proxy.plan import Planner
from meshllm.proxy.pool import Errand
from meshllm.proxy.target import Target, Trip
from meshllm.proxy.targets import Targets
from meshllm.proxy.traffic import Traffic
from meshllm.proxy.tunnel_pool import refusal_of
from meshllm.proxy.ways import Reach, Ways
from meshllm.wire.tunnel_frames import TunnelProgress

_ASKED_REMEMBERED = 1024
_FULL, _COME_LATER = 429, 503
_COME_BACK = frozenset({429, 502, 503})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long requests wait, in seconds, and what spreads those that come back."""

    load_wait_s: float
    """For a model."""
    comment_s: float
    """Until a stream hears that it waits, and from then to then."""
    rng: random.Random


class Pursuit:
    """Finds a way for exchanges that have none right now."""

    def __init__(
        self, targets: Targets, traffic: Traffic, reach: Reach, planner: Planner, post: Callable[[Event], None],
        patience: Patience,
    ) -> None:  # fmt: skip
        """Wait for what views may bring, as long as `patience` says."""
        self._views = targets.views
        self._targets = targets
        self._planner = planner
        self.ways = Ways(targets, reach, planner, self.retry_after_s)
        self._traffic = traffic
        self._post = post
        self._load_wait_s = patience.load_wait_s
        self._comment_s = patience.comment_s
        self._rng = patience.rng
        self.turn: Callable[[Exchange], None] = _keep
        """Gives a request that left its model open another one, where there is no way left to the one that it had."""
        self.admit: Admission = _welcome
        """Asks the quotas of a model before a request goes to its engine here."""
        self.let_in: Entrance = _come_in
        """Asks the quotas of a client, once for each of its requests."""
        self._asked_for: dict[ModelId, float] = {}
        """Model that nobody loads to the time when it was last asked for: one event, however many requests wait."""

    def retry_after_s(self) -> int:
        """Return when a refused client should come back, spread so that not all come at once."""
        return self._rng.randint(1, 5)

    def pause_s(self) -> float:
        """Return how long a stream that found no room waits before it asks again: not all at the same time."""
        return limits.STREAM_RESUME_PAUSE_S * self._rng.uniform(0.5, 1.5)

    async def run_later(self, exchange: Exchange, after_s: float) -> None:
        """Do what `run` does, after a pause."""
        await asyncio.sleep(after_s)
        await self.run(exchange)

    async def run_for_client(self, exchange: Exchange) -> None:
        """Do what `run` does, within what a client may use."""
        problem = await self.let_in(exchange)
        if problem is None:
            await self.run(exchange)
        else:
            self._answer(exchange, problem)

    def overloaded(self, target: Target) -> Problem:
        """Return the refusal of a request for which an engine has no room."""
        message = f"{target.traffic.in_flight} requests are at the model {target.model!r} already; try again soon"
        return Problem(status=429, code="overloaded", message=message, retry_after_s=self.retry_after_s())

    def goes_at_once(self, exchange: Exchange, found: Target) -> bool:
        """Send a request with several ways, if its best one is an engine here with room and a resting connection."""
        way = self.ways.next(exchange, found)
        if (
            not isinstance(way, Target)
            or way.peer is not None
            or way.traffic.in_flight >= way.engine_room(exchange.intake.priority)
        ):
            return False
        connection = way.pool.take()
        if connection is None:
            return False
        exchange.go(way)
        exchange.begin(connection)
        return True

    def looked_at(self, target: Target, seen: Peek, intake: Intake, most: int) -> Problem | Trip | None:
        """Say why a request cannot be served; return a trip if its way has to be chosen, None if it is plain.

        `most` are in flight before that is asked. A low one waits for room as long as there is some for others.
        """
        traffic, door = target.traffic, intake.inference
        whole = max(target.room(intake.priority), target.admitted)
        if traffic.before(intake.priority) >= whole and not target.others:
            return self.overloaded(target)
        trip = Trip() if traffic.in_flight >= most else None
        if door is not None and len(seen.body) > target.unasked_bytes:
            objection = self.ways.objection(target, seen, door)
            if isinstance(objection, Problem):
                return objection
            if 0 < target.context_tokens < objection:
                trip = Trip()
                trip.trail.context_over = objection - 1
        return trip

    async def run(self, exchange: Exchange) -> None:
        """Bring an exchange to an engine, or answer it with the reason why that cannot be."""
        now_s = monotonic()
        exchange.known_orders = {} if exchange.known_orders is None else exchange.known_orders
        if exchange.waits is None or exchange.waits[0] != exchange.losses:
            most_s = self._load_wait_s if exchange.wait_most_s is None else exchange.wait_most_s
            exchange.waits = (exchange.losses, now_s + most_s)
        wait = _Waiting(exchange.waits[1], exchange.known_orders)
        exchange.since_s = exchange.since_s or now_s
        exchange.comment_at_s = exchange.comment_at_s or now_s + self._comment_s
        if exchange.attempts and exchange.target.peer is None:
            wait.model = exchange.target.model
        is_counted = False
        try:
            while True:
                view = self._views.newest
                found = self._find(exchange, wait, view)
                if isinstance(found, Problem):
                    self._answer(exchange, found)
                    return
                if isinstance(found, Target):
                    if not await self._may_try(exchange, wait):
                        self._answer(exchange, self._retried_enough(exchange, found))
                        return
                    exchange.target = found
                    setbacks = exchange.setbacks
                    if await self._try_target(exchange, found):
                        return
                    if exchange.setbacks > setbacks:
                        continue
                else:
                    self._ask_for(found)
                exchange.leave()
                self._note(wait, exchange, found)
                if not is_counted and not self._may_wait(exchange):
                    return
                is_counted = True
                if monotonic() >= wait.ends_s:
                    self._answer(exchange, self._given_up(exchange, found, wait))
                    return
                await self._next_change(exchange, view.epoch, found, wait)
        finally:
            if is_counted:
                self._traffic.waiting -= 1

    def _answer(self, exchange: Exchange, problem: Problem) -> None:
        """End with an error; it comes from this node, unless it is what another one said.

        A stream that goes on asks again where there was no room: this node itself may have no tunnel left.
        """
        if problem.status == _FULL and exchange.again is not None and exchange.again.asks_again():
            return
        if problem.code == openai.QUOTA_EXCEEDED and problem.retry_after_s is None:
            meter = exchange.meter
            after_s = meter.retry_after_s() if meter is not None else self.retry_after_s()
            problem = replace(problem, retry_after_s=after_s)
        if exchange.target.peer is not None and problem.code not in _said(exchange):
            exchange.target = self._targets.management
        exchange.answer(problem)

    def _note(self, wait: "_Waiting", exchange: Exchange, found: Target | Wait) -> None:
        """Say what is waited for, and until when: the node notices a lost engine soon or not at all."""
        now_s = monotonic()
        wait.is_for_room = False
        if isinstance(found, Wait) and found.is_asleep:
            wait.reason = found.message
            wait.short_of(now_s + limits.UNCLAIMED_WAIT_S)
        elif isinstance(found, Wait) and wait.is_coming_back:
            wait.reason = found.message
            wait.short_of(now_s + limits.ENGINE_LOST_WAIT_S)
        elif isinstance(found, Wait):
            wait.reason = found.message
            wait.whole()
        elif found.pool.endpoint == exchange.failed_at:
            wait.reason = f"the engine of {found.model} does not answer"
            wait.short_of(now_s + limits.ENGINE_LOST_WAIT_S)
        else:
            wait.reason, wait.is_for_room = f"{found.traffic.in_flight} requests are before this one", True
            wait.whole()

    def _find(self, exchange: Exchange, wait: "_Waiting", view: MeshView) -> Target | Wait | Problem:
        """Return where the request goes, what it waits for, or why it goes nowhere."""
        door = exchange.intake.inference
        if exchange.seen.is_open and not exchange.has_begun:
            self.turn(exchange)  # what a model has begun to say, no other one goes on with
        found = (
            self._targets.management
            if door is None
            else self._targets.find(exchange.asked_model, door, exchange.seen.wishes)
        )
        if door is not None and not isinstance(found, Refusal):
            found = _withdrawn(view, found, wait) or found
        wait.is_coming_back = False
        if isinstance(found, Refusal):
            is_gone = found.code is RefusalCode.MODEL_NOT_FOUND
            if is_gone and exchange.trip is not None and exchange.target.peer is not None and exchange.setbacks:
                return self.ways.told(exchange, exchange.trip.trail, exchange.target)
            return openai.refused(found, self.retry_after_s())
        if exchange.losses >= limits.ENGINE_ATTEMPTS:
            return _given_away(exchange)
        if isinstance(found, Wait) and exchange.trip is not None and RefusalCode.MODEL_UNLOADED in _said(exchange):
            return self.ways.told(exchange, exchange.trip.trail, exchange.target)  # it must not undo what was ordered
        if isinstance(found, Wait):
            return found
        way = self.ways.next(exchange, found, is_patient=monotonic() < wait.load_ends_s)
        wait.is_coming_back = isinstance(way, Wait)
        return way

    async def _try_target(self, exchange: Exchange, target: Target) -> bool:
        """Send the request if the engine is there and has room; return whether the exchange is taken care of."""
        endpoint = target.pool.endpoint
        if exchange.failed_at == endpoint and exchange.failures >= 2:
            self._note_lost(exchange)
            return False  # lost there twice: only another engine, or the same one restarted, can help
        priority = aged(exchange.intake.priority, monotonic() - exchange.since_s)
        if target.traffic.in_flight + target.pool.opening >= target.engine_room(priority):
            return False
        if (problem := await self._over_quota(exchange, target)) is not None:
            if problem.status == 400 or not self.ways.has_others(exchange):
                self._answer(exchange, problem)
                return True
            exchange.note(Setback.BUSY, problem)
            return False
        exchange.go(target)
        target.traffic.came_in(exchange.intake.priority)
        self.ways.taken(target)
        try:
            connection = await target.pool.connect(
                errand(exchange, leave_after_s=self.ways.patience_s(exchange, target))
            )
        except OSError as error:
            exchange.leave()
            target.traffic.wake()  # the place that it had is free again
            if target.peer is not None:
                self._note_unopened(exchange, error)
                return False
            if exchange.intake.inference is None:
                message = "the management app does not answer"
                exchange.answer(Problem(status=502, code="management_lost", message=message))
                return True
            exchange.failed_at, exchange.failures = endpoint, 2
            self._note_lost(exchange)
            return False
        exchange.task = None
        self._traffic.to_peers += target.peer is not None
        exchange.begin(connection)
        return True

    async def _over_quota(self, exchange: Exchange, target: Target) -> Problem | None:
        """Return why the quotas of a model do not let a request in here, as this node decides for its own engines."""
        if (watch := exchange.watch) is not None:
            watch.asks_quotas(target)
        problem = await self.admit(exchange, target, exchange.intake.priority) if target.is_metered else None
        if watch is not None:
            watch.quotas_said(target, problem)
        return problem

    async def _may_try(self, exchange: Exchange, wait: "_Waiting") -> bool:
        """Pause before the second retry and later ones; tell whether a retry is left in the budget of all."""
        retries, plan = exchange.setbacks, exchange.plan
        if not retries or plan is None or exchange.again is not None:
            return True  # what a lost host had to do is no more work for the others than it was for that one
        if not plan.retry(max(self._planner.open, self._traffic.in_flight)):
            return False
        if retries > wait.paused_for:
            wait.paused_for = retries
            delay_s = pause_s(retries, self._planner.config.retry_delay_s, self._rng.random())
            if (delay_s := min(delay_s, wait.load_ends_s - monotonic())) > 0:
                await asyncio.sleep(delay_s)
        return True

    def _retried_enough(self, exchange: Exchange, found: Target) -> Problem:
        """Return what was said last, where much is retried already: where everything fails, more do not help.

        Of a host that was lost a client hears that it may come back: others are there, it is not their turn yet.
        """
        trail = exchange.trip.trail if exchange.trip is not None else Trail()
        said = self.ways.told(exchange, trail, found)
        if said.status not in _COME_BACK:
            return said
        status = _COME_LATER if said.code == openai.HOST_LOST else said.status
        return replace(said, status=status, retry_after_s=self.retry_after_s())

    def _note_lost(self, exchange: Exchange) -> None:
        """Let a request whose engine here is lost go elsewhere, where it can."""
        trip = exchange.trip
        if exchange.intake.inference is not None and (trip is None or exchange.target.node not in trip.trail.setbacks):
            exchange.note(Setback.LOST)

    def _note_unopened(self, exchange: Exchange, error: OSError) -> None:
        """Remember that no tunnel could be opened: the node is not there, or this one has too many under way."""
        exchange.attempts += 1
        refusal = refusal_of(error)
        if refusal is not None:
            self.ways.refused(exchange, refusal)
        else:
            exchange.note(Setback.UNREACHABLE)

    def progressed(self, exchange: Exchange, progress: TunnelProgress) -> None:
        """Tell a stream that waits for a far end how far that is, now and then."""
        now_s = monotonic()
        if exchange.is_stream and now_s >= exchange.comment_at_s:
            exchange.comment_at_s = now_s + self._comment_s
            before = f", {progress.queued} requests before it" if progress.queued else ""
            share = f", {progress.share:.0%} of the prompt is read" if progress.share else ""
            exchange.send_comment(f"waiting: {progress.stage}{before}{share}")

    def _ask_for(self, wait: Wait) -> None:
        """Ask for a model that nobody loads; again now and then, for as long as somebody waits for it."""
        if not wait.is_asleep:
            self._asked_for.pop(wait.model, None)
            return
        now_s = monotonic()
        if now_s - self._asked_for.get(wait.model, float("-inf")) >= limits.WANTED_AGAIN_S:
            if len(self._asked_for) >= _ASKED_REMEMBERED:
                self._asked_for.clear()
            self._asked_for[wait.model] = now_s
            self._post(ModelWanted(model=wait.model))

    def _may_wait(self, exchange: Exchange) -> bool:
        """Take a place among those who wait, or answer that there is none."""
        is_low = exchange.intake.priority is Priority.LOW
        most = limits.LOW_WAITING_REQUESTS if is_low else limits.WAITING_REQUESTS
        if self._traffic.waiting >= most:
            message = f"{self._traffic.waiting} requests wait for models already; try again soon"
            exchange.answer(Problem(status=503, code="overloaded", message=message, retry_after_s=self.retry_after_s()))
            return False
        self._traffic.waiting += 1
        return True

    def _given_up(self, exchange: Exchange, found: Target | Wait, wait: "_Waiting") -> Problem:
        if wait.is_coming_back and exchange.trip is not None:
            return self.ways.told(exchange, exchange.trip.trail, exchange.target)
        if isinstance(found, Wait):
            is_unclaimed = found.is_asleep and wait.ends_s < wait.load_ends_s
            why = "no node takes it up" if is_unclaimed else "it took longer than this request may wait"
            return Problem(
                status=503, code=openai.MODEL_LOADING, message=f"{wait.reason}; {why}",
                retry_after_s=self.retry_after_s(),
            )  # fmt: skip
        if wait.is_for_room:
            return self.overloaded(found)
        return Problem(status=502, code="host_lost", message=wait.reason, type="server_error")

    async def _next_change(self, exchange: Exchange, epoch: int, found: Target | Wait, wait: "_Waiting") -> None:
        """Wait until something may have changed; keep a stream alive meanwhile."""
        ends_s = wait.ends_s
        if isinstance(found, Wait) and found.is_asleep:
            ends_s = min(ends_s, monotonic() + limits.WANTED_AGAIN_S)
        elif wait.is_coming_back:
            ends_s = min(ends_s, monotonic() + limits.UNREACHED_AGAIN_S)
        while (left_s := ends_s - monotonic()) > 0:
            comment_due_s = exchange.comment_at_s - monotonic()
            says_so = exchange.is_stream and comment_due_s < left_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(comment_due_s, 0) if says_so else left_s):
                    if isinstance(found, Target) and wait.is_for_room:
                        await found.traffic.one_ended((exchange.intake.priority, exchange.since_s))
                    else:
                        await self._views.changed(epoch)
                    return
            if says_so:
                exchange.send_comment(f"waiting: {wait.reason}")
                exchange.comment_at_s = monotonic() + self._comment_s


Admission = Callable[[Exchange, Target, Priority], Awaitable[Problem | None]]


Entrance = Callable[[Exchange], Awaitable[Problem | None]]


async def _come_in(_exchange: Exchange) -> Problem | None:
    """Let every client in."""
    return None


async def _welcome(_exchange: Exchange, _target: Target, _priority: Priority) -> Problem | None:
    """Let every request in."""
    return None


def _keep(exchange: Exchange) -> None:
    """Leave a request the model that it has."""


def errand(exchange: Exchange, *, leave_after_s: float = inf) -> Errand:
    """Return what the far end of a tunnel is told of a request."""
    left_s = limits.TUNNEL_REQUEST_S - (monotonic() - exchange.since_s)
    return Errand(
        request_id=exchange.request_id.decode(), attempt=exchange.attempts + 1, deadline_s=max(left_s, 0.0),
        traceparent=exchange.trace.decode() if exchange.watch is None else exchange.watch.field,
        leave_after_s=leave_after_s, priority=exchange.intake.priority,
    )  # fmt: skip


def _said(exchange: Exchange) -> set[str]:
    """Return the codes of the errors that a request was answered with."""
    return {problem.code for problem in exchange.trip.problems.values()} if exchange.trip is not None else set()


def _given_away(exchange: Exchange) -> Problem:
    """Return the refusal of a request that may have ended the engines that worked on it."""
    if exchange.intake.inference is None:
        return Problem(status=502, code="management_lost", message="the management app broke off twice")
    message = f"the engine of {exchange.target.model} was lost {exchange.losses} times while it worked on this request"
    return Problem(status=502, code="host_lost", message=message, type="server_error")


@dataclass(slots=True)
class _Waiting:
    """How one request waits. Times are monotonic."""

    load_ends_s: float
    orders: dict[ModelId, int]
    """The newest order about each model that the request waited for, when it began to."""
    ends_s: float = 0.0
    model: ModelId | None = None
    """What it had or was promised: if it is unloaded now, that was meant for this request too."""
    short_ends_s: float | None = None
    """Until when something is waited for that happens soon or not at all."""
    reason: str = ""
    paused_for: int = 0
    """The retry before which it paused last."""
    is_for_room: bool = False
    """The engine is there, and full."""
    is_coming_back: bool = False
    """The host is there, and its engine is not."""

    def whole(self) -> None:
        """Wait as long as a request may."""
        self.short_ends_s, self.ends_s = None, self.load_ends_s

    def short_of(self, ends_s: float) -> None:
        """Wait until then at most, counted from the first time in a row that this is said."""
        self.short_ends_s = self.short_ends_s or ends_s
        self.ends_s = min(self.load_ends_s, self.short_ends_s)


def _withdrawn(view: MeshView, found: Target | Wait, wait: _Waiting) -> Refusal | None:
    """Return why a request does not get what it had, was promised or waits for: somebody ordered otherwise since."""
    known = wait.orders.setdefault(found.model, order_version(view, found.model))
    if refusal := unloaded_since(view, found.model, known):
        return refusal
    if isinstance(found, Target) and found.peer is not None:
        return None
    is_here = found.model in view.local and coming(found.model, view.replicas.get(found.model, ())) is None
    if not is_here:
        return None
    refusal = unloaded(view, wait.model) if wait.model is not None else None
    if refusal is None and unloaded(view, found.model) is None:
        wait.model = found.model
    return refusal
