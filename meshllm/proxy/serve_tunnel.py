"""The far end of tunnels: requests of other nodes, from admission to this node's own engine.

Owns the tunnels that are open here and the `House` that their requests come into: inference only, one request each,
no rules about Host, Origin or key, since a peer was let in before. Decides when a tunnel is idle or its request has
had its time; `core.routing.tunnel_admission` decides who comes in. Doesn't know how tunnels travel.

Invariant: a request that came through a tunnel is served here or answered with an error; it never goes on to another
node, and is never sent again to an engine that it may have ended.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from time import monotonic
from typing import Protocol, cast

from meshllm.core import limits
from meshllm.core.events import TrafficMeasured
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import Rights
from meshllm.core.routing.asleep import unloaded
from meshllm.core.routing.pace import Pace
from meshllm.core.routing.priorities import Priority, of_peer
from meshllm.core.routing.routes import Refusal
from meshllm.core.routing.tunnel_admission import Crowd, TunnelAsked, admit_tunnel
from meshllm.proxy import openai
from meshllm.proxy.client import ClientConnection, ClientTimes
from meshllm.proxy.completion_cache import CompletionCache
from meshllm.proxy.forward import Exchange
from meshllm.proxy.heads import Arrival, Heads
from meshllm.proxy.intake import Door, Intake
from meshllm.proxy.journal import Journal
from meshllm.proxy.metering import Metering
from meshllm.proxy.openai import Problem
from meshllm.proxy.paths import InferenceDoor
from meshllm.proxy.peek import BodyError, Peek, peek
from meshllm.proxy.problem_answers import problem_answer
from meshllm.proxy.pursuit import Pursuit, errand
from meshllm.proxy.straight import Phase
from meshllm.proxy.target import Target
from meshllm.proxy.targets import Targets
from meshllm.proxy.tracing import Outcome, Tracing
from meshllm.proxy.traffic import Traffic, admitted
from meshllm.wire.tunnel_frames import TunnelFailure, TunnelHead, TunnelProgress, TunnelRefusal


class Host(Protocol):
    """The front door, as far as tunnels need it."""

    is_leaving: bool
    request_ids: Iterator[bytes]
    routes: Targets
    pursuit: Pursuit
    traffic: Traffic
    metering: Metering
    tracing: Tracing
    completions: CompletionCache

    @property
    def times(self) -> ClientTimes:
        """Return the deadlines of connections."""

    def lost(self, exchange: Exchange, events: int) -> Problem:
        """Count an answer that broke off; return what its client is told."""

    def tend(self, exchange: Exchange, work: Coroutine[object, object, None]) -> None:
        """Run something for an exchange, as a task that has an owner."""


class TunnelledConnection(ClientConnection):
    """One tunnel with one request of a peer."""

    __slots__ = ("_ends_s", "_far", "_told_s", "ahead", "began_s", "ended_then", "head", "peer", "priority")

    def __init__(self, house: "FarEnd", peer: NodeId, head: TunnelHead, priority: Priority = Priority.NORMAL) -> None:
        """Belong to a far end."""
        super().__init__(house)
        self._far = house
        self.peer = peer
        self.head = head
        self.priority = priority
        self._ends_s = self._since_s + min(head.deadline_s, limits.TUNNEL_REQUEST_S)
        self._told_s = self.began_s = self._since_s
        self.ahead = self.ended_then = 0
        """Requests that queued before it when it came, and how many its model had ended then."""

    # -- asyncio.Protocol -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Come in: admission was decided before."""
        self._transport = cast("asyncio.Transport", transport)
        self._heads = self._far.heads("")
        self._far.admit(self, "")

    def data_received(self, data: bytes) -> None:
        """Read the request; there is only one."""
        self._traffic.bytes_in += len(data)
        if self._phase is Phase.BUSY:
            self.abort()  # the peer breaks the rules; its client is told by its own node
        else:
            self.receive(data)

    def eof_received(self) -> bool:
        """Take the end of the request; a request that is not complete then never will be."""
        if self._phase in {Phase.IDLE, Phase.HEAD, Phase.BODY}:
            message = "the tunnel ended before its request was complete"
            self._refuse(Problem(status=400, code="malformed_request", message=message))
        return True

    # -- the same as for clients, but for one request -------------------------------------------------

    def serve(self, arrival: Arrival, body: bytes) -> None:
        """Let the far end answer the request, if it ends where it said it would."""
        if self._buffer:
            message = "the request goes on after its end"
            self._refuse(Problem(status=400, code="malformed_request", message=message))
            return
        super().serve(arrival, body)

    def exchange_done(self, status: int, *, keeps_alive: bool) -> None:  # noqa: ARG002 - one request, one tunnel
        """Count the answer and end the tunnel."""
        if self._exchange is not None and self._exchange.attempts and status < 500:
            self._far.answered(self.head.model)
        super().exchange_done(status, keeps_alive=False)

    def cut(self) -> None:
        """Break the answer off; where the tunnel can carry why, the entry node does not take it for a lost path."""
        fail = getattr(self._transport, "fail", None)
        if fail is not None:
            fail(TunnelFailure(code=openai.ENGINE_LOST, message=f"the engine of {self.head.model} was lost"))
        super().cut()

    def check(self, now_s: float) -> None:
        """Act on deadlines that have passed, those of the tunnel included."""
        if now_s >= self._ends_s and self._phase is Phase.BUSY and self._exchange is not None:
            message = "the time that this request had is over"
            self._exchange.end_early(Problem(status=504, code="deadline_exceeded", message=message))
        elif self._phase is Phase.IDLE and now_s - self._since_s >= self._far.times.header_timeout_s:
            self._refuse(Problem(status=408, code="request_timeout", message="no request came through the tunnel"))
        else:
            if now_s - self._told_s >= limits.TUNNEL_HEARTBEAT_S and self._phase is Phase.BUSY:
                self._told_s = now_s
                self._far.tell(self, now_s)
            super().check(now_s)

    def report(self, queued: int, still_s: float) -> None:
        """Let the entry node know what goes on until the first byte; the transport repeats it."""
        say = getattr(self._transport, "progress", None)
        if say is not None and (self._exchange is None or not self._exchange.has_begun):
            say(TunnelProgress(stage="queued" if queued else "computing", queued=queued, still_s=still_s))

    def _refuse(self, problem: Problem) -> None:
        """Answer with an error and end the tunnel: nobody sends here blindly, so there is nothing to linger for."""
        super()._refuse(problem)
        self.close()


class FarEnd:
    """The house of tunnelled requests."""

    def __init__(self, host: Host) -> None:
        """Serve at the engines of `host`."""
        self._host = host
        self.traffic = Traffic()
        """Totals of tunnels; what is counted by model is counted with everything else at that engine."""
        self.request_ids = host.request_ids
        self.routes = host.routes
        self._heads = Heads(None, "")
        self._tunnels: set[TunnelledConnection] = set()
        self._paces: dict[ModelId, Pace] = {}
        self._ended: Counter[ModelId] = Counter()
        self.moved_s: dict[ModelId, float] = {}
        """When each engine here last got on with its work, or had none; without those that do not tell."""

    # -- for the transport ----------------------------------------------------------------------------

    def take(self, peer: NodeId, rights: Rights, head: TunnelHead) -> asyncio.Protocol | TunnelRefusal:
        """Return the protocol for a tunnel that a peer has opened, or why it is not taken."""
        view = self.routes.views.newest
        if head.kept is not None and not self.is_leaving:
            return self._host.completions.for_others.take(view, rights, head)
        priority = of_peer(head.priority, rights)
        asked = TunnelAsked(rights=rights, model=head.model, digest=head.digest, priority=priority)
        denial = admit_tunnel(view, asked, self._crowd(peer, head.model))
        if denial is None and not self.is_leaving:
            return TunnelledConnection(self, peer, head, priority)
        self.traffic.refused += 1
        if denial is None:
            return TunnelRefusal(code="draining", message="this node is shutting down")
        retry_after_s = float(self._host.pursuit.retry_after_s()) if denial.code == "busy" else 0.0
        return TunnelRefusal(code=denial.code, message=denial.message, retry_after_s=retry_after_s)

    def _crowd(self, peer: NodeId, model: ModelId) -> Crowd:
        local, traffic = self.routes.views.newest.local.get(model), self._host.traffic.models.get(model)
        at_model = [tunnel for tunnel in self._tunnels if tunnel.head.model == model]
        coming = sum(tunnel.exchange is None or not tunnel.exchange.attempts for tunnel in at_model)
        in_flight, slots = (traffic.in_flight if traffic is not None else 0) + coming, local.slots if local else 1
        pace = self._paces.get(model)
        return Crowd(
            in_flight=in_flight, slots=slots,
            wait_s=pace.wait_s(max(in_flight - slots, 0), monotonic()) if pace is not None else 0.0,
            of_peer=sum(tunnel.peer == peer for tunnel in at_model),
            admitted=admitted(local.slots) if local is not None else 0, tunnels=len(self._tunnels),
            tunnels_of_peer=sum(tunnel.peer == peer for tunnel in self._tunnels),
        )  # fmt: skip

    # -- for the front door ---------------------------------------------------------------------------

    def check(self, now_s: float) -> None:
        """Look at every tunnel's deadlines. Called a few times a second."""
        for tunnel in tuple(self._tunnels):
            tunnel.check(now_s)

    def note_pace(self, measured: TrafficMeasured | None, now_s: float) -> None:
        """Look at how quickly the engines here get on with their queues. Called once a second with what ended since."""
        local = self.routes.views.newest.local
        for model in {*self._paces, *self.moved_s} - local.keys():
            self._paces.pop(model, None)
            self.moved_s.pop(model, None)
        ended = Counter(dict(measured.finished)) + Counter(dict(measured.failed)) if measured else Counter()
        self._ended.update(ended)
        for model, traffic in self._host.traffic.models.items():
            if (known := local.get(model)) is not None:
                is_full = traffic.in_flight >= known.slots
                self._paces.setdefault(model, Pace()).observe(ended[model], now_s, is_full=is_full)

    def tell(self, tunnel: TunnelledConnection, now_s: float) -> None:
        """Tell an entry node how far its request is, and for how long nothing has moved."""
        model = tunnel.head.model
        ahead = max(tunnel.ahead - (self._ended[model] - tunnel.ended_then), 0)
        moved_s, traffic = self.moved_s.get(model), self._host.traffic.models.get(model)
        last_s = max(moved_s or now_s, tunnel.began_s, traffic.last_progress_s if traffic is not None else 0.0)
        tunnel.report(ahead, max(now_s - last_s, 0.0))

    def end(self, problem: Problem) -> None:
        """End every tunnel as well as it still can be ended."""
        for tunnel in tuple(self._tunnels):
            if tunnel.exchange is not None:
                tunnel.exchange.end_early(problem)
            tunnel.close()

    def abort(self) -> None:
        """Break what is still open."""
        for tunnel in tuple(self._tunnels):
            tunnel.abort()

    def counters(self) -> dict[str, float]:
        """Return what was counted since the start, by name."""
        total = self.traffic
        return {
            "requests_from_peers": sum(total.by_status), "failures_for_peers": total.by_status[5],
            "tunnels_refused": total.refused, "tunnels_cancelled": total.aborted,
            "bytes_from_peers": total.bytes_in, "bytes_to_peers": total.bytes_out,
        }  # fmt: skip

    # -- House: for tunnels ---------------------------------------------------------------------------

    @property
    def is_leaving(self) -> bool:
        """Tell whether the node takes nothing more."""
        return self._host.is_leaving

    @property
    def times(self) -> ClientTimes:
        """Return the deadlines."""
        return self._host.times

    def admit(self, client: ClientConnection, address: str) -> Problem | None:  # noqa: ARG002 - peers have no address
        """Count a tunnel in."""
        self._tunnels.add(cast("TunnelledConnection", client))
        return None

    def forget(self, client: ClientConnection, address: str) -> None:  # noqa: ARG002 - peers have no address
        """Count a tunnel out."""
        self._tunnels.discard(cast("TunnelledConnection", client))

    def answered(self, model: ModelId) -> None:
        """Count a request of a peer that ended well."""
        self._host.traffic.from_peers[model] += 1

    def heads(self, local_address: str) -> Heads:  # noqa: ARG002 - tunnels have none
        """Return the memory of heads."""
        return self._heads

    def error_lines(self, arrival: Arrival | None) -> bytes:
        """Return our own fields for an answer that no engine had a part in."""
        return b"X-Request-ID: %b\r\n" % self._request_id(arrival)

    def serve(self, client: ClientConnection, arrival: Arrival, body: bytes) -> Exchange | None:
        """Answer a complete request: at once, or through the exchange that is returned."""
        tunnel, intake = cast("TunnelledConnection", client), arrival.intake
        if intake.inference is None or intake.door is not Door.INFERENCE:
            message = "tunnels carry requests to models and nothing else"
            self._refuse(client, arrival, intake.refusal or Problem(status=404, code="not_found", message=message))
            return None
        seen = self._checked(tunnel, intake.inference, body)
        if isinstance(seen, Problem):
            self._refuse(client, arrival, seen)
            return None
        target = self._target(tunnel, intake.inference)
        if isinstance(target, Problem):
            self._refuse(client, arrival, target)
            return None
        exchange = Exchange(client, intake, seen.body, self._request_id(arrival), self, target)
        exchange.seen, exchange.watch = seen, self._host.tracing.tunnelled(tunnel.head)
        return self._begin(tunnel, exchange, seen.is_stream)

    # -- Recovery: for exchanges ----------------------------------------------------------------------

    def recover(self, exchange: Exchange) -> None:
        """Use a new connection where a resting one was closed meanwhile; what else is lost, the entry node handles."""
        if exchange.failed_at is None and exchange.losses < limits.ENGINE_ATTEMPTS:
            self._host.tend(exchange, self._connect(exchange))
        else:
            exchange.answer(self._lost_before(exchange))

    def turns_elsewhere(self, exchange: Exchange, problem: Problem) -> bool:  # noqa: ARG002 - whatever it is
        """Return False: the entry node alone tries again."""
        return False

    def refused(self, exchange: Exchange, refusal: TunnelRefusal) -> None:  # noqa: ARG002 - never called
        """Answer that the engine is lost; requests from tunnels enter no tunnels."""
        exchange.answer(self._lost_before(exchange))

    def progressed(self, exchange: Exchange, progress: TunnelProgress) -> None:
        """Do nothing; requests from tunnels enter no tunnels."""

    def lost(self, exchange: Exchange, events: int) -> Problem:
        """Count an answer that broke off; return what is said in its place."""
        return self._host.lost(exchange, events)

    def settled(self, exchange: Exchange, *, is_ok: bool) -> None:
        """Say what a request used of its model's quotas; the entry node counts it."""
        if exchange.meter is not None:
            exchange.meter.settle()
        if exchange.watch is not None:
            target = exchange.target
            exchange.watch.ended(Outcome(exchange.status, is_ok, target.model, target.node))

    def breaks_off(self, problem: Problem) -> bool:
        """Tell whether the entry node can do better than to pass an error on: go on with the answer elsewhere."""
        return problem.code in {openai.HOST_LOST, openai.LEAVING}

    def journal(self, intake: Intake, seen: Peek, target: Target) -> Journal | None:  # noqa: ARG002 - whichever it is
        """Return None: the entry node keeps it."""
        return None

    def resume(self, exchange: Exchange, journal: Journal, problem: Problem) -> bool:  # noqa: ARG002 - never called
        """Return False: the entry node resumes."""
        return False

    def go_on(self, exchange: Exchange, after_s: float = 0.0) -> None:  # noqa: ARG002 - never called
        """Answer that the engine is lost; never called, since nothing is resumed here."""
        exchange.answer(self._lost_before(exchange))

    # -- steps ----------------------------------------------------------------------------------------

    def _checked(self, tunnel: TunnelledConnection, door: InferenceDoor, body: bytes) -> Peek | Problem:
        """Return what is to be known of a body, or what is wrong with it."""
        try:
            seen = peek(body, door.shape)
        except BodyError as error:
            return Problem(status=400, code=error.code, message=error.message, param=error.param)
        if seen.model != tunnel.head.model:
            message = f"the request is for {seen.model!r}, its tunnel for {tunnel.head.model!r}"
            return Problem(status=400, code="model_mismatch", message=message[:512], param="model")
        return seen

    def _target(self, tunnel: TunnelledConnection, door: InferenceDoor) -> Target | Problem:
        """Return this node's engine for a request, or why there is none: much may have changed since admission."""
        head, retry_after_s = tunnel.head, self._host.pursuit.retry_after_s()
        found = self.routes.find_here(f"{head.model}@{head.digest}" if head.digest else head.model, door)
        if isinstance(found, Target):
            is_full = found.traffic.in_flight >= found.room(tunnel.priority)
            return self._host.pursuit.overloaded(found) if is_full else found
        if isinstance(found, Refusal):
            return openai.refused(found, retry_after_s)
        return Problem(status=503, code="model_loading", message=found.message, retry_after_s=retry_after_s)

    def _begin(self, tunnel: TunnelledConnection, exchange: Exchange, is_stream: bool) -> Exchange:  # noqa: FBT001
        exchange.asked_model, exchange.is_stream, exchange.since_s = tunnel.head.model, is_stream, monotonic()
        traffic, slots = exchange.target.traffic, exchange.target.slots
        queued = max(traffic.in_flight - slots + 1, 0)
        tunnel.ahead, tunnel.ended_then, tunnel.began_s = queued, self._ended[tunnel.head.model], monotonic()
        tunnel.report(queued, 0.0)
        if exchange.target.is_metered:
            self._host.tend(exchange, self._admit(tunnel, exchange))
            return exchange
        has_room = traffic.in_flight < self.routes.most(exchange.target, tunnel.priority)
        connection = exchange.target.pool.take() if has_room else None
        if connection is not None:
            exchange.begin(connection)
        else:
            self._host.tend(exchange, self._connect(exchange))
        return exchange

    async def _admit(self, tunnel: TunnelledConnection, exchange: Exchange) -> None:
        """Send a request on if the quotas of its model let it in."""
        problem = await self._host.metering.admit(exchange, exchange.target, tunnel.priority)
        if problem is None:
            await self._connect(exchange)
        else:
            exchange.answer(problem)

    async def _connect(self, exchange: Exchange) -> None:
        """Send a request over a new connection, when it is its turn: its tunnel knows how long it may wait."""
        tunnel, door = cast("TunnelledConnection", exchange.client), exchange.intake.inference
        while (target := exchange.target).traffic.in_flight + target.pool.opening >= target.engine_room(
            tunnel.priority
        ):
            await target.traffic.one_ended((tunnel.priority, exchange.since_s))
            found = self._target(tunnel, door) if door is not None else target
            if isinstance(found, Problem):  # much may have changed meanwhile
                exchange.answer(found)
                return
            exchange.target = found
        target.traffic.came_in(tunnel.priority)
        try:
            connection = await exchange.target.pool.connect(errand(exchange))
        except OSError:
            exchange.answer(self._lost_before(exchange) if exchange.attempts else self._not_there(exchange))
            return
        exchange.task = None
        exchange.begin(connection)

    def _not_there(self, exchange: Exchange) -> Problem:
        """Say that nothing was sent to an engine, which has just gone: the request cost none."""
        message = f"the engine of {exchange.target.model} is not there right now"
        return Problem(
            status=503, code=openai.MODEL_LOADING, message=message, retry_after_s=self._host.pursuit.retry_after_s()
        )

    def _lost_before(self, exchange: Exchange) -> Problem:
        """Say why no answer begins: the engine was ended on purpose, or it was lost."""
        withdrawn = unloaded(self.routes.views.newest, exchange.target.model)
        if withdrawn is not None:
            return openai.refused(withdrawn, self._host.pursuit.retry_after_s())
        message = f"the engine of {exchange.target.model} was lost before its answer began"
        return Problem(status=502, code=openai.ENGINE_LOST, message=message, type="server_error")

    def _refuse(self, client: ClientConnection, arrival: Arrival, problem: Problem) -> None:
        data = problem_answer(problem, arrival.intake, self.error_lines(arrival) + b"Connection: close\r\n")
        client.answer(data, problem.status, keeps_alive=False)

    def _request_id(self, arrival: Arrival | None) -> bytes:
        return (arrival.request_id if arrival is not None else None) or next(self.request_ids)
