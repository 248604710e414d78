"""Every model of the mesh as JSON for the console: where it is, how far, and what keeps it out of memory. Pure.

Owns the words `warm`, `loading` and `cold`. Decides nothing. Doesn't know HTTP, and of this node's own models no more
than their phase: the status document has them in detail.
"""

from collections.abc import Callable

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.hosts import serving_host
from meshllm.core.standing import LIVE
from meshllm.core.view import LocalModel, MeshView

WARMTHS = ("warm", "loading", "cold")
"""From the best to the worst: a model is as warm as at the node where it is warmest."""
_WARMTH_OF_PHASE = {
    "ready": "warm", "draining": "warm",
    "queued": "loading", "downloading": "loading", "loading": "loading", "retrying": "loading",
}  # fmt: skip


PhaseOf = Callable[[LocalModel], str]
Inputs = tuple[object, ...]


def mesh_model_documents(view: MeshView, phase_of: PhaseOf) -> list[dict[str, object]]:
    """Return every model that a live member serves or has on its disk, or that this node knows; sorted by id."""
    phases = phases_of(view, phase_of)
    return [mesh_model_document(view, model, phases[model]) for model in sorted(phases)]


def phases_of(view: MeshView, phase_of: PhaseOf) -> dict[ModelId, dict[NodeId, str]]:
    """Return each such model, with its phase at each live node that has something of it."""
    hosts = _hosts(view, phase_of)
    return hosts | {model: {} for model in view.cold if model not in hosts}


def mesh_model_inputs(view: MeshView, model: ModelId, phases: dict[NodeId, str]) -> Inputs:
    """Return everything that a model's document is made of: equal inputs make equal documents."""
    local = view.local.get(model)
    return (
        phases, view.cold.get(model), view.orders.get(model), view.replicas.get(model), view.demand.get(model),
        local.spec if local is not None else None,
    )  # fmt: skip


def _hosts(view: MeshView, phase_of: PhaseOf) -> dict[ModelId, dict[NodeId, str]]:
    """Return the phase of each model at each live node that has something of it; one pass over all members."""
    found: dict[ModelId, dict[NodeId, str]] = {}
    for node, member in view.members.items():
        if member.state in LIVE and node != view.me.node:
            for file in member.announcement.models_on_disk:
                found.setdefault(file.model, {})[node] = "unloaded"
    for model, replicas in view.replicas.items():
        for replica in replicas:
            found.setdefault(model, {})[replica.node] = serving_host(replica).phase
    for model, local in view.local.items():
        if not local.dropped:
            found.setdefault(model, {})[view.me.node] = phase_of(local)
    return found


def mesh_model_document(view: MeshView, model: ModelId, phases: dict[NodeId, str]) -> dict[str, object]:
    """Return one model of the mesh as the status document has it."""
    cold, local, order = view.cold.get(model), view.local.get(model), view.orders.get(model)
    replicas = view.replicas.get(model, ())
    size_bytes = cold.size_bytes if cold is not None else max((one.served.size_bytes for one in replicas), default=0)
    spec = local.spec if local is not None else None
    capabilities = {name for one in replicas for name in one.served.capabilities}
    return {
        "id": model,
        "warmth": min((_WARMTH_OF_PHASE.get(phase, "cold") for phase in phases.values()), key=WARMTHS.index,
                      default="cold"),
        "held": (order is not None and order.hold) or "held" in phases.values(),
        "demand_per_min": round(view.demand.get(model, 0.0), 2),
        "size_bytes": size_bytes or (spec.size_bytes if spec is not None else 0),
        "capabilities": sorted(capabilities.union(spec.capabilities if spec is not None else ())),
        "nodes": [{"id": node, "phase": phase} for node, phase in sorted(phases.items())],
        "lack": cold.lack if cold is not None else "",
    }  # fmt: skip
