"""Where one request goes: `plan_routes` over the newest view, pure and fast (it runs once per request).

Owns the order of the questions: which model does the name mean, may it be served, who has it. Answers
with routes in order of preference, with a reason to wait, or with a refusal. Doesn't know HTTP: the
front door turns refusals into status codes.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum

from meshllm.core.engines import EngineEndpoint, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import AUTO_NAME, DEFAULT_NAMES, Ambiguous, Unknown
from meshllm.core.resources import format_bytes
from meshllm.core.serving.replicas import digests, in_order, of_digest, pinned
from meshllm.core.view import LoadProgress, LocalModel, MeshView, Replica

_BACK = "brings it back"
FALLBACK = "fallback"
"""The reason of a route to another model than the one that was asked for."""


class Capability(StrEnum):
    """What a request needs a model to be able to do."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    VISION = "vision"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequest:
    """The few facts of a request that routing depends on."""

    model: str | None
    """As the client wrote it; None where it wrote none."""
    needs: Capability | None = None
    falls_back: bool = False
    """An unknown name may be answered by another model (`--unknown-model fallback`)."""
    is_forwarded: bool = False
    """Another node sent it here: it is served here or refused, never sent on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """This node's own engine."""

    endpoint: EngineEndpoint
    slots: int
    context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Another node's engine, through a tunnel."""

    digest: str
    """Of the file that the route was chosen for; the far end refuses any other. Empty when not known."""
    slots: int
    context_tokens: int
    in_flight: int = 0
    """Requests at the engine when its node last said so: computed and queued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to an answer, with the reason that `X-Mesh-Route-Reason` shows."""

    model: ModelId
    node: NodeId
    target: Local | Remote
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """The ways to an answer, best first; never empty."""

    model: ModelId
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The model is known and not ready: hold the request and ask again when the view changes."""

    model: ModelId
    message: str
    is_asleep: bool
    """Nobody is loading it yet: the request itself has to ask for it (`ModelWanted`)."""
    progress: LoadProgress | None = None


class RefusalCode(StrEnum):
    """Why a request has no route. The front door knows the HTTP status of each."""

    MODEL_NOT_FOUND = "model_not_found"
    AMBIGUOUS_MODEL = "ambiguous_model"
    NO_DEFAULT_MODEL = "no_default_model"
    CAPABILITY_NOT_SUPPORTED = "capability_not_supported"
    NO_CAPACITY = "no_capacity"
    MODEL_HELD = "model_held"
    MODEL_UNLOADED = "model_unloaded"
    MODEL_FAILED = "model_failed"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """There is no route, and waiting would not help."""

    code: RefusalCode
    message: str
    model: str = ""


def plan_routes(view: MeshView, request: RouteRequest) -> Routes | Wait | Refusal:
    """Return where a request goes in this view."""
    found = _plan(view, request)
    if request.falls_back and isinstance(found, Refusal) and found.code is RefusalCode.MODEL_NOT_FOUND:
        return _fall_back(view, request.needs) or found
    return found


_WITHDRAWN = frozenset({EngineState.DRAINING, EngineState.STOPPING, EngineState.STOPPED})


def unloaded(view: MeshView, model: ModelId) -> Refusal | None:
    """Return why a request that had this model does not get it again: it was taken out of memory on purpose.

    An engine that crashes is still wanted and comes back; one that was unloaded would come back only because
    the request that the unloading cut off asks for it, and so undoes what somebody ordered.
    """
    local = view.local.get(model)
    if view.leaving or local is None or local.wanted or local.waiting or local.state not in _WITHDRAWN:
        return None
    hint = f"`mesh-llm load {model}` {_BACK}" if local.held or local.dropped else "another request loads it again"
    message = f"the model {model!r} was unloaded while this request was under way; {hint}"
    return Refusal(code=RefusalCode.MODEL_UNLOADED, message=message, model=model)


def _fall_back(view: MeshView, needs: Capability | None) -> Routes | Wait | None:
    """Return where a request for an unknown model goes instead: the default, else the first that is ready."""
    if needs is Capability.EMBEDDING:
        return None  # vectors of another model are not comparable: worse than no answer
    default = [] if view.default_model is None else [view.default_model]
    for model in (*default, *_ready_names(view)):
        found = _plan(view, RouteRequest(model=model, needs=needs))
        if isinstance(found, Wait):
            return found
        if isinstance(found, Routes):
            return replace(found, routes=tuple(replace(route, reason=FALLBACK) for route in found.routes))
    return None


def _ready_names(view: MeshView) -> list[ModelId]:
    """Return the models that answer now: this node's own first, each part sorted."""
    here = sorted(model.id for model in view.local.values() if model.is_ready)
    return here + [model for model, replicas in view.replicas.items() if model not in here and in_order(replicas)]


def _plan(view: MeshView, request: RouteRequest) -> Routes | Wait | Refusal:
    if view.leaving:
        return Refusal(code=RefusalCode.LEAVING, message="this node is shutting down; try another one")
    asked = request.model or ""
    name, _, digest = asked.partition("@")
    resolved = _known(view, name) or _resolve(view, name)
    if isinstance(resolved, Refusal | Wait):
        return resolved
    local = view.local.get(resolved)
    elsewhere = () if request.is_forwarded else view.replicas.get(resolved, ())
    if digest:
        elsewhere = tuple(one for one in elsewhere if one.served.digest.startswith(digest))
        local = local if local is not None and _digest_of(local).startswith(digest) else None
        if local is None and not elsewhere:
            message = f"no node has the file {digest!r} of the model {resolved!r}"
            return Refusal(code=RefusalCode.MODEL_NOT_FOUND, message=message, model=asked)
    if local is not None:
        return _ways(view, local, of_digest(elsewhere, _digest_of(local)), request.needs)
    if len(files := digests(elsewhere)) > 1:
        return _ambiguous(asked, [pinned(resolved, file) for file in files])
    return _ways_elsewhere(view, resolved, elsewhere, request.needs)


def _known(view: MeshView, name: str) -> ModelId | None:
    """Return the model of exactly this name, without searching."""
    model = ModelId(name)
    return model if model in view.local or model in view.replicas else None


def _digest_of(model: LocalModel) -> str:
    return model.spec.digest if model.spec is not None else ""


def _ways(
    view: MeshView, local: LocalModel, elsewhere: tuple[Replica, ...], needs: Capability | None
) -> Routes | Wait | Refusal:
    """Return the ways to a model that this node knows: its own engine first, then others that are ready."""
    if needs is not None and local.spec is not None:
        refusal = _lacking(local.id, local.spec.capabilities, needs)
        if refusal is not None:
            return refusal
    routes = _routes_elsewhere(local.id, elsewhere)
    if local.state is EngineState.READY and local.endpoint is not None:
        target = Local(endpoint=local.endpoint, slots=local.slots, context_tokens=local.context_tokens)
        routes = (Route(model=local.id, node=view.me.node, target=target, reason="local"), *routes)
    if routes:
        return Routes(model=local.id, routes=routes)
    found = _not_ready(local)
    return _waiting_elsewhere(local.id, elsewhere) or found if isinstance(found, Refusal) else found


def _ways_elsewhere(
    view: MeshView, model: ModelId, replicas: tuple[Replica, ...], needs: Capability | None
) -> Routes | Wait | Refusal:
    """Return the ways to a model that only other nodes have."""
    if needs is not None and replicas:
        refusal = _lacking(model, replicas[0].served.capabilities, needs)
        if refusal is not None:
            return refusal
    if routes := _routes_elsewhere(model, replicas):
        return Routes(model=model, routes=routes)
    return _waiting_elsewhere(model, replicas) or _not_found(view, model, ())


def _routes_elsewhere(model: ModelId, replicas: tuple[Replica, ...]) -> tuple[Route, ...]:
    return tuple(
        Route(
            model=model, node=replica.node, reason="suspect" if replica.is_suspect else "remote",
            target=Remote(
                digest=replica.served.digest, slots=replica.served.slots,
                context_tokens=replica.served.context_tokens, in_flight=replica.served.busy + replica.served.queued,
            ),
        )
        for replica in in_order(replicas)
    )  # fmt: skip


def _waiting_elsewhere(model: ModelId, replicas: tuple[Replica, ...]) -> Wait | None:
    """Return what to wait for at other nodes; nobody has to be asked for it."""
    if not replicas:
        return None
    replica = replicas[0]
    message = f"the model {model!r} is {replica.served.state} at {replica.name}"
    return Wait(model=model, message=message, is_asleep=False)


def _resolve(view: MeshView, asked: str) -> ModelId | Wait | Refusal:
    """Return the model that a name means in this view, or why it means none yet or at all."""
    if asked in DEFAULT_NAMES or asked == AUTO_NAME:
        return _default(view, asked)
    found = view.names.resolve(asked)
    if isinstance(found, Ambiguous):
        return name_refused(view, asked, found)
    if not isinstance(found, Unknown) and (found in view.local or found in view.replicas):
        return found
    if not view.has_inventory or (asked in view.requested and asked not in view.unresolved):
        return Wait(model=ModelId(asked), message=f"this node is looking for the model {asked!r}", is_asleep=False)
    if view.joining:
        return Wait(model=ModelId(asked), message="this node is joining its mesh", is_asleep=False)
    return _not_found(view, asked, found.near if isinstance(found, Unknown) else ())


def _ambiguous(asked: str, candidates: list[str] | list[ModelId]) -> Refusal:
    message = f"the model name {asked!r} could mean any of: {', '.join(candidates)}"
    return Refusal(code=RefusalCode.AMBIGUOUS_MODEL, message=message, model=asked)


def name_refused(view: MeshView, asked: str, found: Unknown | Ambiguous) -> Refusal:
    """Return the refusal of a name that leads to no model, with the names that were perhaps meant."""
    if isinstance(found, Ambiguous):
        return _ambiguous(asked, list(found.candidates))
    return _not_found(view, asked, found.near)


def _not_found(view: MeshView, asked: str, near: tuple[str, ...]) -> Refusal:
    reason = ""
    if _is_path(asked):
        reason, near = ": models are asked for by name, not by path", _names_of_file(view, asked) or near
    if near:
        hint = f"; did you mean {' or '.join(near)}?"
    elif view.local or view.replicas:
        hint = "; GET /v1/models lists what there is"
    else:
        hint = "; there are no models yet"
    message = f"the model {asked!r} does not exist{reason}{hint}"
    return Refusal(code=RefusalCode.MODEL_NOT_FOUND, message=message, model=asked)


def _is_path(asked: str) -> bool:
    """Tell whether a name is a file's path. `user/repo` is none."""
    return asked.startswith(("/", "~", "./", "../")) or (
        asked.lower().endswith(".gguf") and ("/" in asked or "\\" in asked)
    )


def _names_of_file(view: MeshView, path: str) -> tuple[str, ...]:
    """Return the names that a file's own name is like."""
    name = path.replace("\\", "/").rpartition("/")[2]
    found = view.names.resolve(name[:-5] if name.lower().endswith(".gguf") else name)
    if isinstance(found, Unknown):
        return found.near
    return found.candidates if isinstance(found, Ambiguous) else (found,)


def _default(view: MeshView, asked: str) -> ModelId | Wait | Refusal:
    """Return the default model; for `auto`, the ready model used last, else the default; else what others serve."""
    if asked == AUTO_NAME:
        ready = [model for model in view.local.values() if model.is_ready]
        if ready:
            best = max(ready, key=lambda model: (model.id == view.default_model, model.last_used_s or 0.0, model.id))
            return best.id
    if view.default_model is not None and view.default_model in view.local:
        return view.default_model
    if not view.has_inventory or any(name not in view.unresolved for name in view.requested):
        return Wait(model=ModelId(asked), message="this node is looking for its models", is_asleep=False)
    if elsewhere := _ready_names(view):
        return elsewhere[0]
    if view.joining:
        return Wait(model=ModelId(asked), message="this node is joining its mesh", is_asleep=False)
    message = "no model was named and there is no default model"
    return Refusal(code=RefusalCode.NO_DEFAULT_MODEL, message=message)


def _lacking(model: ModelId, capabilities: Collection[str], needs: Capability) -> Refusal | None:
    """Return why a model cannot do what a request needs, or None where it can or nobody knows."""
    if not capabilities or needs in capabilities:
        return None
    able = ", ".join(sorted(capabilities))
    message = f"the model {model!r} cannot do {needs}; it can do: {able}"
    return Refusal(code=RefusalCode.CAPABILITY_NOT_SUPPORTED, message=message, model=model)


def _not_ready(model: LocalModel) -> Wait | Refusal:
    """Return what a request for a model that is not in memory is told."""
    if model.held:
        message = f"the model {model.id!r} is held unloaded; `mesh-llm load {model.id}` {_BACK}"
        return Refusal(code=RefusalCode.MODEL_HELD, message=message, model=model.id)
    if model.dropped:
        message = f"the model {model.id!r} was dropped from this node; `mesh-llm load {model.id}` {_BACK}"
        return Refusal(code=RefusalCode.MODEL_NOT_FOUND, message=message, model=model.id)
    if model.state is EngineState.FAILED and model.failure is not None:
        message = f"the model {model.id!r} cannot be served: {model.failure.message}"
        return Refusal(code=RefusalCode.MODEL_FAILED, message=message, model=model.id)
    if model.waiting and model.state is EngineState.STOPPED and model.progress is None:
        message = f"the model {model.id!r} waits for {model.waiting}"
        return Refusal(code=RefusalCode.NO_CAPACITY, message=message, model=model.id)
    asleep = model.state is EngineState.STOPPED and not model.wanted
    return Wait(model=model.id, message=_loading(model), is_asleep=asleep, progress=model.progress)


def _loading(model: LocalModel) -> str:
    """Say how far a model is."""
    progress = model.progress
    if progress is None:
        return f"the model {model.id!r} is {model.state.replace('_', ' ')}"
    sizes = ""
    if progress.total_bytes:
        sizes = f" of {format_bytes(progress.total_bytes)}"
    return f"the model {model.id!r} is {progress.stage}, {progress.share:.0%}{sizes}"
