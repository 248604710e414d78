"""What is told of single requests while somebody watches: spans for a collector, lines for the log at DEBUG.

Owns the marks of one request on its way, and their names: `request`, below it `routing_decision`, `cache_lookup`,
`quota_check` and `model_execution`; `tunnel` and below it `engine` where another node serves it. Decides nothing about
requests. Doesn't know where spans go; without a collector and above DEBUG no request has a watch, and the straight lane
is as it is.
"""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshllm.core.ids import NodeId
from meshllm.core.traces import Span, SpanKind, TraceContext, Value, child_of, new_context, read_traceparent
from meshllm.proxy.heads import Arrival
from meshllm.proxy.openai import Problem
from meshllm.proxy.plan import Plan
from meshllm.proxy.target import Target
from meshllm.wire.tunnel_frames import TunnelHead

router_log = logging.getLogger("meshllm.request_router")
cache_log = logging.getLogger("meshllm.prompt_cache")
quota_log = logging.getLogger("meshllm.quota_check")

ONLY_WAY = "only_way"
"""In the place of a strategy, where nothing was to be chosen."""
_FAILED = "no answer came of it"
_LEFT = 499
"""Of a request whose client left: no status went out."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended, as far as a span tells it."""

    status: int
    """0 where its client left before any was sent."""
    is_ok: bool
    model: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collecting:
    """Where spans go, and of which requests."""

    take: Callable[[Span], None]
    """Takes a span that is over; never waits."""
    share: float = 1.0
    """Of the requests whose clients do not say whether they are traced."""


class Tracing:
    """Makes the watches of one front door."""

    def __init__(self, node: NodeId, random_bits: Callable[[int], int], collecting: Collecting | None = None) -> None:
        """Tell `collecting` and the log what requests do."""
        self.node = node
        self.random_bits = random_bits
        self.collecting = collecting
        self.now: RequestWatch | None = None
        """Of the request that is being taken in; the front door does that without waiting for anything."""
        self._anchor_ns = time.time_ns() - time.monotonic_ns()

    @property
    def is_on(self) -> bool:
        """Tell whether anybody watches."""
        return self.collecting is not None or router_log.isEnabledFor(logging.DEBUG)

    def unix_ns(self) -> int:
        """Return nanoseconds since 1970 that never go back."""
        return self._anchor_ns + time.monotonic_ns()

    def arrived(self, arrival: Arrival) -> "RequestWatch":
        """Begin with a request of a client, in the trace that it says."""
        asked = read_traceparent(arrival.trace.decode("ascii", "replace"))
        share = self.collecting.share if self.collecting is not None else 0.0
        context = child_of(asked, self.random_bits) if asked is not None else new_context(self.random_bits, share)
        self.now = RequestWatch(self, context, asked.span_id if asked is not None else "", arrival)
        return self.now

    def tunnelled(self, head: TunnelHead) -> "TunnelWatch | None":
        """Begin with a request of another node; None where that one does not trace it."""
        asked = read_traceparent(head.traceparent)
        if asked is None or self.collecting is None:
            return None
        return TunnelWatch(self, asked, head)

    def tell(self, span: Span) -> None:
        """Give a span to the collector, if its trace is kept."""
        if self.collecting is not None and span.context.is_sampled:
            self.collecting.take(span)


@dataclass(slots=True)
class _Run:
    """One host at work for a request."""

    target: Target
    context: TraceContext
    began_ns: int
    first_byte_ns: int = 0
    ended_ns: int = 0
    error: str = ""


class Watch:
    """Who hears of the steps of one request: a span for the whole, and one below it for each host at work."""

    __slots__ = ("_began_ns", "_context", "_house", "_parent_id", "_run", "_runs")

    name: str
    work: str

    def __init__(self, house: Tracing, context: TraceContext, parent_id: str) -> None:
        """Begin now."""
        self._house = house
        self._context = context
        self._parent_id = parent_id
        self._began_ns = house.unix_ns()
        self._run: _Run | None = None
        self._runs = 0

    @property
    def field(self) -> str:
        """Return the `traceparent` of what is asked of others for it now."""
        return (self._run.context if self._run is not None else self._context).field

    def looks_up(self) -> None:
        """What its hosts have cached of its prompt is about to be looked up."""

    def decided(self, plan: Plan) -> None:
        """Its hosts were put in order, by what they have cached among other things."""

    def asks_quotas(self, target: Target) -> None:
        """The quotas of its model are about to be asked."""

    def quotas_said(self, target: Target, problem: Problem | None) -> None:
        """The quotas of its model have decided, or there are none; another node decides for its own engines."""

    def goes(self, target: Target) -> None:
        """It goes to a host, or is on its way there already."""
        run = self._run
        if run is not None and run.target is target and not run.ended_ns:
            return
        self._close()
        self._runs += 1
        self._run = _Run(target, child_of(self._context, self._house.random_bits), self._house.unix_ns())

    def begins(self) -> None:
        """The first byte of its answer has come."""
        if self._run is not None and not self._run.first_byte_ns:
            self._run.first_byte_ns = self._house.unix_ns()

    def comes_back(self, *, is_failure: bool) -> None:
        """It is over at that host."""
        run = self._run
        if run is not None and not run.ended_ns:
            run.ended_ns = self._house.unix_ns()
            run.error = run.error or (_FAILED if is_failure else "")

    def set_back(self, why: str) -> None:
        """That host did not lead to an answer."""
        if self._run is not None:
            self._run.error = why

    def _close(self) -> None:
        """Tell of the last host, when it is known what came of it."""
        run, self._run = self._run, None
        if run is None:
            return
        facts: dict[str, Value] = {
            "meshllm.model": run.target.model, "meshllm.node": run.target.node, "meshllm.attempt": self._runs,
            "meshllm.tunnelled": run.target.peer is not None,
        }  # fmt: skip
        if run.first_byte_ns:
            facts["meshllm.first_byte_ms"] = round((run.first_byte_ns - run.began_ns) / 1e6, 3)
        self._house.tell(
            Span(
                name=self.work, context=run.context, parent_id=self._context.span_id, kind=SpanKind.CLIENT,
                began_ns=run.began_ns, ended_ns=run.ended_ns or self._house.unix_ns(),
                attributes=tuple(facts.items()), error=run.error,
            )
        )  # fmt: skip

    def ended(self, outcome: Outcome) -> None:
        """The whole request is over."""
        if not outcome.is_ok and self._run is not None:
            self._run.error = self._run.error or _FAILED
        self._close()
        status = outcome.status or _LEFT
        facts: dict[str, Value] = {
            "http.response.status_code": status, "meshllm.model": outcome.model, "meshllm.node": outcome.node,
            **self._facts(),
        }  # fmt: skip
        error = f"answered with {status}" if status >= 500 else ""
        self._span(self.name, self._context, self._began_ns, facts, kind=SpanKind.SERVER, error=error)

    @abstractmethod
    def _facts(self) -> dict[str, Value]:
        """Return what the span of the whole request says besides."""

    def _span(
        self, name: str, context: TraceContext, began_ns: int, facts: Mapping[str, Value], *,
        kind: SpanKind = SpanKind.INTERNAL, error: str = "",
    ) -> None:  # fmt: skip
        """Give a step that is over to the collector."""
        parent_id = self._parent_id if context is self._context else self._context.span_id
        span = Span(
            name=name, context=context, parent_id=parent_id, kind=kind, began_ns=began_ns,
            ended_ns=self._house.unix_ns(), attributes=tuple(facts.items()), error=error,
        )  # fmt: skip
        self._house.tell(span)


class RequestWatch(Watch):
    """The watch of a client's request."""

    __slots__ = ("_arrival", "_cache_ns", "_has_route", "_plan", "_quota_ns", "_request_id", "_session")

    name = "request"
    work = "model_execution"

    def __init__(self, house: Tracing, context: TraceContext, parent_id: str, arrival: Arrival) -> None:
        """Begin now. The arrival has the request's id."""
        super().__init__(house, context, parent_id)
        self._arrival = arrival
        self._request_id = (arrival.request_id or b"").decode("latin-1")
        self._session = arrival.intake.session
        self._plan: Plan | None = None
        self._cache_ns: int | None = None
        self._quota_ns: int | None = None
        self._has_route = False

    # -- the decision ---------------------------------------------------------------------------------

    def looks_up(self) -> None:
        """What its hosts have cached of its prompt is about to be looked up."""
        self._cache_ns = self._house.unix_ns()

    def decided(self, plan: Plan) -> None:
        """Its hosts were put in order, by what they have cached among other things."""
        decision, ask = plan.kept.decision, plan.ask
        self._plan, self._session = plan, ask.session or self._session
        shares = {rating.name: round(rating.hit_share, 3) for rating in decision.ratings}
        self._looked_up(decision.model, shares, shares.get(decision.picked, 0.0), ask.prompt.size_bytes)
        scores = {rating.name: round(rating.score, 4) for rating in decision.ratings}
        self._route(decision.model, decision.strategy.value, decision.reason, decision.picked, scores)

    def _looked_up(self, model: str, shares: Mapping[str, float], picked: float, size_bytes: int) -> None:
        """Tell what was found of its prompt in the hosts' caches."""
        began_ns = self._cache_ns or self._house.unix_ns()
        self._step("cache_lookup", began_ns, hosts=max(len(shares), 1), hit_share=picked, prompt_bytes=size_bytes)
        self._log(cache_log, "Looked up prompt caches", model_id=model, hit_shares=dict(shares), size_bytes=size_bytes)

    def _route(self, model: str, strategy: str, reason: str, picked: str, scores: Mapping[str, float]) -> None:
        """Tell where it goes; a span tells of the first decision, the log of all."""
        now_ns = self._house.unix_ns()
        took_s = self._plan.kept.took_s if self._plan is not None else (now_ns - self._began_ns) / 1e9
        if not self._has_route:
            self._has_route = True
            self._step(
                "routing_decision", self._began_ns, model=model, strategy=strategy, reason=reason, picked=picked,
                hosts=max(len(scores), 1), score=scores.get(picked, 0.0),
            )  # fmt: skip
        self._log(
            router_log, "Routed request to model", model_id=model, strategy=strategy, score=scores.get(picked),
            routing_time_us=round(took_s * 1e6, 1), reason=reason, picked=picked, scores=dict(scores),
        )  # fmt: skip

    def _one_way(self, target: Target) -> None:
        """Tell of a request that has one way: nothing was to be chosen, and no cache to be compared."""
        if self._has_route:
            return
        reason = target.reason_line.partition(b": ")[2].strip().decode()
        self._route(target.model, ONLY_WAY, reason, target.node, {})
        self._looked_up(target.model, {}, 0.0, 0)

    # -- quotas and execution -------------------------------------------------------------------------

    def asks_quotas(self, target: Target) -> None:
        """The quotas of its model are about to be asked."""
        self._one_way(target)
        self._quota_ns = self._house.unix_ns()

    def quotas_said(self, target: Target, problem: Problem | None) -> None:
        """The quotas of its model have decided, or there are none; another node decides for its own engines."""
        self._one_way(target)
        began_ns = self._quota_ns = self._quota_ns or self._house.unix_ns()
        said = problem.code if problem is not None else "admitted"
        self._step(
            "quota_check", began_ns, error=problem.code if problem is not None else "", limited=target.is_metered,
            said=said, here=target.peer is None,
        )  # fmt: skip
        self._log(
            quota_log, "Checked quotas", model_id=target.model, limited=target.is_metered, said=said,
            here=target.peer is None,
        )  # fmt: skip

    def goes(self, target: Target) -> None:
        """It goes to a host, or is on its way there already."""
        self._one_way(target)
        if self._quota_ns is None:
            self.quotas_said(target, None)
        super().goes(target)

    # -- telling --------------------------------------------------------------------------------------

    def _facts(self) -> dict[str, Value]:
        head = self._arrival.intake.head
        session: dict[str, Value] = {"session.id": self._session} if self._session else {}
        return session | {
            "http.request.method": head.method, "url.path": head.path, "meshllm.request_id": self._request_id,
            "meshllm.attempts": self._runs,
        }  # fmt: skip

    def _step(self, name: str, began_ns: int, *, error: str = "", **facts: Value) -> None:
        """Tell of a step that is over."""
        context = child_of(self._context, self._house.random_bits)
        self._span(name, context, began_ns, {f"meshllm.{key}": value for key, value in facts.items()}, error=error)

    def _log(self, log: logging.Logger, message: str, **fields: object) -> None:
        """Write a step down for whoever looks at DEBUG."""
        if log.isEnabledFor(logging.DEBUG):
            fields |= {
                "request_id": self._request_id, "trace_id": self._context.trace_id, "span_id": self._context.span_id,
                "session": self._session,
            }  # fmt: skip
            log.debug(message, extra={"fields": fields})


class TunnelWatch(Watch):
    """The watch of a request that another node sent here."""

    __slots__ = ("_head",)

    name = "tunnel"
    work = "engine"

    def __init__(self, house: Tracing, asked: TraceContext, head: TunnelHead) -> None:
        """Begin now, below what the entry node traces."""
        super().__init__(house, child_of(asked, house.random_bits), asked.span_id)
        self._head = head

    def _facts(self) -> dict[str, Value]:
        head = self._head
        return {"meshllm.request_id": head.request_id, "meshllm.attempt": head.attempt}
