"""Which models may answer a request that leaves its model open (`auto`).

Owns the filters: what a model can do, how large its context is, whether it answers anywhere. Decides the order of those
that are not ready, and what is told where none fits. Which of several ready ones a request gets is chosen by load,
session and strategy (`route_memory`); here only for whoever doesn't ask that. Pure.
"""

from collections.abc import Iterable, Mapping

from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId
from meshllm.core.routing.abilities import able, known_abilities, largest_context, none_able, too_small
from meshllm.core.routing.asleep import coming, disabled
from meshllm.core.routing.replicas import digests, in_order, in_use, is_usable, of_same_file
from meshllm.core.routing.routes import Capability, Refusal, RouteRequest, Wait
from meshllm.core.view import LocalModel, MeshView, Replica

_NEVER = frozenset({EngineState.FAILED, EngineState.DRAINING, EngineState.STOPPING})


def capable(view: MeshView, request: RouteRequest) -> Mapping[ModelId, int]:
    """Return the ready models that can do what a request wants, with how many of its preferences each meets."""
    found = {}
    for model in _ids(view):
        if _fits(_sizes(view, model, request, is_ready=True), request) and disabled(view, model) is None:
            known = known_abilities(view, model) if request.wishes.preferred else ()
            found[model] = sum(one in known for one in request.wishes.preferred)
    return found


def most_preferred(models: Mapping[ModelId, int]) -> tuple[ModelId, ...]:
    """Return those of `capable` that meet the most preferences, sorted."""
    most = max(models.values(), default=0)
    return tuple(sorted(model for model, met in models.items() if met == most))


def open_meaning(view: MeshView, request: RouteRequest, default: ModelId | Wait | Refusal) -> ModelId | Wait | Refusal:
    """Return the model that an open request means: one that is ready, else one that will be, else why there is none.

    Ready ones of this node come first, the default among them, then the one used last; elsewhere the default, then the
    least busy.
    """
    if ready := most_preferred(capable(view, request)):
        return min(ready, key=lambda model: _rank(view, model))
    if isinstance(default, Wait):
        return default
    is_chosen = not isinstance(default, Refusal)
    if not isinstance(default, Refusal) and _may_become(view, default, request):
        return default
    special = is_chosen or request.wishes.capabilities or request.needs not in {None, Capability.COMPLETION}
    for model in _ids(view):
        if _is_coming(view, model, request, wakes=bool(special)):
            return model
    return _refused(view, request) or default


def _ids(view: MeshView) -> list[ModelId]:
    return sorted({*view.local, *view.replicas})


def same_file(view: MeshView, model: ModelId) -> tuple[LocalModel | None, tuple[Replica, ...]]:
    """Return who has a model: this node, and others with the same file. Two files under one name are none."""
    local, replicas = view.local.get(model), view.replicas.get(model, ())
    if local is not None:
        return local, of_same_file(local, replicas)
    return None, replicas if len(digests(in_use(replicas))) <= 1 else ()


def _sizes(view: MeshView, model: ModelId, request: RouteRequest, *, is_ready: bool) -> list[int]:
    """Return the contexts of a model where it is ready, or could be, and can do what is wanted; 0 where unknown."""
    local, replicas = same_file(view, model)
    if local is not None and local.is_ready is not is_ready:
        local = None
    replicas = tuple(replica for replica in replicas if is_usable(replica.served) is is_ready)
    who = able(view, request.wanted, local, replicas)
    found = [replica.served.context_tokens for replica in who.elsewhere]
    if local is not None and who.is_here:
        found.append(local.context_tokens if is_ready else largest_context(view, local))
    return found


def _fits(sizes: Iterable[int], request: RouteRequest) -> bool:
    return any(not tokens or tokens >= request.wishes.min_context for tokens in sizes)


def _rank(view: MeshView, model: ModelId) -> tuple[bool, bool, float, ModelId]:
    """Return what orders ready models where nobody chooses by strategy."""
    local = view.local.get(model)
    is_other = model != view.default_model
    if local is not None and local.is_ready:
        return (False, is_other, -(local.last_used_s or 0.0), model)
    served = in_order(view.replicas[model])[0].served
    return (True, is_other, (served.busy + served.queued) / max(served.slots, 1), model)


def _may_become(view: MeshView, model: ModelId, request: RouteRequest) -> bool:
    """Tell whether a model that is not ready may do what is wanted once it is; one that only others have may."""
    is_known = model in view.local or model in view.replicas
    return not is_known or _fits(_sizes(view, model, request, is_ready=False), request)


def _is_coming(view: MeshView, model: ModelId, request: RouteRequest, *, wakes: bool) -> bool:
    """Tell whether a model that fits is on its way, or sleeps on this node's disk, where such a one may be woken."""
    if disabled(view, model) is not None or not _may_become(view, model, request):
        return False
    local, replicas = same_file(view, model)
    if coming(model, able(view, request.wanted, None, replicas).elsewhere) is not None:
        return True
    if local is None or local.held or local.dropped or local.is_ready or local.state in _NEVER:
        return False
    return local.wanted or (wakes and local.on_disk is not None)


def _refused(view: MeshView, request: RouteRequest) -> Refusal | None:
    """Say why no model fits: none can do what is wanted, or none that can is large enough; None: neither is why."""
    models = _ids(view)
    sizes = {
        model: found
        for model in models
        if (found := [size for is_ready in (True, False) for size in _sizes(view, model, request, is_ready=is_ready)])
    }
    if models and not sizes:
        return none_able(view, request.wanted, models, is_wish=bool(request.wishes.capabilities))
    if any(_fits(found, request) for found in sizes.values()) or not sizes:
        return None
    model = max(sizes, key=lambda one: max(sizes[one]))
    return too_small(f"those that can do it, {model!r},", request.wishes.min_context, max(sizes[model]))
