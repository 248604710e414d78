"""What a view means for quotas: who shares a model's limits, and where only urgent requests may come in.

Owns the way from a view to what the ledger knows of hosts. Decides what an emergency is. Doesn't know requests. Pure.
"""

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import QUOTA_EMERGENCY_QUEUE_PER_SLOT, QUOTA_EMERGENCY_SHARE
from meshllm.core.quotas.lease import Hosts
from meshllm.core.standing import MemberState
from meshllm.core.view import MeshView


def hosts_of(view: MeshView, me: NodeId) -> dict[ModelId, Hosts]:
    """Return who serves each model that has quotas."""
    left = frozenset(node for node, member in view.members.items() if member.state is MemberState.LEFT)
    return {
        model: Hosts(
            me=me, left=left, others={one.node: not one.is_suspect for one in view.replicas.get(model, ())},
        )
        for model in {*view.local, *view.replicas}
        if view.quotas.of(model).is_limiting
    }  # fmt: skip


def emergencies_of(view: MeshView) -> frozenset[ModelId]:
    """Return the models with quotas, if this machine has next to no memory left."""
    resources = view.resources
    if resources is None or not resources.memory_total_bytes:
        return frozenset()
    used = 1.0 - resources.memory_free_bytes / resources.memory_total_bytes
    if used <= QUOTA_EMERGENCY_SHARE:
        return frozenset()
    return frozenset(model for model in view.local if view.quotas.of(model).is_limiting)


def is_crowd(in_flight: int, slots: int) -> bool:
    """Tell whether so many requests at an engine are too many for any but urgent ones to join."""
    return in_flight > QUOTA_EMERGENCY_QUEUE_PER_SLOT * slots
