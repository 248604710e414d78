"""The hosts that a request could go to, as the choice among them sees them.

Owns the reading of a view for that choice: what each host last said of itself, and how old that can be. Decides what
counts as the same engine, and as another announcement. Doesn't know what this node sent there itself. Pure.
"""

from collections.abc import Iterable

from meshllm.core import limits
from meshllm.core.announcement import ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.serving.prefix_index import EngineKey
from meshllm.core.serving.ratings import HEALTHY, Candidate
from meshllm.core.serving.routes import Local, Route
from meshllm.core.view import MeshView, Replica

_INCARNATIONS = 1 << 40
"""More versions than one incarnation of a node has."""


def candidate_of(view: MeshView, route: Route) -> Candidate:
    """Return one way as a candidate."""
    to, node, model = route.target, route.node, route.model
    if isinstance(to, Local):
        return _here(view, node, model, to)
    replica = _replica(view, node, model)
    rtt_s = replica.rtt_s if replica is not None else None
    return Candidate(
        node=node, model=model, slots=max(to.slots, 1), busy=to.in_flight, mark=mark_of(view, node) or 1,
        life=_life(view, node), is_suspect=replica is not None and replica.is_suspect,
        health=replica.served.health if replica is not None else HEALTHY,
        rtt_s=limits.RTT_UNMEASURED_S if rtt_s is None else rtt_s,
    )  # fmt: skip


def mark_of(view: MeshView, node: NodeId) -> int:
    """Return what changes with each announcement of a node; 0 of an unknown one."""
    member = view.members.get(node)
    if member is None:
        return 0
    said = member.announcement
    return said.incarnation * _INCARNATIONS + said.version


def engines_of(view: MeshView) -> set[EngineKey]:
    """Return every engine that is in memory, this node's own too. One that starts anew is none meanwhile."""
    here = {(view.me.node, model.id) for model in view.local.values() if model.endpoint is not None}
    return here | set(_ready(view))


def _ready(view: MeshView) -> Iterable[EngineKey]:
    for model, replicas in view.replicas.items():
        for replica in replicas:
            if replica.served.state is ServingState.READY:
                yield replica.node, model


def _here(view: MeshView, node: NodeId, model: ModelId, to: Local) -> Candidate:
    local = view.local.get(model)
    checks = local.checks if local is not None else None
    life = f"{local.ready_since_s} {local.restarts}" if local is not None else ""
    return Candidate(
        node=node, model=model, slots=max(to.slots, 1), life=life, is_here=True,
        health=checks.verdict if checks is not None else HEALTHY,
    )  # fmt: skip


def _replica(view: MeshView, node: NodeId, model: ModelId) -> Replica | None:
    return next((replica for replica in view.replicas.get(model, ()) if replica.node == node), None)


def _life(view: MeshView, node: NodeId) -> str:
    """Return what changes when a node starts anew. That its engine does shows in what the node announces meanwhile."""
    member = view.members.get(node)
    return str(member.announcement.incarnation) if member is not None else ""
