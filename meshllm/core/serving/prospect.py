"""Where a request for a model would go now, and what speaks against everybody else.

Owns the question "what if" about routing: nothing is sent, nothing is remembered. Decides nothing that routing does not
decide for a request: it asks the same functions, and puts into words why a node is none of the candidates. Doesn't know
HTTP. Pure, with the time as an argument.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import Rights
from meshllm.core.routing_config import RoutingConfig
from meshllm.core.serving.explain import Decision
from meshllm.core.serving.ratings import HEALTHY, UNHEALTHY, Candidate
from meshllm.core.serving.route_memory import RouteMemory
from meshllm.core.serving.routes import Local, Route, RouteRequest, Routes, Wait
from meshllm.core.serving.routing import plan_routes
from meshllm.core.serving.strategies import Rejected
from meshllm.core.standing import LIVE
from meshllm.core.view import LocalModel, Member, MeshView

_STATES = {
    ServingState.CLAIMED: "is about to load it", ServingState.DOWNLOADING: "is downloading it",
    ServingState.LOADING: "is loading it", ServingState.DRAINING: "is draining: it takes no new requests",
}  # fmt: skip
_UNMEASURED_S = 0.05


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


def foresee(view: MeshView, memory: RouteMemory, asked: str, *, tokens: int, now_s: float) -> Prospect:
    """Return what a request that names a model so would meet. `tokens` is what it needs of a context; 0: anything."""
    config = view.routing.effective
    found = plan_routes(view, RouteRequest(model=asked))
    if isinstance(found, Routes):
        return _among(view, memory, found, config, tokens=tokens, now_s=now_s)
    model = ModelId(found.model)
    nobody = memory.foretold((), config, now_s)
    decision = replace(nobody, model=model, rejected=tuple(_out(view, model, "", frozenset())))
    names = _names(view, decision)
    if isinstance(found, Wait):
        return Prospect(decision=decision, names=names, waits=True, message=found.message)
    return Prospect(decision=decision, names=names, code=found.code, message=found.message)


def _among(
    view: MeshView, memory: RouteMemory, found: Routes, config: RoutingConfig, *, tokens: int, now_s: float
) -> Prospect:
    """Return the choice among hosts, with what keeps each other one out of it."""
    wide = [route for route in found.routes if not 0 < route.target.context_tokens < tokens]
    narrow = [
        Rejected(name=route.node, why=f"a context of {route.target.context_tokens} tokens is too small for {tokens}")
        for route in found.routes if route not in wide
    ]  # fmt: skip
    decision = memory.foretold([_candidate(view, route) for route in wide], config, now_s)
    nodes = frozenset(route.node for route in found.routes)
    digest = next((_digest(view, route) for route in found.routes), "")
    rejected = (*decision.rejected, *narrow, *_out(view, found.model, digest, nodes))
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


def _candidate(view: MeshView, route: Route) -> Candidate:
    """Return a way as the choice among ways sees it."""
    member, slots = view.members.get(route.node), max(route.target.slots, 1)
    if isinstance(route.target, Local):
        return Candidate(node=route.node, model=route.model, slots=slots, is_here=True)
    served = None if member is None else _served(member, route.model)
    return Candidate(
        node=route.node, model=route.model, slots=slots, busy=route.target.in_flight,
        mark=member.announcement.version if member is not None else 0, is_suspect=route.reason == "suspect",
        health=served.health if served is not None else HEALTHY,
        rtt_s=_UNMEASURED_S if member is None or member.rtt_s is None else member.rtt_s,
    )  # fmt: skip


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
