"""Where a model is in the mesh, node by node, in the words of the lifecycle API. Pure.

Owns the answer to `/v1/models/status`: every node's word, and what they come to together. Decides nothing. Doesn't know
HTTP.
"""

from meshllm.api.status import lifecycle_status, phase_of
from meshllm.core.ids import ModelId
from meshllm.core.routing.hosts import hosts_elsewhere
from meshllm.core.view import LocalModel, MeshView

_RANK = ("loaded", "reloading", "unloaded", "no_loader_config")
"""From the best to the worst: what one node can do the mesh can."""


def mesh_status(view: MeshView, model: ModelId) -> str:
    """Return how a model is in the whole mesh, in the closed vocabulary; `not_found` where nobody has it."""
    found = [str(node["status"]) for node in nodes_with(view, model)]
    return min(found, key=_RANK.index, default="unloaded" if model in view.cold else "not_found")


def status_of(view: MeshView, model: ModelId, asked: str) -> dict[str, object]:
    """Return everything that `/v1/models/status` says of a model that somebody has."""
    nodes, status = nodes_with(view, model), mesh_status(view, model)
    document: dict[str, object] = {"model_id": asked, "status": status, "mesh_status": status}
    document["phase"] = _phase(view, model, nodes, status)
    errors = [node["error"] for node in nodes if "error" in node]
    if errors and status != "loaded":
        document["error"] = errors[0]
    return {**document, "nodes": nodes}


def nodes_with(view: MeshView, model: ModelId) -> list[dict[str, object]]:
    """Return what each live member that has a model says of it: this node first, then by id."""
    local = view.local.get(model)
    found = [] if local is None or local.dropped else [_here(view, local)]
    order = view.orders.get(model)
    is_held = order is not None and order.hold
    for node, host in sorted(hosts_elsewhere(view, model).items()):
        phase = "held" if is_held and host.phase == "unloaded" else host.phase
        found.append({
            "node_id": node, "name": host.name, "status": host.status, "phase": phase,
            **({"error": host.trouble} if host.trouble and phase == "failed" else {}),
        })  # fmt: skip
    return found


def _here(view: MeshView, local: LocalModel) -> dict[str, object]:
    node: dict[str, object] = {
        "node_id": view.me.node, "name": view.me.name, "status": lifecycle_status(local), "phase": phase_of(local),
    }  # fmt: skip
    if phase_of(local) in ("failed", "retrying") and local.failure is not None:
        node["error"] = local.failure.message
    return node


def _phase(view: MeshView, model: ModelId, nodes: list[dict[str, object]], status: str) -> str:
    """Return the finer word of the node that the whole is judged by; of this one, where it is as good as any."""
    first = next((node for node in nodes if node["status"] == status), None)
    if first is not None:
        return str(first["phase"])
    order = view.orders.get(model)
    return "held" if order is not None and order.hold else "unloaded"
