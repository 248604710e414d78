"""Where a request for a model would go now, and what speaks against everybody else.

Owns the question "what if" about routing: nothing is sent, nothing is remembered. Decides nothing that routing does not
decide for a request: it asks the same functions, and puts into words why a node is none of the candidates. Doesn't know
HTTP. Pure, with the time as an argument.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import Rights
from meshllm.core.routing.candidates import candidate_of
from meshllm.core.routing.explain import Decision
from meshllm.core.routing.plan_routes import plan_routes
from meshllm.core.routing.ratings import UNHEALTHY, Candidate
from meshllm.core.routing.route_memory import RouteMemory
from meshllm.core.routing.routes import Local, Route, RouteRequest, Routes, Wait
from meshllm.core.routing.strategies import Rejected
from meshllm.core.standing import LIVE
from meshllm.core.view import LocalModel, Member, MeshView

_STATES = {
    ServingState.CLAIMED: "is about to load it", ServingState.DOWNLOADING: "is downloading it",
    ServingState.LOADING: "is loading it", ServingState.DRAINING: "is draining: it takes no new requests",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What a request for a model would meet."""

    decision: Decision
    """Among the hosts that could take it; without any, it has no ratings."""
    names: Mapping[str, str]
    """What the nodes that occur are called."""
    waits: bool = False
    """Nobody has the model ready: the request would be held, and somebody would load it."""
    code: str = ""
    """Of the refusal, where it would be refused."""
    message: str = ""
    """Why it would wait or be refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request that nobody has sent."""

    asked: str
    """The model, as a client would write it."""
    model: ModelId
    """What that means."""
    tokens: int = 0
    """What it needs of a context; 0: any will do."""


class Door(Protocol):
    """What the front door alone knows."""

    def in_flight(self, model: ModelId, /) -> int:
        """Return the number of requests that this node's engine of a model has."""

    def left_out(self, nodes: Collection[NodeId], now_s: float, /) -> Mapping[NodeId, float]:
        """Return the nodes that get no request because others failed there, and for how many seconds more."""


def foresee(view: MeshView, memory: RouteMemory, question: Question, door: Door, now_s: float) -> Prospect:
    """Return what a request would meet, sent to a door now."""
    config = view.routing.effective
    found = plan_routes(view, RouteRequest(model=question.asked))
    if isinstance(found, Routes):
        candidates = _Candidates(view, found, question.tokens, door.in_flight(found.model))
        able = candidates.able()
        left_out = door.left_out([candidate.node for candidate in able], now_s)
        decision = memory.foretold([one for one in able if one.node not in left_out], config, now_s)
        rejected = tuple(Rejected(name=node, why=_ejected(left_s)) for node, left_s in sorted(left_out.items()))
        return _among(candidates, replace(decision, rejected=(*decision.rejected, *rejected)))
    model = ModelId(found.model) or question.model
    nobody = memory.foretold((), config, now_s)
    decision = replace(nobody, model=model, rejected=tuple(_out(view, model, "", frozenset())))
    names = _names(view, decision)
    if isinstance(found, Wait):
        return Prospect(decision=decision, names=names, waits=True, message=found.message)
    return Prospect(decision=decision, names=names, code=found.code, message=found.message)


def _ejected(left_s: float) -> str:
    return f"is left out for {left_s:.0f} s more: tunnels to it failed in a row"


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The ways that there are, as one request sees them."""

    view: MeshView
    found: Routes
    tokens: int
    busy_here: int

    def able(self) -> list[Candidate]:
        """Return those that could take it."""
        return [self._candidate(route) for route in self.found.routes if not self._is_narrow(route)]

    def narrow(self) -> list[Rejected]:
        """Return those whose context is too small."""
        return [
            Rejected(name=route.node, why=f"a context of {_context(route)} tokens is too small for {self.tokens}")
            for route in self.found.routes if self._is_narrow(route)
        ]  # fmt: skip

    def _candidate(self, route: Route) -> Candidate:
        candidate = candidate_of(self.view, route)
        return candidate.as_busy_as(self.busy_here) if candidate.is_here else candidate

    def _is_narrow(self, route: Route) -> bool:
        return 0 < _context(route) < self.tokens


def _context(route: Route) -> int:
    return route.target.context_tokens


def _among(candidates: _Candidates, decision: Decision) -> Prospect:
    """Return the choice among hosts, with what keeps each other one out of it."""
    view, found, tokens = candidates.view, candidates.found, candidates.tokens
    nodes = frozenset(route.node for route in found.routes)
    digest = next((_digest(view, route) for route in found.routes), "")
    rejected = (*decision.rejected, *candidates.narrow(), *_out(view, found.model, digest, nodes))
    decision = replace(decision, model=found.model, rejected=rejected)
    names = _names(view, decision)
    if decision.ratings:
        return Prospect(decision=decision, names=names)
    message = f"no host of the model {found.model!r} has a context of {tokens} tokens"
    return Prospect(decision=decision, names=names, code="context_length_exceeded", message=message)


def _digest(view: MeshView, route: Route) -> str:
    if not isinstance(route.target, Local):
        return route.target.digest
    local = view.local.get(route.model)
    return local.spec.digest if local is not None and local.spec is not None else ""


def _out(view: MeshView, model: ModelId, digest: str, candidates: frozenset[NodeId]) -> Iterable[Rejected]:
    """Return why each node that has something to do with a model is not a candidate."""
    me = view.me.node
    local = view.local.get(model)
    if local is not None and me not in candidates and (why := _why_not_here(local, digest)):
        yield Rejected(name=me, why=why)
    for node, member in sorted(view.members.items()):
        if node != me and node not in candidates and (why := _why_not(member, model, digest)):
            yield Rejected(name=node, why=why)


def _why_not(member: Member, model: ModelId, digest: str) -> str:
    """Return why a member takes no request for a model; empty where it has nothing to do with it."""
    said, served = member.announcement, _served(member, model)
    has_file = any(each.model == model for each in said.models_on_disk)
    if served is None and not has_file:
        return ""
    if member.state not in LIVE:
        return f"is {member.state}" + (f": {member.why}" if member.why else "")
    if Rights.HOST not in said.rights:
        return "has no right to host"
    if served is None:
        return "has the file and does not serve it"
    if served.state is not ServingState.READY:
        return _STATES[served.state]
    if served.health == UNHEALTHY:
        return UNHEALTHY
    return _other_file(served.digest, digest)


def _why_not_here(local: LocalModel, digest: str) -> str:
    """Return why this node's own engine takes no request for a model."""
    if local.held or local.dropped:
        return "was unloaded here, and only an order brings it back"
    if local.waiting:
        return local.waiting
    if local.state is not EngineState.READY:
        return local.failure.message if local.failure is not None else f"its engine is {local.state}"
    if not local.is_ready:
        return UNHEALTHY
    return _other_file(local.spec.digest if local.spec is not None else "", digest)


def _other_file(own: str, digest: str) -> str:
    """Return what is wrong with a host whose file has this digest, where that of the candidates is another."""
    if not digest or own == digest:
        return ""
    return "serves another file under this name" if own else "has not said yet which file it serves"


def _served(member: Member, model: ModelId) -> ServedModel | None:
    return next((served for served in member.announcement.serving if served.model == model), None)


def _names(view: MeshView, decision: Decision) -> dict[str, str]:
    nodes = [rating.candidate.node for rating in decision.ratings] + [NodeId(one.name) for one in decision.rejected]
    return {node: view.members[node].announcement.name for node in nodes if node in view.members}
