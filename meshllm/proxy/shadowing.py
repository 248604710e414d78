"""Copies of requests, sent to another model once the request itself was answered; nobody sees what comes back.

Owns the copies that are under way: each is an exchange of its own, with nobody at its other end. Decides nothing:
`core.routing.shadowing` says which requests are copied and where to. Doesn't know clients; a copy waits for nothing, is
tried at one host alone, and is asked no quota, nor charged to one.

Invariant: a copy begins after its request was let in and is over, so it never delays that.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from meshllm.core import limits
from meshllm.core.ids import ModelId
from meshllm.core.routing.experiments import Trial
from meshllm.core.routing.priorities import Priority
from meshllm.core.routing.route_memory import NO_REPORT, Report
from meshllm.core.routing.shadowing import Shadows, host_of
from meshllm.core.routing_config import Shadow
from meshllm.proxy.asks import report_of, report_of_events
from meshllm.proxy.forward import Exchange
from meshllm.proxy.intake import Intake
from meshllm.proxy.journal import Journal
from meshllm.proxy.openai import Problem
from meshllm.proxy.peek import Peek
from meshllm.proxy.plan import Planner
from meshllm.proxy.pursuit import errand
from meshllm.proxy.target import Target
from meshllm.proxy.targets import Targets
from meshllm.proxy.tending import Tending
from meshllm.wire.tunnel_frames import TunnelProgress, TunnelRefusal

_LOST = Problem(status=502, code="host_lost", message="the host of a copy was lost", type="server_error")


class Shadowing:
    """Sends copies."""

    def __init__(self, targets: Targets, planner: Planner) -> None:
        """Find hosts by `targets`; `planner` has the figures."""
        self._targets = targets
        self._planner = planner
        self.tending = Tending()
        self.copies: set[Copy] = set()

    @property
    def shadows(self) -> Shadows:
        """Return the figures."""
        return self._planner.memory.stats.shadows

    def copy(self, exchange: Exchange, original: Trial) -> None:
        """Copy a request that has ended, if it is the turn of one."""
        door = exchange.intake.inference
        if door is None or not exchange.attempts:
            return
        names, model = self._targets.views.newest.names, exchange.target.model
        wanted = [one for one in self._planner.config.shadow if names.resolve(one.of) == model]
        for shadow in self.shadows.due(wanted, len(exchange.body)):
            found = self._targets.find(shadow.to, door, exchange.seen.wishes)
            host = self._host(found) if isinstance(found, Target) and not found.is_fallback else None
            if host is None:
                self.shadows.dropped(shadow)
            else:
                Copy(self, shadow, original, self._planner.clock).set_out(exchange, host)

    async def close(self) -> None:
        """End every copy."""
        for one in tuple(self.copies):
            one.hang_up()
        await self.tending.close()

    @staticmethod
    def _host(found: Target) -> Target | None:
        """Return the host of a model that takes a copy. Another node would charge one to the quotas of its model."""
        targets = {one.node: one for one in (found, *found.others) if not (one.is_metered and one.peer is not None)}
        host = host_of(
            one.candidate.as_busy_as(max(one.candidate.busy, one.traffic.in_flight + one.pool.opening))
            for one in targets.values()
            if one.candidate is not None
        )
        return None if host is None else targets[host.node]


class Copy:
    """One copy: the client, the house and the gauge of its exchange."""

    is_paused = False

    def __init__(self, shadowing: Shadowing, shadow: Shadow, original: Trial, clock: Callable[[], float]) -> None:
        """Be compared with what came of the original."""
        self._shadowing = shadowing
        self._shadow = shadow
        self._original = original
        self._clock = clock
        self._began_s = clock()
        self._first_byte_s: float | None = None
        self._report: Report = NO_REPORT
        self._tail: deque[bytes] = deque(maxlen=limits.ANSWER_TAIL_PIECES)
        self._is_refused = False
        self._exchange: Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.model = ModelId(shadow.to)

    def set_out(self, original: Exchange, host: Target) -> None:
        """Send the copy to its host."""
        shadowing = self._shadowing
        intake = replace(original.intake, priority=Priority.LOW)
        exchange = self._exchange = Exchange(self, intake, original.body, original.request_id + b"-copy", self, host)
        exchange.asked_model, exchange.is_stream, exchange.meter = original.asked_model, original.is_stream, self
        shadowing.copies.add(self)
        shadowing.shadows.begun()
        self._timer = asyncio.get_running_loop().call_later(limits.LOAD_WAIT_S, self.hang_up)
        connection = host.pool.take()
        if connection is not None:
            exchange.begin(connection)
        else:
            shadowing.tending.start(exchange, self._connect(exchange))

    async def _connect(self, exchange: Exchange) -> None:
        try:
            connection = await exchange.target.pool.connect(errand(exchange))
        except OSError:
            self._is_refused = not exchange.attempts
            exchange.answer(_LOST)
            return
        exchange.task = None
        exchange.begin(connection)

    def hang_up(self) -> None:
        """End it: it takes too long, or this node leaves."""
        if self._exchange is not None:
            self._exchange.cancel()
        self._over()

    def _over(self) -> None:
        self._shadowing.copies.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._exchange = self._timer = None

    # -- ClientSide: there is nobody ------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Note when something came first."""
        if data and self._first_byte_s is None:
            self._first_byte_s = self._clock() - self._began_s

    def exchange_done(self, status: int, *, keeps_alive: bool) -> None:  # noqa: ARG002 - nobody asks for more
        """Be over."""
        self._over()

    def cut(self) -> None:
        """Be over; what is incomplete was settled as an error."""
        self._over()

    # -- Gauge: what the answer says of itself, and no quota --------------------------------------------

    def answered(self, document: bytes) -> None:
        """Take a whole answer."""
        self._report = report_of(document)

    def piece(self, data: bytes) -> None:
        """Take a piece of a stream."""
        self._tail.append(data)

    def settle(self) -> None:
        """Do nothing: nothing is set aside."""

    def end(self) -> None:
        """Do nothing: nothing is charged."""

    def _told(self) -> Report:
        """Return what the answer said of itself, whole or in its last events."""
        for is_chunked in (True, False):
            if self._report is NO_REPORT:
                self._report = report_of_events(self._tail, is_chunked=is_chunked)
        return self._report

    def retry_after_s(self) -> int:
        """Return when a client may come back; there is none."""
        return 1

    def lines(self) -> bytes:
        """Return no fields."""
        return b""

    # -- Recovery: one host, or none ---------------------------------------------------------------------

    def recover(self, exchange: Exchange) -> None:
        """Use a new connection where a resting one was closed meanwhile; else the copy has failed."""
        if exchange.failed_at is None and exchange.attempts < limits.ENGINE_ATTEMPTS and not self._is_refused:
            self._shadowing.tending.start(exchange, self._connect(exchange))
        else:
            exchange.answer(_LOST)

    def turns_elsewhere(self, exchange: Exchange, problem: Problem) -> bool:  # noqa: ARG002 - whatever it is
        """Return False: what a host says is what is compared."""
        return False

    def refused(self, exchange: Exchange, refusal: TunnelRefusal) -> None:  # noqa: ARG002 - whatever it says
        """Drop a copy that a far end has no room for."""
        self._is_refused = True
        exchange.answer(_LOST)

    def progressed(self, exchange: Exchange, progress: TunnelProgress) -> None:
        """Do nothing: nobody waits."""

    def lost(self, exchange: Exchange, events: int) -> Problem:  # noqa: ARG002 - whatever was lost
        """Return what ends the answer."""
        return _LOST

    def settled(self, exchange: Exchange, *, is_ok: bool) -> None:  # noqa: ARG002 - there is one
        """Compare what came of the copy with what came of the original."""
        told = self._told()
        copy = Trial(
            is_ok=is_ok, took_s=self._clock() - self._began_s, first_byte_s=self._first_byte_s if is_ok else None,
            prompt_tokens=told.prompt_tokens, cached_tokens=told.cached_tokens, made_tokens=told.made_tokens,
        )  # fmt: skip
        self._shadowing.shadows.ended(self._shadow, self._original, None if self._is_refused else copy)

    def breaks_off(self, problem: Problem) -> bool:  # noqa: ARG002 - whichever it is
        """Return True: nobody reads the end."""
        return True

    def journal(self, intake: Intake, seen: Peek, target: Target) -> Journal | None:  # noqa: ARG002 - whichever it is
        """Return None: nothing goes on elsewhere."""
        return None

    def resume(self, exchange: Exchange, journal: Journal, problem: Problem) -> bool:  # noqa: ARG002 - never called
        """Return False: nothing goes on elsewhere."""
        return False

    def go_on(self, exchange: Exchange, after_s: float = 0.0) -> None:  # noqa: ARG002 - never called
        """End it; never called, since nothing is resumed."""
        exchange.answer(_LOST)
