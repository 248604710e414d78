"""Where one request goes: `plan_routes` over the newest view, pure and fast (it runs once per request).

Owns the order of the questions: which model does the name mean, may it be served, who has it. Answers
with routes in order of preference, with a reason to wait, or with a refusal. Doesn't know HTTP: the
front door turns refusals into status codes.
"""

from dataclasses import replace

from meshllm.core.ids import ModelId
from meshllm.core.routing.abilities import able, large_enough, largest_context, not_able, too_small
from meshllm.core.routing.asleep import disabled, not_here, not_ready
from meshllm.core.routing.meaning import ambiguous, meaning, not_found, ready_models
from meshllm.core.routing.replicas import digests, in_order, in_use, of_digest, of_same_file, pinned
from meshllm.core.routing.routes import (
    FALLBACK,
    Capability,
    Local,
    Refusal,
    RefusalCode,
    Remote,
    Route,
    RouteRequest,
    Routes,
    Wait,
)
from meshllm.core.routing_config import FALL_BACK
from meshllm.core.view import LocalModel, MeshView, Replica


def plan_routes(view: MeshView, request: RouteRequest) -> Routes | Wait | Refusal:
    """Return where a request goes in this view."""
    found = _plan(view, request)
    if isinstance(found, Refusal) and found.is_unknown and _falls_back(view, request):
        return _fall_back(view, request) or found
    return found


def _falls_back(view: MeshView, request: RouteRequest) -> bool:
    """Tell whether another model may answer for an unknown name. A node that is sent a request only does as told."""
    return not request.is_forwarded and view.routing.effective.unknown_model == FALL_BACK


def _fall_back(view: MeshView, request: RouteRequest) -> Routes | Wait | None:
    """Return where a request for an unknown model goes instead: the default, else the first id that is ready."""
    if request.needs is Capability.EMBEDDING:
        return None  # vectors of another model are not comparable: worse than no answer
    default = [] if view.default_model is None else [view.default_model]
    for model in (*default, *ready_models(view)):
        found = _plan(view, RouteRequest(model=model, needs=request.needs, wishes=request.wishes))
        if isinstance(found, Wait):
            return replace(found, is_fallback=True)
        if isinstance(found, Routes):
            return replace(found, routes=tuple(replace(route, reason=FALLBACK) for route in found.routes))
    return None


def _plan(view: MeshView, request: RouteRequest) -> Routes | Wait | Refusal:
    if view.leaving:
        return Refusal(code=RefusalCode.LEAVING, message="this node is shutting down; try another one")
    meant = meaning(view, request)
    if isinstance(meant, Wait | Refusal):
        return meant
    model, digest = meant
    if refusal := disabled(view, model):
        return refusal
    local = view.local.get(model)
    elsewhere = () if request.is_forwarded else view.replicas.get(model, ())
    if local is not None and (not digest or local.digest == digest):
        return _ways(view, local, of_same_file(local, elsewhere), request)
    if digest:
        elsewhere = of_digest(elsewhere, digest)
    if len(files := digests(in_use(elsewhere))) > 1:
        return ambiguous(request.model or "", [pinned(model, file) for file in files])
    return _ways_elsewhere(view, model, elsewhere, request, digest)


def _ways(
    view: MeshView, local: LocalModel, elsewhere: tuple[Replica, ...], request: RouteRequest
) -> Routes | Wait | Refusal:
    """Return the ways to a model that this node knows: its own engine first, then others that are ready."""
    who = able(view, request.wanted, local, elsewhere)
    if not who.is_here and not who.elsewhere:
        return _not_able(view, local.id, request)
    if not who.is_here:
        return _ways_elsewhere(view, local.id, who.elsewhere, request, "")
    routes = _routes_elsewhere(view, local.id, who.elsewhere)
    if local.is_ready and local.endpoint is not None:
        target = Local(endpoint=local.endpoint, slots=local.slots, context_tokens=local.context_tokens)
        routes = (Route(model=local.id, node=view.me.node, target=target, reason="local"), *routes)
    if routes:
        return _of_size(local.id, routes, request)
    least, most = request.wishes.min_context, largest_context(view, local)
    if 0 < most < least and not who.elsewhere:
        return too_small(f"the model {local.id!r}", least, most)
    return not_ready(view, local, elsewhere, None if request.is_forwarded else view.cold.get(local.id))


def _ways_elsewhere(
    view: MeshView, model: ModelId, replicas: tuple[Replica, ...], request: RouteRequest, digest: str
) -> Routes | Wait | Refusal:
    """Return the ways to a model, or to one file of it, that only other nodes have."""
    who = able(view, request.wanted, None, replicas)
    if replicas and not who.elsewhere:
        return _not_able(view, model, request)
    if routes := _routes_elsewhere(view, model, who.elsewhere):
        return _of_size(model, routes, request)
    cold = None if request.is_forwarded else view.cold.get(model)
    if cold is not None and digest and cold.digest != digest:
        cold = None
    return not_here(view, model, replicas, cold) or not_found(view, model, ())


def _routes_elsewhere(view: MeshView, model: ModelId, replicas: tuple[Replica, ...]) -> tuple[Route, ...]:
    return tuple(
        Route(
            model=model, node=replica.node, reason="suspect" if replica.is_suspect else "remote",
            target=Remote(
                digest=replica.served.digest, slots=replica.served.slots,
                context_tokens=replica.served.context_tokens, in_flight=replica.served.busy + replica.served.queued,
            ),
        )
        for replica in in_order(replicas, checks_health=view.routing.effective.checks_health)
    )  # fmt: skip


def _of_size(model: ModelId, routes: tuple[Route, ...], request: RouteRequest) -> Routes | Refusal:
    """Return those of the ways to a model that lead to a large enough context."""
    least = request.wishes.min_context
    fitting = large_enough(routes, least)
    if not fitting:
        return too_small(f"the model {model!r}", least, max(route.target.context_tokens for route in routes))
    return Routes(model=model, routes=fitting)


def _not_able(view: MeshView, model: ModelId, request: RouteRequest) -> Refusal:
    return not_able(view, model, request.wanted, is_wish=bool(request.wishes.capabilities))
