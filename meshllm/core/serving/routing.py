"""Where one request goes: `plan_routes` over the newest view, pure and fast (it runs once per request).

Owns the order of the questions: which model does the name mean, may it be served, who has it. Answers
with routes in order of preference, with a reason to wait, or with a refusal. Doesn't know HTTP: the
front door turns refusals into status codes.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import AUTO_NAME, DEFAULT_NAMES, Ambiguous, Unknown
from meshllm.core.resources import format_bytes
from meshllm.core.serving.engine_state import EngineState
from meshllm.core.view import LoadProgress, LocalModel, MeshView

FALLBACK = "fallback"
"""The reason of a route to another model than the one that was asked for."""


class Capability(StrEnum):
    """What a request needs a model to be able to do."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequest:
    """The few facts of a request that routing depends on."""

    model: str | None
    """As the client wrote it; None where it wrote none."""
    needs: Capability | None = None
    falls_back: bool = False
    """An unknown name may be answered by another model (`--unknown-model fallback`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """This node's own engine."""

    endpoint: EngineEndpoint
    slots: int
    context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to an answer, with the reason that `X-Mesh-Route-Reason` shows."""

    model: ModelId
    node: NodeId
    target: Local
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


def _fall_back(view: MeshView, needs: Capability | None) -> Routes | Wait | None:
    """Return where a request for an unknown model goes instead: the default, else the first that is ready."""
    if needs is Capability.EMBEDDING:
        return None  # vectors of another model are not comparable: worse than no answer
    default = [] if view.default_model is None else [view.default_model]
    for model in (*default, *sorted(model.id for model in view.local.values() if model.is_ready)):
        found = _plan(view, RouteRequest(model=model, needs=needs))
        if isinstance(found, Wait):
            return found
        if isinstance(found, Routes):
            return replace(found, routes=tuple(replace(route, reason=FALLBACK) for route in found.routes))
    return None


def _plan(view: MeshView, request: RouteRequest) -> Routes | Wait | Refusal:
    if view.leaving:
        return Refusal(code=RefusalCode.LEAVING, message="this node is shutting down; try another one")
    model = view.local.get(ModelId(request.model)) if request.model else None
    if model is None:
        resolved = _resolve(view, request.model or "")
        if isinstance(resolved, Refusal | Wait):
            return resolved
        model = resolved
    if request.needs is not None and (refusal := _lacking(model, request.needs)) is not None:
        return refusal
    if model.state is EngineState.READY and model.endpoint is not None:
        target = Local(endpoint=model.endpoint, slots=model.slots, context_tokens=model.context_tokens)
        return Routes(
            model=model.id,
            routes=(Route(model=model.id, node=view.me.node, target=target, reason="local"),),
        )
    return _not_ready(model)


def _resolve(view: MeshView, asked: str) -> LocalModel | Wait | Refusal:
    """Return the model that a name means in this view, or why it means none yet or at all."""
    if asked in DEFAULT_NAMES or asked == AUTO_NAME:
        return _default(view, asked)
    found = view.names.resolve(asked)
    if isinstance(found, Ambiguous):
        names = ", ".join(found.candidates)
        message = f"the model name {asked!r} could mean any of: {names}"
        return Refusal(code=RefusalCode.AMBIGUOUS_MODEL, message=message, model=asked)
    if not isinstance(found, Unknown) and (model := view.local.get(found)) is not None:
        return model
    if not view.has_inventory or (asked in view.requested and asked not in view.unresolved):
        return Wait(model=ModelId(asked), message=f"this node is looking for the model {asked!r}", is_asleep=False)
    near = found.near if isinstance(found, Unknown) else ()
    if near:
        hint = f"; did you mean {' or '.join(near)}?"
    elif view.local:
        hint = "; GET /v1/models lists what there is"
    else:
        hint = "; this node has no models yet"
    message = f"the model {asked!r} does not exist{hint}"
    return Refusal(code=RefusalCode.MODEL_NOT_FOUND, message=message, model=asked)


def _default(view: MeshView, asked: str) -> LocalModel | Wait | Refusal:
    """Return the default model; for `auto`, the ready model used last, else the default."""
    if asked == AUTO_NAME:
        ready = [model for model in view.local.values() if model.is_ready]
        if ready:
            return max(ready, key=lambda model: (model.id == view.default_model, model.last_used_s or 0.0, model.id))
    if view.default_model is not None and (model := view.local.get(view.default_model)) is not None:
        return model
    if not view.has_inventory or any(name not in view.unresolved for name in view.requested):
        return Wait(model=ModelId(asked), message="this node is looking for its models", is_asleep=False)
    message = "no model was named and this node has no default model"
    return Refusal(code=RefusalCode.NO_DEFAULT_MODEL, message=message)


def _lacking(model: LocalModel, needs: Capability) -> Refusal | None:
    """Return why a model cannot do what a request needs, or None where it can or nobody knows."""
    spec: ModelSpec | None = model.spec
    if spec is None or not spec.capabilities or needs in spec.capabilities:
        return None
    able = ", ".join(sorted(spec.capabilities))
    message = f"the model {model.id!r} cannot do {needs}; it can do: {able}"
    return Refusal(code=RefusalCode.CAPABILITY_NOT_SUPPORTED, message=message, model=model.id)


def _not_ready(model: LocalModel) -> Wait | Refusal:
    """Return what a request for a model that is not in memory is told."""
    if model.held:
        message = f"the model {model.id!r} is held unloaded; `mesh-llm load {model.id}` brings it back"
        return Refusal(code=RefusalCode.MODEL_HELD, message=message, model=model.id)
    if model.dropped:
        message = f"the model {model.id!r} was dropped from this node; `mesh-llm load {model.id}` brings it back"
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
