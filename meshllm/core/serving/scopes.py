"""Whom an order is for, which nodes have to do something about it, and what their answers come to together.

Owns the meaning of a scope and the order of outcomes from good to bad. Decides nothing about models. Doesn't know
connections; pure.
"""

from collections.abc import Mapping

from meshllm.core.announcement import ServingState
from meshllm.core.ids import ModelId, NodeId, short
from meshllm.core.intents import Outcome, OutcomeCode, Verb
from meshllm.core.rights import Rights
from meshllm.core.standing import LIVE
from meshllm.core.view import MeshView

NODE, MESH = "node", "mesh"
PREFIX_CHARS = 4
"""Of a node's id that name it, if no other begins so."""

_GONE_ANYWAY = frozenset({OutcomeCode.NOT_SERVED, OutcomeCode.UNKNOWN_MODEL, OutcomeCode.LEAVING})
"""What a node says that does not serve a model: as good as done, where it was to be taken out of memory."""
_WORSE_AND_WORSE = (
    OutcomeCode.DONE, OutcomeCode.NOT_SERVED, OutcomeCode.UNKNOWN_MODEL, OutcomeCode.LEAVING, OutcomeCode.SUPERSEDED,
    OutcomeCode.INVALID_VALUE, OutcomeCode.INVALID_STRATEGY, OutcomeCode.UNKNOWN_KEY, OutcomeCode.VERSION_CONFLICT,
    OutcomeCode.AMBIGUOUS_MODEL, OutcomeCode.NO_CAPACITY, OutcomeCode.STARTING, OutcomeCode.UNREACHABLE,
    OutcomeCode.NOT_ALLOWED,
    OutcomeCode.NOT_LOADABLE, OutcomeCode.DOWNLOAD_FAILED, OutcomeCode.LOAD_FAILED,
)  # fmt: skip
_WORDS = {
    Verb.UNLOAD: "unloaded", Verb.DROP: "dropped", Verb.LOAD: "loaded", Verb.PULL: "on disk", Verb.PIN: "pinned",
    Verb.UNPIN: "not pinned",
}  # fmt: skip


def usual_scope(view: MeshView) -> str:
    """Return whom an order is for that does not say so: the mesh, where this node may order that."""
    return MESH if Rights.ADMIN in view.me.rights else NODE


def find_node(view: MeshView, scope: str) -> NodeId | str:
    """Return the live node that a scope names, by id, unique beginning of it, or name; else why it names none.

    The answer is a node if and only if it is a member's id.
    """
    live = {node: member for node, member in view.members.items() if member.state in LIVE}
    if NodeId(scope) in live:
        return NodeId(scope)
    found = [node for node, member in live.items() if member.announcement.name == scope]
    if not found and len(scope) >= PREFIX_CHARS:
        found = [node for node in live if node.startswith(scope)]
    if len(found) == 1:
        return found[0]
    if found:
        return f"{scope!r} could mean any of: {', '.join(short(node) for node in sorted(found))}"
    return f"no node of the mesh is called {scope!r}; a scope is mesh, node, or a node's name or id"


def serving_nodes(view: MeshView, model: ModelId) -> tuple[NodeId, ...]:
    """Return the other live members that serve a model or are about to."""
    return tuple(replica.node for replica in view.replicas.get(model, ()))


def is_ready_somewhere(view: MeshView, model: ModelId) -> bool:
    """Tell whether a request for a model would be answered."""
    local = view.local.get(model)
    return (local is not None and local.is_ready) or ServingState.READY in _states(view, model)


def is_coming_somewhere(view: MeshView, model: ModelId) -> bool:
    """Tell whether another node is about to serve a model."""
    return bool(_states(view, model) - {ServingState.DRAINING, ServingState.FAILED})


def combined(view: MeshView, verb: Verb, model: ModelId, outcomes: Mapping[NodeId, Outcome]) -> Outcome:
    """Return one outcome for those of several nodes: the worst counts, and the message names them."""
    ends = verb in (Verb.UNLOAD, Verb.DROP)
    done = [node for node, outcome in outcomes.items() if outcome.is_done]
    bad = {
        node: outcome
        for node, outcome in outcomes.items()
        if not outcome.is_done and not (ends and outcome.code in _GONE_ANYWAY)
    }
    word = _WORDS.get(verb, str(verb))
    parts = [f"{model} is {word} at {', '.join(name_of(view, node) for node in done)}"] if done else []
    parts += [f"{name_of(view, node)}: {outcome.message}" for node, outcome in bad.items()]
    if bad:
        code = max((outcome.code for outcome in bad.values()), key=_WORSE_AND_WORSE.index)
        return Outcome(code=code, message="; ".join(parts), model=model)
    if not done and verb is Verb.DROP:
        return Outcome(code=OutcomeCode.NOT_SERVED, message=f"no node serves {model}", model=model)
    return Outcome(code=OutcomeCode.DONE, message="; ".join(parts) or f"no node serves {model}", model=model)


def name_of(view: MeshView, node: NodeId) -> str:
    """Return a node's name with enough of its id to tell it from others."""
    member = view.members.get(node)
    return short(node) if member is None else f"{member.announcement.name} ({short(node)})"


def _states(view: MeshView, model: ModelId) -> set[ServingState]:
    return {replica.served.state for replica in view.replicas.get(model, ())}
