"""The front door: one listener for everything that clients and people ask of a node.

Owns the listening socket, the connections behind it and the way from a complete request to whoever
answers it: an engine, the list of models, the management app. Decides how many may come in. Doesn't
know how bytes become requests (`client`), how routes are found (`targets`) or kept up (`forward`).

Invariant: the fast path, from a request with a ready model to its engine, makes no task and waits for
nothing.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from pathlib import Path
from time import monotonic

import msgspec

from meshllm.core import limits
from meshllm.core.events import Event
from meshllm.core.http_numbers import HttpNumbers
from meshllm.core.ids import ModelId, NodeId, short
from meshllm.core.names import AUTO_NAME
from meshllm.core.routing.asleep import unloaded
from meshllm.core.routing.route_memory import RouteMemory
from meshllm.core.routing.routes import Refusal
from meshllm.proxy import openai
from meshllm.proxy.client import ClientConnection
from meshllm.proxy.clients import Clients, Space
from meshllm.proxy.completion_cache import CompletionCache
from meshllm.proxy.door_config import FrontDoorConfig
from meshllm.proxy.fallbacks import Fallbacks
from meshllm.proxy.forward import Exchange
from meshllm.proxy.heads import Arrival, Heads
from meshllm.proxy.http_counts import count_answer, count_exchange
from meshllm.proxy.intake import Door, Intake, connection_line
from meshllm.proxy.journal import Journal
from meshllm.proxy.metering import Metering
from meshllm.proxy.model_lists import ModelLists
from meshllm.proxy.open_requests import OpenRequests
from meshllm.proxy.openai import Problem
from meshllm.proxy.owner_tier import OwnerTier
from meshllm.proxy.peek import BodyError, Peek, peek
from meshllm.proxy.plan import Planner
from meshllm.proxy.problem_answers import problem_answer
from meshllm.proxy.pursuit import Patience, Pursuit
from meshllm.proxy.resume import Resumer
from meshllm.proxy.room import descriptors_for_clients
from meshllm.proxy.serve_tunnel import FarEnd
from meshllm.proxy.shadowing import Shadowing
from meshllm.proxy.straight import request_ids
from meshllm.proxy.target import Target
from meshllm.proxy.targets import Targets, Tunnels, Views
from meshllm.proxy.tending import Tending
from meshllm.proxy.tracing import Collecting, Outcome, Tracing
from meshllm.proxy.traffic import Traffic
from meshllm.proxy.tunnel_pool import NoTunnels, TunnelOpener
from meshllm.proxy.ways import Reach
from meshllm.wire.tunnel_frames import TunnelProgress, TunnelRefusal

__all__ = ["FrontDoor", "FrontDoorConfig"]

log = logging.getLogger(__name__)

_MEASURE_INTERVAL_S = 1.0
_TIMED_INTERVAL_S = 5.0
"""How often a request of each kind leaves the straight lane, where nothing is timed."""
_INFERENCE = Door.INFERENCE


class FrontDoor:
    """Listens for clients and answers them. Use inside a running event loop."""

    def __init__(
        self, config: FrontDoorConfig, views: Views, post: Callable[[Event], None], management_socket: Path,
        rng: random.Random | None = None, tunnels: TunnelOpener | None = None,
    ) -> None:  # fmt: skip
        """Prepare; nothing listens before `start`. `rng` spreads Retry-After, `tunnels` lead to other nodes."""
        self.times = config
        self.is_leaving = False
        self._config = config
        self._views = views
        self._post = post
        self.traffic = Traffic()
        self.http = HttpNumbers()
        rng = rng or random.Random()
        self.tracing = Tracing(config.node, rng.getrandbits)
        self.memory = RouteMemory(rng)
        self.memory.stats.counted_elsewhere = self._on_lane
        self.planner = Planner(self.memory, views)
        reach = self._reach = Reach(post)
        tunnels = tunnels or NoTunnels()
        self._targets = self.routes = Targets(
            views, self.traffic, config.node, management_socket, Tunnels(tunnels, reach)
        )
        own_lines = self._targets.management.client_lines
        self.completions = CompletionCache(views, own_lines, OwnerTier(views, config.node, tunnels))
        patience = Patience(config.load_wait_s, config.comment_s, rng)
        self.metering = Metering(views, config.node, config.quota_zone)
        self._pursuit = self.pursuit = Pursuit(self._targets, self.traffic, reach, self.planner, post, patience)
        self._pursuit.admit, self.planner.quotas = self.metering.admit, self.metering
        self._pursuit.let_in = self.metering.let_in
        self._open = OpenRequests(self.planner, views, self.traffic, rng, Shadowing(self._targets, self.planner))
        self._pursuit.turn = self._open.turn
        self._resumer = Resumer(self._targets, self.traffic, self._pursuit.pause_s)
        self._rules = config.access
        self._servers: list[asyncio.Server] = []
        self._clients = Clients(config.connections_max, config.connections_per_address_max)
        self._heads: dict[str, Heads] = {}
        self._lists = ModelLists(self._pursuit.retry_after_s)
        self._fallbacks = Fallbacks(self.traffic)
        self._tending = Tending()
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._measured_at_s = self._timed_at_s = 0.0
        self.request_ids: Iterator[bytes] = request_ids(f"req-{secrets.token_hex(4)}-".encode())
        self.far_end = FarEnd(self)
        """What other nodes send here: `far_end.take` is the transport's handler of tunnels."""

    # -- start and end --------------------------------------------------------------------------------

    async def start(self) -> tuple[str, int]:
        """Listen; return the bound host and port. Raises OSError, as it comes, when the port is taken."""
        self._clients.most = min(self._config.connections_max, descriptors_for_clients())
        host, port = await self.listen(self._config.port)
        self._sweep()
        return host, port

    async def listen(self, port: int) -> tuple[str, int]:
        """Listen at one more port of the same host; the same is to be had there. Raises OSError, as it comes."""
        server = await asyncio.get_running_loop().create_server(
            lambda: ClientConnection(self), self._config.host, port, backlog=limits.HTTP_ACCEPT_BACKLOG
        )
        self._servers.append(server)
        host, bound = server.sockets[0].getsockname()[:2]
        return host, bound

    def watch(self, collecting: Collecting | None) -> None:
        """Tell a collector and the log what each request does, as far as they want that. Called before `start`."""
        self.tracing.collecting = collecting
        self._targets.is_watched = self.tracing.is_on

    def _begin_leaving(self) -> None:
        self.is_leaving = True
        for heads in self._heads.values():
            heads.forget()
        for client in self._clients:
            client.leave_lane()

    async def close(self) -> None:
        """End everything: streams under way get an error event, other requests a 503."""
        self._begin_leaving()
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for server in self._servers:
            server.close()
        message = "this node is shutting down; ask another one"
        problem = Problem(status=503, code="leaving", message=message, retry_after_s=self._pursuit.retry_after_s())
        for client in self._clients:
            if client.exchange is not None:
                client.exchange.end_early(problem)
            client.close()
        self.far_end.end(problem)
        await self._tending.close()
        await self.completions.close()
        await self._open.shadowing.close()
        self._targets.close()
        await asyncio.sleep(0)  # what was written goes out
        for client in self._clients:
            client.abort()
        self.far_end.abort()
        await asyncio.sleep(0)

    # -- questions of others --------------------------------------------------------------------------

    def in_flight(self, model: ModelId) -> int:
        """Return the requests that a model's engine has and has not answered."""
        traffic = self.traffic.models.get(model)
        return traffic.in_flight if traffic is not None else 0

    def left_out(self, nodes: Collection[NodeId], now_s: float) -> Mapping[NodeId, float]:
        """Return the nodes that get no request because tunnels to them failed, and for how many seconds more."""
        return self._reach.ejections.left_s(nodes, now_s)

    def last_progress_s(self, model: ModelId) -> float:
        """Return the monotonic time of the last byte from a model's engine; 0 if none ever came."""
        traffic = self.traffic.models.get(model)
        return traffic.last_progress_s if traffic is not None else 0.0

    def moved(self, model: ModelId, at_s: float) -> None:
        """Note when a model's engine last got on with its work, as far as its own counters tell."""
        self.far_end.moved_s[model] = at_s

    async def idle(self, model: ModelId, within_s: float) -> int:
        """Wait until no request is in flight at a model; return how many still are when the time is over."""
        return await self.traffic.of(model).idle(within_s)

    @property
    def connections(self) -> int:
        """Return how many clients are connected."""
        return len(self._clients)

    def counters(self) -> Mapping[str, float]:
        """Return what was counted since the start: only ever growing numbers, by name."""
        own: dict[str, float] = {"connections": self._clients.accepted}
        return own | self.traffic.counters() | self.far_end.counters() | self.completions.counters()

    # -- House: for connections -----------------------------------------------------------------------

    def admit(self, client: ClientConnection, address: str) -> Problem | None:
        """Count a connection in, or say why there is no room. Loopback has no limit of its own."""
        space = self._clients.add(client, address)
        if space is Space.ENOUGH and not self.is_leaving:
            return None
        self.traffic.refused += 1
        if space is Space.NOT_A_WORD:
            client.abort()
            return None
        message = "this node has as many connections as it can take; try again soon"
        return Problem(
            status=503, code="too_many_connections", message=message, retry_after_s=self._pursuit.retry_after_s()
        )

    def forget(self, client: ClientConnection, address: str) -> None:
        """Count a connection out."""
        self._clients.discard(client, address)

    def heads(self, local_address: str) -> Heads:
        """Return the memory of heads for connections to a local address."""
        heads = self._heads.get(local_address)
        if heads is None:
            heads = self._heads[local_address] = Heads(self._rules, local_address)
            heads.is_leaving = self.is_leaving
        return heads

    def serve(self, client: ClientConnection, arrival: Arrival, body: bytes) -> Exchange | None:
        """Answer a complete request: at once, or through the exchange that is returned."""
        intake = arrival.intake
        door = intake.door
        if door is _INFERENCE:
            infer = self._watched if self._targets.is_watched else self._infer
            return infer(client, arrival, body)
        if door is Door.MANAGEMENT:
            sent, request_id = body if intake.has_body else b"", self._request_id(arrival)
            if not intake.is_read_only:
                intake = intake.from_caller(client.address, self._config.right(intake, client))
            exchange = Exchange(client, intake, sent, request_id, self, self._targets.management)
            self._send(exchange)
            return exchange
        if door is Door.MODELS:
            self._answer_models(client, arrival)
        elif door is Door.PREFLIGHT:
            lines = b"X-Request-ID: %b\r\n%b" % (self._request_id(arrival), intake.answer_end)
            client.answer(b"HTTP/1.1 204 No Content\r\n" + lines, 204, keeps_alive=intake.keeps_alive)
        elif intake.refusal is not None:
            self._refuse(client, arrival, intake.refusal)
        return None

    def error_lines(self, arrival: Arrival | None) -> bytes:
        """Return our own fields for an answer that no engine had a part in."""
        own = self._targets.management.client_lines
        if arrival is None:
            return b"X-Request-ID: %b\r\n%b" % (next(self.request_ids), own)
        return b"X-Request-ID: %b\r\n%b%b" % (self._request_id(arrival), own, arrival.intake.cors_lines)

    # -- Recovery: for exchanges ----------------------------------------------------------------------

    def recover(self, exchange: Exchange) -> None:
        """Find another way for a request that an engine lost."""
        self.traffic.retries += 1
        self._pursue(exchange)

    def turns_elsewhere(self, exchange: Exchange, problem: Problem) -> bool:
        """Tell whether a request that was answered with an error is to be sent elsewhere."""
        return self._pursuit.ways.turns_elsewhere(exchange, problem)

    def refused(self, exchange: Exchange, refusal: TunnelRefusal) -> None:
        """Find another way for a request that a far end does not take."""
        self._pursuit.ways.refused(exchange, refusal)
        self.recover(exchange)

    def progressed(self, exchange: Exchange, progress: TunnelProgress) -> None:
        """Let a waiting client know that a far end works on its request."""
        self._pursuit.progressed(exchange, progress)

    def lost(self, exchange: Exchange, events: int) -> Problem:
        """Count an answer that broke off after so many events; return what its client is told, if it still can be."""
        model = exchange.target.model
        self.traffic.lost += 1
        log.info("stream lost", extra={"fields": {"model": model, "request": exchange.request_id.decode()}})
        is_here = exchange.intake.inference is not None and exchange.target.peer is None
        withdrawn = unloaded(self._views.newest, model) if is_here else None
        if withdrawn is not None:
            return openai.refused(withdrawn, self._pursuit.retry_after_s())
        who = "engine" if is_here else f"host {short(exchange.target.node)}"
        message = f"the {who} of {model} was lost after {events} events; ask again for a whole answer"
        return Problem(status=502, code=openai.HOST_LOST, message=message, type="server_error")

    def breaks_off(self, problem: Problem) -> bool:  # noqa: ARG002 - whichever it is
        """Return False: a client is told."""
        return False

    def journal(self, intake: Intake, seen: Peek, target: Target) -> Journal | None:
        """Return what is to keep a stream that begins now; None where it could not be resumed."""
        return self._resumer.journal(intake, seen, target)

    def resume(self, exchange: Exchange, journal: Journal, problem: Problem) -> bool:
        """Let a stream go on elsewhere, or end it if nothing is missing; tell whether it is taken care of."""
        return self._resumer.resume(exchange, journal, problem)

    def go_on(self, exchange: Exchange, after_s: float = 0.0) -> None:
        """Find an engine for the next thing that a resumed stream asks, now or after a pause."""
        self.tend(exchange, self._pursuit.run_later(exchange, after_s) if after_s else self._pursuit.run(exchange))

    def settled(self, exchange: Exchange, *, is_ok: bool) -> None:
        """Count a request to a model that is over."""
        count_exchange(self.http, exchange, self._targets.management)
        if exchange.meter is not None:
            exchange.meter.end()
        if exchange.intake.inference is None:
            return
        target = exchange.target
        is_nowhere = target is self._targets.management
        node, model = ("", exchange.asked_model or "") if is_nowhere else (target.node, target.model)
        self.memory.stats.ended(model, node, is_ok=is_ok, is_fallback=target.is_fallback)
        if exchange.plan is not None:
            exchange.plan.settled(node, is_ok=is_ok)
        if exchange.watch is not None:
            exchange.watch.ended(Outcome(exchange.status, is_ok, model, node))

    def _on_lane(self) -> Iterator[tuple[str, str, int]]:
        """Return the requests of which nobody tells the memory: those on the straight lane."""
        return ((model, self._config.node, count) for model, count in self.traffic.on_lane())

    # -- inference ------------------------------------------------------------------------------------

    def _watched(self, client: ClientConnection, arrival: Arrival, body: bytes) -> Exchange | None:
        """Do what `_infer` does, while somebody watches; a request that is refused at once is over."""
        arrival = msgspec.structs.replace(arrival, request_id=self._request_id(arrival))
        self.tracing.arrived(arrival)
        try:
            return self._infer(client, arrival, body)
        finally:
            self.tracing.now = None

    def _infer(self, client: ClientConnection, arrival: Arrival, body: bytes) -> Exchange | None:
        intake = arrival.intake
        door = intake.inference
        assert door is not None  # noqa: S101 - the door is INFERENCE
        try:
            seen = peek(body, door.shape)
        except BodyError as error:
            problem = openai.bad_body(error.message, error.code, error.param, intake.other_type)
            self._refuse(client, arrival, problem)
            return None
        model = seen.model
        if model is not None and len(model) > limits.MODEL_NAME_BYTES:
            self._refuse(client, arrival, openai.unknown_model(model))
            return None
        request_id = self._request_id(arrival)
        if model == AUTO_NAME:
            seen = self._open.named(seen, intake, request_id)
        model, body = seen.model, seen.body
        found = self._targets.find(model, door, seen.wishes)
        if isinstance(found, Refusal):
            self._refuse(client, arrival, openai.refused(found, self._pursuit.retry_after_s()))
            return None
        if found.is_fallback:
            self._fallbacks.note(model, found.model)
        if type(found) is not Target:
            exchange = Exchange(client, intake, body, request_id, self, self._targets.management)
            self._note(exchange, seen, arrival)
            self._pursue(exchange)
            return exchange
        keeper = self.completions.keeper(found, seen, intake)
        if keeper is not None and keeper.tells(client, intake, request_id):
            return None
        exchange = Exchange(client, intake, body, request_id, self, found)
        self._note(exchange, seen, arrival)
        exchange.keeper = keeper
        if keeper is not None and keeper.has_owner:
            self.tend(exchange, keeper.ask_owner(client, exchange, self._go_on))
            return exchange
        objection = self._set_out(exchange, found)
        if objection is None:
            return exchange
        self.memory.stats.ended(found.model, found.node, is_ok=False, is_fallback=found.is_fallback)
        lines = self.metering.lines(found.model) if exchange.meter is not None else b""
        self._refuse(client, arrival, objection, lines)
        return None

    def _note(self, exchange: Exchange, seen: Peek, arrival: Arrival) -> None:
        exchange.seen, exchange.asked_model, exchange.is_stream = seen, seen.model, seen.is_stream
        exchange.trace, exchange.watch = arrival.trace, self.tracing.now

    def _go_on(self, exchange: Exchange, found: Target) -> None:
        """Send a request on its way whose answer nobody has kept."""
        objection = self._set_out(exchange, found)
        if objection is not None:
            exchange.answer(objection)

    def _set_out(self, exchange: Exchange, found: Target) -> Problem | None:
        """Send a request on its way, at once where nothing is to be thought about; or say why it has none."""
        intake = exchange.intake
        most = self._targets.most(found, intake.priority)
        if found.traffic.in_flight >= most or len(exchange.body) > found.unasked_bytes:
            looked_at = self._pursuit.looked_at(found, exchange.seen, intake, most)
            if isinstance(looked_at, Problem):
                return looked_at
            exchange.trip = looked_at
        if found.is_metered or intake.client:
            objection = self.metering.objection(exchange, found, is_asked=self.planner.config.checks_quotas)
            if objection is not None:
                if exchange.watch is not None:
                    exchange.watch.quotas_said(found, objection)
                return objection
            self._open.compare(exchange)
            self._pursue(exchange)
            return None
        self._open.compare(exchange)
        if found.others:
            if not self._pursuit.goes_at_once(exchange, found):
                self._pursue(exchange)
            return None
        connection = found.pool.take() if exchange.trip is None else None
        if connection is not None:
            exchange.begin(connection)
        else:
            self._pursue(exchange)
        return None

    def _send(self, exchange: Exchange) -> None:
        """Send a request to the management app; over a new connection where an idle one that is stale would do harm."""
        connection = exchange.target.pool.take() if exchange.intake.is_repeatable else None
        if connection is not None:
            exchange.begin(connection)
        else:
            self._pursue(exchange)

    def _pursue(self, exchange: Exchange) -> None:
        """Start the task that finds a way for an exchange."""
        pursuit = self._pursuit
        self.tend(exchange, pursuit.run_for_client(exchange) if exchange.intake.client else pursuit.run(exchange))

    def tend(self, exchange: Exchange, work: Coroutine[object, object, None]) -> None:
        """Run something for an exchange, as a task that has an owner."""
        self._tending.start(exchange, work)

    # -- answers from memory --------------------------------------------------------------------------

    def _answer_models(self, client: ClientConnection, arrival: Arrival) -> None:
        intake = arrival.intake
        status, document, lines = self._lists.document(self._views.newest, intake)
        head = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-Request-ID: %b\r\n%b%b" % (
            status, openai.reason_phrase(status).encode(), len(document), self._request_id(arrival),
            self._targets.management.client_lines + lines, intake.answer_end,
        )  # fmt: skip
        count_answer(self.http, intake, status)
        client.answer(head if intake.is_head else head + document, status, keeps_alive=intake.keeps_alive)

    def _refuse(self, client: ClientConnection, arrival: Arrival, problem: Problem, more: bytes = b"") -> None:
        intake = arrival.intake
        if self.tracing.now is not None:
            self.tracing.now.ended(Outcome(problem.status, is_ok=False))
        count_answer(self.http, intake, problem.status)
        lines = self.error_lines(arrival) + more + connection_line(intake.head.minor, keeps_alive=intake.keeps_alive)
        client.answer(problem_answer(problem, intake, lines), problem.status, keeps_alive=intake.keeps_alive)

    def _request_id(self, arrival: Arrival) -> bytes:
        return arrival.request_id or next(self.request_ids)

    # -- a few times a second -------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Look at every connection's deadline; report traffic once a second."""
        now_s = monotonic()
        self.traffic.look()
        for client in self._clients:
            client.check(now_s)
        self.far_end.check(now_s)
        if now_s - self._measured_at_s >= _MEASURE_INTERVAL_S:
            self._measured_at_s = now_s
            measured = self.traffic.measured()
            self.far_end.note_pace(measured, now_s)
            if measured is not None:
                self._post(measured)
            if (used := self.metering.news()) is not None:
                self._post(used)
        if now_s - self._timed_at_s >= _TIMED_INTERVAL_S:
            self._timed_at_s = now_s
            self._targets.time_next()
        self._sweep_handle = asyncio.get_running_loop().call_later(limits.HTTP_SWEEP_INTERVAL_S, self._sweep)
