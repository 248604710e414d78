"""The hosts that a request could go to, as the choice among them sees them.

Owns the reading of a view for that choice: what each host last said of itself, and how old that can be. Decides what
counts as the same engine, and as another announcement. Doesn't know what this node sent there itself. Pure.
"""

from collections.abc import Iterable

from meshllm.core import limits
from meshllm.core.announcement import ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.resources import Resources
from meshllm.core.routing.open_model import same_file
from meshllm.core.routing.prefix_index import EngineKey
from meshllm.core.routing.ratings import HEALTHY, Candidate
from meshllm.core.routing.replicas import is_usable
from meshllm.core.routing.routes import Local, Route
from meshllm.core.view import MeshView, Replica

_INCARNATIONS = 1 << 40
"""More versions than one incarnation of a node has."""


def candidate_of(view: MeshView, route: Route) -> Candidate:
    """Return one way as a candidate."""
    to, node, model = route.target, route.node, route.model
    if isinstance(to, Local):
        return _here(view, node, model, to)
    replica = _replica(view, node, model)
    busy = to.in_flight
    if replica is not None:
        return _there(view, replica, max(to.slots, 1), busy)
    return Candidate(
        node=node, model=model, slots=max(to.slots, 1), busy=busy, mark=mark_of(view, node) or 1,
        life=_life(view, node), rtt_s=limits.RTT_UNMEASURED_S,
    )  # fmt: skip


def hosts_of(view: MeshView, model: ModelId) -> tuple[Candidate, ...]:
    """Return every ready host of a model, with one and the same file."""
    local, replicas = same_file(view, model)
    found = [
        _there(view, replica, max(replica.served.slots, 1), replica.served.busy + replica.served.queued)
        for replica in replicas
        if is_usable(replica.served)
    ]
    if local is not None and local.is_ready and local.endpoint is not None:
        here = Local(endpoint=local.endpoint, slots=local.slots, context_tokens=local.context_tokens)
        found.insert(0, _here(view, view.me.node, model, here))
    return tuple(found)


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
        node=node, model=model, slots=max(to.slots, 1), life=life, is_here=True, pressure=_pressure(view.resources),
        health=checks.verdict if checks is not None else HEALTHY,
    )  # fmt: skip


def _there(view: MeshView, replica: Replica, slots: int, busy: int) -> Candidate:
    node, served = replica.node, replica.served
    return Candidate(
        node=node, model=served.model, slots=slots, busy=busy, mark=mark_of(view, node) or 1, life=_life(view, node),
        is_suspect=replica.is_suspect, health=served.health, pressure=_pressure_there(view, node),
        rtt_s=limits.RTT_UNMEASURED_S if replica.rtt_s is None else replica.rtt_s,
    )  # fmt: skip


def _pressure_there(view: MeshView, node: NodeId) -> float:
    member = view.members.get(node)
    return _pressure(member.announcement.resources) if member is not None else 0.0


def _pressure(resources: Resources | None) -> float:
    """Return the share of a machine's memory that is taken, where so much is that it hinders; else 0.

    A GPU's memory is not looked at: what an engine needs there it has from its start, and a full one is no slower.
    """
    if resources is None or resources.memory_total_bytes <= 0:
        return 0.0
    share = 1.0 - resources.memory_free_bytes / resources.memory_total_bytes
    return share if share > limits.MEMORY_PRESSURE_SHARE else 0.0


def _replica(view: MeshView, node: NodeId, model: ModelId) -> Replica | None:
    return next((replica for replica in view.replicas.get(model, ()) if replica.node == node), None)


def _life(view: MeshView, node: NodeId) -> str:
    """Return what changes when a node starts anew. That its engine does shows in what the node announces meanwhile."""
    member = view.members.get(node)
    return str(member.announcement.incarnation) if member is not None else ""
