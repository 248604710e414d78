"""Quotas at the front door: what a request would take, whether it may, and what it took in the end.

Owns the node's ledger as far as requests go, and the fields about limits in answers. Decides nothing about limits: the
ledger does. Doesn't know connections; whoever sends a request to an engine of this node asks `admit` before, and tells
`settle` after.

Invariant: a request of a model without quotas is never looked at here.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from meshllm.core import limits
from meshllm.core.events import QuotaUsed
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.quota_config import OF_CLIENT
from meshllm.core.quota_use import QuotaUse, merged
from meshllm.core.quotas.hosts import emergencies_of, hosts_of, is_crowd
from meshllm.core.quotas.kinds import Admitted, Charge, Kind, Refused, Wanted
from meshllm.core.quotas.ledger import QuotaLedger
from meshllm.core.quotas.report import rate_limits, report
from meshllm.core.quotas.windows import DAY_S, Zone, utc
from meshllm.core.routing.priorities import Priority
from meshllm.core.routing.ratings import Candidate
from meshllm.core.routing.routes import Capability
from meshllm.core.view import MeshView
from meshllm.proxy.asks import tokens_of, tokens_of_events
from meshllm.proxy.forward import Exchange
from meshllm.proxy.openai import QUOTA_EXCEEDED, Problem
from meshllm.proxy.paths import InferenceDoor
from meshllm.proxy.peek import Peek, prompt_bytes, with_member
from meshllm.proxy.plan import Newest
from meshllm.proxy.target import Target

log = logging.getLogger(__name__)
sums_log = logging.getLogger("meshllm.quota_check")

_ANSWER_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")
_FIELD_OF_PATH = {b"/v1/responses": "max_output_tokens"}
_EVENT = b"data: {"
_BOM = b"\xef\xbb\xbf"
_REMEMBERED_S = 2 * DAY_S
"""Longer than any window lasts: what gone nodes used counts until then."""


class Meter:
    """What one request has reserved and used, from its admission to its end."""

    __slots__ = (
        "_charge", "_events", "_house", "_prompt_tokens", "_tail", "_told", "_toll", "client", "is_let_in", "model",
    )  # fmt: skip

    def __init__(self, house: "Metering", model: ModelId, client: str = "") -> None:
        """Belong to a request of a client, or of whoever has the node's own key, that has reserved nothing yet."""
        self._house = house
        self.client = client
        self.is_let_in = False
        """The quotas of its client were asked."""
        self._toll: Charge | None = None
        """What it reserved of its client's quotas, wherever it goes."""
        self.model = model
        self._charge: Charge | None = None
        self._prompt_tokens = self._events = 0
        self._tail: deque[bytes] = deque(maxlen=limits.ANSWER_TAIL_PIECES)
        self._told: int | None = None

    @property
    def has_charge(self) -> bool:
        """Tell whether something is set aside for it here."""
        return self._charge is not None

    def take(self, charge: Charge, prompt_tokens: int) -> None:
        """Take what was set aside."""
        self._charge, self._prompt_tokens = charge, prompt_tokens

    def pay(self, toll: Charge, prompt_tokens: int) -> None:
        """Take what was set aside of its client's quotas."""
        self._toll, self._prompt_tokens = toll, prompt_tokens

    def answered(self, document: bytes) -> None:
        """Take a whole answer, and what it says of its tokens."""
        self._told = tokens_of(document)
        self._events += 1

    def piece(self, data: bytes) -> None:
        """Take a piece of a stream."""
        self._tail.append(data)
        self._events += data.count(_EVENT)

    def settle(self) -> None:
        """Say what was used here: by the answer's own account, else by its events; nothing came of one without any."""
        charge, self._charge = self._charge, None
        if charge is not None:
            self._house.settled(charge, self._used())

    def end(self) -> None:
        """Say what the whole request used, of its client's quotas too."""
        self.settle()
        toll, self._toll = self._toll, None
        if toll is not None:
            self._house.settled(toll, self._used())

    def _used(self) -> int | None:
        told = self._told
        for is_chunked in (True, False):
            told = tokens_of_events(self._tail, is_chunked=is_chunked) if told is None else told
        if told is None and self._events:
            told = self._prompt_tokens + self._events
        return told

    def retry_after_s(self) -> int:
        """Return when it may be better, by what this node knows."""
        return self._house.ledger.retry_after_s(self.model, self._house.clock())

    def lines(self) -> bytes:
        """Return the fields of an answer that say how much is left."""
        return self._house.lines(scope_of(self.client)) if self.client else self._house.lines(self.model)


class Metering:
    """What the front door asks of the ledger."""

    def __init__(self, views: Newest, node: NodeId, zone: Zone = utc, clock: Callable[[], float] = time.time) -> None:
        """Read limits from `views`; `clock` returns Unix seconds."""
        self.ledger = QuotaLedger(zone)
        self.clock = clock
        self._views = views
        self._node = node
        self._heard: MeshView | None = None
        self._remembered: dict[NodeId, dict[ModelId, QuotaUse]] = {}
        self._told: tuple[QuotaUse, ...] = ()
        self.waiting = 0

    def hear(self) -> None:
        """Let the ledger know what the newest view says, if it is new."""
        view = self._views.newest
        if view is self._heard:
            return
        self._heard = view
        if not view.quotas.is_limiting and not self.ledger.register.is_limiting:
            return
        for node, member in view.members.items():
            if node != self._node and (said := member.announcement.quota_uses):
                self._remembered[node] = merged(self._remembered.get(node, {}).values(), said)
        self._forget(view)
        self.ledger.emergencies = emergencies_of(view)
        self.ledger.know(view.quotas, self._remembered, hosts_of(view, self._node), self.clock())

    def _forget(self, view: MeshView) -> None:
        """Forget what nodes used that are gone, once its windows are over."""
        since_unix_s = self.clock() - _REMEMBERED_S
        for node in self._remembered.keys() - view.members.keys():
            if all(use.day.window_unix_s < since_unix_s for use in self._remembered[node].values()):
                del self._remembered[node]

    def told(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the same engines with what is left of their models' quotas."""
        self.hear()
        now_unix_s = self.clock()
        left = {model: self.ledger.left(model, now_unix_s) for model in {one.model for one in candidates}}
        register = self.ledger.register
        return [one.with_quota(left[one.model], register.of(one.model).max_concurrent_requests) for one in candidates]

    # -- one request -----------------------------------------------------------------------------------

    def objection(self, exchange: Exchange, target: Target, *, is_asked: bool) -> Problem | None:
        """Return why a request is not worth sending to any host, by what is known of all, if that `is_asked`."""
        door = exchange.intake.inference
        if door is None or door.needs is None:
            return None
        self.meter(exchange, target.model)
        if not is_asked or not target.is_metered:
            return None
        self.hear()
        wanted = wanted_of(exchange.seen, door, target, Priority.NORMAL)
        refused = self.ledger.foresee(target.model, wanted, self.clock())
        self._log()
        if refused is None:
            return None
        self._calculated(target.model, wanted, refused)
        return self.problem(refused)

    def meter(self, exchange: Exchange, model: ModelId) -> Meter:
        """Return the meter of a request; a new one where it has none for this model."""
        meter = exchange.meter
        if not isinstance(meter, Meter) or meter.model != model:
            if isinstance(meter, Meter):
                meter.settle()
                meter.model = model
                return meter
            meter = exchange.meter = Meter(self, model, exchange.intake.client)
        return meter

    async def let_in(self, exchange: Exchange) -> Problem | None:
        """Reserve what a client's request may take of its quotas, once, wherever it goes; return why it may not."""
        door, model = exchange.intake.inference, exchange.target.model
        if door is None or door.needs is None:
            return None
        meter = self.meter(exchange, model)
        scope = scope_of(exchange.intake.client)
        self.hear()
        if meter.is_let_in or not self.ledger.register.of(scope).is_limiting:
            return None
        meter.is_let_in = True
        wanted = wanted_of(exchange.seen, door, exchange.target, exchange.intake.priority)
        verdict = await self._asked(scope, wanted)
        if isinstance(verdict, Refused):
            return self.problem(verdict)
        meter.pay(verdict.charge, wanted.prompt_tokens)
        await self._obey(exchange, door, verdict)
        return None

    async def admit(self, exchange: Exchange, target: Target, priority: Priority) -> Problem | None:
        """Reserve what a request may take at an engine of this node, when it may; return why it may not.

        Another node decides for its own engines: what was set aside here is settled then. A stream that lost its
        engine goes on whatever its model may be used for.
        """
        door = exchange.intake.inference
        if door is None or door.needs is None:
            return None
        meter = self.meter(exchange, target.model)
        if target.peer is not None:
            meter.settle()
            return None
        if meter.has_charge or exchange.again is not None:
            return None
        wanted = wanted_of(exchange.seen, door, target, priority)
        verdict = await self._asked(target.model, wanted)
        if isinstance(verdict, Refused):
            return self.problem(verdict)
        meter.take(verdict.charge, wanted.prompt_tokens)
        await self._obey(exchange, door, verdict)
        return None

    @staticmethod
    async def _obey(exchange: Exchange, door: InferenceDoor, verdict: Admitted) -> None:
        """Bound the answer of a request that may run, and delay it, as far as that was said."""
        if verdict.answer_tokens is not None:
            exchange.body = clamped(exchange.body, door, verdict.answer_tokens)
        if verdict.delay_s:
            await asyncio.sleep(verdict.delay_s)

    async def _asked(self, model: ModelId, wanted: Wanted) -> Admitted | Refused:
        """Return whether a request may run; where it may wait for that, when it has."""
        verdict = self._ask(model, wanted)
        if isinstance(verdict, Refused) and verdict.may_queue and self.waiting < limits.QUOTA_QUEUE_REQUESTS:
            return await self._queue(model, wanted, verdict)
        return verdict

    def _ask(self, model: ModelId, wanted: Wanted) -> Admitted | Refused:
        self.hear()
        verdict = self.ledger.ask(model, wanted, self.clock())
        self._log()
        self._calculated(model, wanted, verdict)
        return verdict

    def _calculated(self, model: ModelId, wanted: Wanted, verdict: Admitted | Refused) -> None:
        """Write down what a request would take, what its model has left, and the verdict, for who looks at DEBUG."""
        if not sums_log.isEnabledFor(logging.DEBUG):
            return
        fields = {
            "model_id": model, "prompt_tokens": wanted.prompt_tokens, "answer_tokens": wanted.answer_tokens,
            "left": round(self.ledger.left(model, self.clock()), 4), "admitted": isinstance(verdict, Admitted),
            "why": verdict.message if isinstance(verdict, Refused) else "",
            "delay_s": 0.0 if isinstance(verdict, Refused) else verdict.delay_s,
        }  # fmt: skip
        sums_log.debug("Calculated quotas", extra={"fields": fields})

    async def _queue(self, model: ModelId, wanted: Wanted, verdict: Admitted | Refused) -> Admitted | Refused:
        """Ask again now and then, until a request may run or has waited for long enough."""
        self.waiting += 1
        ends_s = asyncio.get_running_loop().time() + limits.QUOTA_QUEUE_S
        try:
            while isinstance(verdict, Refused) and asyncio.get_running_loop().time() < ends_s:
                await asyncio.sleep(limits.QUOTA_LOOK_S)
                verdict = self._ask(model, wanted)
        finally:
            self.waiting -= 1
        return verdict

    def settled(self, charge: Charge, tokens: int | None) -> None:
        """Take what a request used; None for nothing at all."""
        now_unix_s = self.clock()
        if tokens is None:
            self.ledger.refund(charge, now_unix_s)
        else:
            self.ledger.settle(charge, tokens, now_unix_s)
        self._log()

    # -- what others are told --------------------------------------------------------------------------

    def lines(self, model: ModelId) -> bytes:
        """Return the fields of an answer that say how much of a model's quotas is left."""
        self.hear()
        return b"".join(
            b"%b: %b\r\n" % (name.encode(), value.encode())
            for name, value in rate_limits(self.ledger, model, self.clock())
        )

    def report(self, model: ModelId) -> dict[str, object]:
        """Return how much of a model's quotas is used: the document of `GET /quotas/{model}/report`."""
        self.hear()
        known = self._views.newest.local.get(model)
        memory_bytes = known.plan.memory.total_bytes if known is not None and known.plan is not None else 0
        size_bytes = known.spec.size_bytes if known is not None and known.spec is not None else 0
        return report(
            self.ledger, model, self._node, self.clock(), memory_bytes // limits.MIB,
            round(size_bytes / limits.GIB, 3),
        )  # fmt: skip

    def problem(self, refused: Refused) -> Problem:
        """Return the HTTP meaning of a refusal."""
        if refused.kind is Kind.BURST:
            return Problem(
                status=400, code="request_exceeds_burst_limit", message=refused.message, param="max_tokens"
            )  # fmt: skip
        if refused.kind is Kind.RATE:
            return Problem(
                status=429, code="rate_limit_exceeded", message=refused.message, retry_after_s=refused.retry_after_s
            )
        return Problem(
            status=429, code=QUOTA_EXCEEDED, message=refused.message, type="insufficient_quota",
            retry_after_s=refused.retry_after_s,
        )  # fmt: skip

    def news(self) -> QuotaUsed | None:
        """Return what was used here, if that differs from what was said last."""
        if not self.ledger.register.is_limiting:
            return None
        uses = self.ledger.uses()
        if uses == self._told:
            return None
        self._told = uses
        return QuotaUsed(uses=uses)

    def _log(self) -> None:
        for one in self.ledger.taken_notices():
            log.log(logging.getLevelName(one.level.upper()), one.message, extra={"fields": dict(one.fields)})


def scope_of(client: str) -> ModelId:
    """Return under which name the ledger knows a client."""
    return ModelId(f"{OF_CLIENT}{client}")


def wanted_of(seen: Peek, door: InferenceDoor, target: Target, priority: Priority) -> Wanted:
    """Return what a request would take: its prompt by size, its answer by the limit that it sets."""
    document = seen.document if seen.body else {}
    size_bytes = prompt_bytes(document, limits.PROMPT_LOOK_BYTES)
    prompt_tokens = -(-size_bytes // limits.QUOTA_BYTES_PER_TOKEN)
    is_crowded = target.peer is None and is_crowd(target.traffic.in_flight, target.slots)
    if door.needs is not Capability.COMPLETION:
        return Wanted(prompt_tokens=prompt_tokens, priority=priority, is_crowded=is_crowded)
    context, choices = target.context_tokens, document.get("n")
    return Wanted(
        prompt_tokens=prompt_tokens, answer_tokens=_limit_of(document), priority=priority,
        is_crowded=is_crowded,
        most_answer_tokens=max(context - prompt_tokens, 1) if context else limits.QUOTA_ANSWER_TOKENS,
        choices=choices if isinstance(choices, int) and choices > 0 else 1,
    )  # fmt: skip


def _limit_of(document: Mapping[str, object]) -> int | None:
    """Return the limit that a request sets for its answer, None where it sets none."""
    said = [value for name in _ANSWER_FIELDS if isinstance(value := document.get(name), int) and value > 0]
    return max(said, default=None)


def clamped(body: bytes, door: InferenceDoor, answer_tokens: int) -> bytes:
    """Return a body with a limit for its answer, where it had none."""
    members = msgspec.json.decode(body.removeprefix(_BOM), type=dict[str, msgspec.Raw])
    value = b"%d" % answer_tokens
    for name in _ANSWER_FIELDS:
        if name in members:
            body = with_member(body, members, name, value)
    name = _FIELD_OF_PATH.get(door.path, "max_tokens")
    if name in members:
        return body
    start = body.index(b"{") + 1
    return b'%b"%b":%b,%b' % (body[:start], name.encode(), value, body[start:])
