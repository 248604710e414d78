"""What a request is told whose model is not ready: to wait, with the reason in words, or that it would wait in vain.

Owns the words about models that load, sleep, are held or have no room, here and elsewhere. Decides
whether the request itself has to ask for the model (`Wait.is_asleep`). Doesn't know names. Pure.
"""

from meshllm.core.announcement import ServingState
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId, NodeId, short
from meshllm.core.intents import Verb
from meshllm.core.policy import LoadMode
from meshllm.core.resources import format_bytes
from meshllm.core.routing.routes import Refusal, RefusalCode, Wait
from meshllm.core.view import ColdModel, LocalModel, MeshView, Replica

_BACK = "brings it back"
_WITHDRAWN = frozenset({EngineState.DRAINING, EngineState.STOPPING, EngineState.STOPPED})
_HERE_ALONE = frozenset({
    RefusalCode.MODEL_HELD, RefusalCode.MODEL_NOT_FOUND, RefusalCode.MODEL_FAILED, RefusalCode.NO_CAPACITY,
})  # fmt: skip
"""Refusals that speak of this node only: where others have the file, the model can come from them."""
_FAR_WORDS = {
    ServingState.CLAIMED: "about to be loaded",
    ServingState.DOWNLOADING: "being downloaded",
    ServingState.LOADING: "loading",
    ServingState.READY: "ready",
    ServingState.DRAINING: "being unloaded",
}
_FURTHEST = {state: number for number, state in enumerate([
    ServingState.DRAINING, ServingState.CLAIMED, ServingState.DOWNLOADING, ServingState.LOADING, ServingState.READY,
])}  # fmt: skip
_STANDING = frozenset({ServingState.READY, ServingState.FAILED})
"""Where nothing is to be waited for."""
_NAMED = 3


def unloaded(view: MeshView, model: ModelId) -> Refusal | None:
    """Return why a request that had this model does not get it again: it was taken out of memory on purpose.

    An engine that crashes is still wanted and comes back; one that was unloaded would come back only because
    the request that the unloading cut off asks for it, and so undoes what somebody ordered.
    """
    local = view.local.get(model)
    if view.leaving or local is None or local.wanted or local.waiting or local.state not in _WITHDRAWN:
        return None
    return _unloaded(model, is_kept_out=local.held or local.dropped)


def unloaded_since(view: MeshView, model: ModelId, version: int) -> Refusal | None:
    """Return why a request that waits for a model since an order's version does not get it: a newer one unloads it."""
    order = view.orders.get(model)
    if order is None or order.verb is not Verb.UNLOAD or order.version <= version:
        return None
    return _unloaded(model, is_kept_out=order.hold)


def order_version(view: MeshView, model: ModelId) -> int:
    """Return the version of the newest order about a model; 0 without one."""
    order = view.orders.get(model)
    return order.version if order is not None else 0


def _unloaded(model: ModelId, *, is_kept_out: bool) -> Refusal:
    hint = f"`mesh-llm load {model}` {_BACK}" if is_kept_out else "another request loads it again"
    message = f"the model {model!r} was unloaded while this request was under way; {hint}"
    return Refusal(code=RefusalCode.MODEL_UNLOADED, message=message, model=model)


def disabled(view: MeshView, model: ModelId) -> Refusal | None:
    """Return the refusal of a model that this node's configuration switches off."""
    policy = view.policies.get(model)
    if policy is None or policy.is_enabled:
        return None
    message = f"the model {model!r} is disabled by this node's configuration"
    return Refusal(code=RefusalCode.MODEL_DISABLED, message=message, model=model)


def not_ready(
    view: MeshView, local: LocalModel, elsewhere: tuple[Replica, ...], cold: ColdModel | None
) -> Wait | Refusal:
    """Return what a request for a model of this node is told that is ready nowhere."""
    found = _not_ready_here(local)
    if isinstance(found, Wait) and not found.is_asleep:
        return found
    if away := coming(local.id, elsewhere) or _held(cold):
        return away
    if isinstance(found, Wait) and (refusal := _by_order_only(view, local.id)):
        return refusal
    return (_cold_elsewhere(view, cold, found) if cold is not None else None) or found


def not_here(
    view: MeshView, model: ModelId, elsewhere: tuple[Replica, ...], cold: ColdModel | None
) -> Wait | Refusal | None:
    """Return what a request for a model is told that other nodes have, or None if none has it."""
    if found := coming(model, elsewhere):
        return found
    if cold is None:
        return _unwell(model, elsewhere) if elsewhere else None
    return _held(cold) or _by_order_only(view, model) or _asleep(view, cold)


def coming(model: ModelId, replicas: tuple[Replica, ...]) -> Wait | None:
    """Return what to wait for at other nodes; nobody has to be asked for it."""
    on_the_way = [replica for replica in replicas if replica.served.state not in _STANDING]
    if not on_the_way:
        return None
    replica = max(on_the_way, key=lambda replica: (_FURTHEST[replica.served.state], replica.node))
    if replica.served.state is ServingState.DRAINING and len(replicas) > len(on_the_way):
        return None
    message = f"the model {model!r} is {_FAR_WORDS[replica.served.state]} at {replica.name}"
    return Wait(model=model, message=message, is_asleep=False)


def _held(cold: ColdModel | None) -> Refusal | None:
    """Return the refusal of a model that somebody ordered to stay out of memory everywhere."""
    if cold is None or not cold.is_held:
        return None
    message = f"the model {cold.model!r} is held unloaded in the whole mesh; `mesh-llm load {cold.model}` {_BACK}"
    return Refusal(code=RefusalCode.MODEL_HELD, message=message, model=cold.model)


def _by_order_only(view: MeshView, model: ModelId) -> Refusal | None:
    """Return the refusal of a model that this node's configuration keeps from being loaded by a request."""
    policy = view.policies.get(model)
    if policy is None or policy.load is not LoadMode.OFF:
        return None
    message = f"the model {model!r} is loaded by order only; `mesh-llm load {model}` gives it"
    return Refusal(code=RefusalCode.MODEL_NOT_LOADED, message=message, model=model)


def _asleep(view: MeshView, cold: ColdModel) -> Wait | Refusal:
    """Return what to wait for where nobody serves a model: whoever takes it up, if anybody can."""
    if cold.lack:
        message = f"no node can load the model {cold.model!r}: {cold.lack}"
        return Refusal(code=RefusalCode.NO_CAPACITY, message=message, model=cold.model)
    if _is_early(view, cold):
        message = f"the model {cold.model!r} is on the disk of {_names(view, cold.nodes)}, where no engine is known yet"
        return Wait(model=cold.model, message=message, is_asleep=False)
    where = f"is on the disk of {_names(view, cold.nodes)}" if cold.nodes else "is to be downloaded"
    message = f"the model {cold.model!r} {where} and not in memory yet"
    return Wait(model=cold.model, message=message, is_asleep=True)


def _is_early(view: MeshView, cold: ColdModel) -> bool:
    """Tell whether all nodes that have a model have just started: it is asked for when they know what they can run."""
    known = [view.members.get(node) for node in cold.nodes]
    return bool(known) and all(one is not None and one.announcement.is_starting for one in known)


def _cold_elsewhere(view: MeshView, cold: ColdModel, found: Wait | Refusal) -> Wait | Refusal | None:
    """Return what the mesh makes of a model that this node does not load, or None where that is all there is to say.

    That there is no room is asked of all nodes; what keeps the model from this one alone, only matters to it.
    """
    if isinstance(found, Wait):
        return _asleep(view, cold) if cold.lack or _is_early(view, cold) else None
    if found.code is RefusalCode.NO_CAPACITY:
        return None if cold.lack and view.me.node in cold.nodes else _asleep(view, cold)
    others = [node for node in cold.nodes if node != view.me.node]
    return _asleep(view, cold) if others and found.code in _HERE_ALONE else None


def _unwell(model: ModelId, replicas: tuple[Replica, ...]) -> Refusal:
    troubled = next((replica for replica in replicas if replica.served.trouble), None)
    message = f"the model {model!r} is in memory, and its own checks say that it does not work: at every host"
    if troubled is not None:
        message = f"the model {model!r} cannot be served: {troubled.served.trouble} (at {troubled.name})"
    return Refusal(code=RefusalCode.MODEL_FAILED, message=message, model=model)


def _names(view: MeshView, nodes: tuple[NodeId, ...]) -> str:
    """Return the names of some nodes, for people."""
    names = [
        member.announcement.name if (member := view.members.get(node)) is not None else short(node)
        for node in nodes[:_NAMED]
    ]
    more = len(nodes) - _NAMED
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _not_ready_here(model: LocalModel) -> Wait | Refusal:
    """Return what this node alone would say of a model that is not in memory."""
    if model.held:
        message = f"the model {model.id!r} is held unloaded; `mesh-llm load {model.id}` {_BACK}"
        return Refusal(code=RefusalCode.MODEL_HELD, message=message, model=model.id)
    if model.dropped:
        message = f"the model {model.id!r} was dropped from this node; `mesh-llm load {model.id}` {_BACK}"
        return Refusal(code=RefusalCode.MODEL_NOT_FOUND, message=message, model=model.id)
    if model.checks is not None and model.checks.is_broken:
        message = f"the model {model.id!r} cannot be served: {model.checks.reason}"
        return Refusal(code=RefusalCode.MODEL_FAILED, message=message, model=model.id)
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
        word = model.state.replace("_", " ")
        if model.state is EngineState.STOPPED:
            word = "about to be loaded" if model.wanted else "not in memory yet"
        return f"the model {model.id!r} is {word}"
    sizes = ""
    if progress.total_bytes:
        sizes = f" of {format_bytes(progress.total_bytes)}"
    return f"the model {model.id!r} is {progress.stage}, {progress.share:.0%}{sizes}"
