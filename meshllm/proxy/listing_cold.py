"""Models that nobody serves, as they stand in the list: known, unloaded, and perhaps why they stay so.

Owns the shape of the entry of a model that only lies on other nodes' disks, and what is added to that of
this node's own. Decides nothing: who knows the model, and what keeps it out of memory, the core says. Pure.
"""

from collections.abc import Iterable

from meshllm.core.ids import NodeId, short
from meshllm.core.known_models import find
from meshllm.core.standing import LIVE
from meshllm.core.view import ColdModel, MeshView
from meshllm.proxy.listing_elsewhere import Document


def cold_entry(view: MeshView, cold: ColdModel, parameter_count: str) -> Document:
    """Return the entry of a model that this node does not have and nobody serves."""
    known = find(cold.model)
    capabilities = sorted(known[0].capabilities) if known is not None else []
    context = known[0].context_tokens if known is not None else 0
    return {
        "id": cold.model, "object": "model", "created": 0, "owned_by": "mesh", "status": "unloaded",
        "phase": "sleeping", "health_status": "unknown", "display_name": cold.model, "path": None, "version": "1.0.0",
        "enabled": True, "use_count": 0, "size_bytes": cold.size_bytes, "preload": False, "nodes": [],
        "architecture": "", "parameter_count": parameter_count, "context_length": context,
        "capabilities": capabilities, "input_modalities": ["text", "image"] if "vision" in capabilities else ["text"],
        "tools_available": "tools" in capabilities,
        "meta": {
            "n_ctx": context, "n_params": known[0].parameters if known is not None else 0, "size": cold.size_bytes,
            "quantization": known[1].quantization if known is not None and known[1] is not None else "", "slots": 0,
        },
    } | _why(view, cold)  # fmt: skip


def with_cold(view: MeshView, entry: Document, cold: ColdModel) -> Document:
    """Return the entry of a model that nobody serves, with the nodes that have its file and with what keeps it out."""
    known = entry["nodes"]
    nodes = list(known) if isinstance(known, list) else []
    listed = {node["node_id"] for node in nodes if isinstance(node, dict)}
    nodes += [_node(view, node, cold) for node in cold.nodes if node not in listed]
    is_asleep = entry["phase"] == "sleeping" or (entry["phase"] == "queued" and cold.is_held)
    return entry | {"nodes": nodes} | (_why(view, cold) if is_asleep else {})  # what waits here says why itself


def wanted_entries(view: MeshView, known: Iterable[object]) -> list[Document]:
    """Return entries of names that nodes want to be served and that no file was found for yet."""
    listed = set(known)
    names = {
        one.name
        for member in view.members.values()
        for one in member.announcement.requested
        if member.state in LIVE and not one.model and one.name not in listed
    }
    return [
        {
            "id": name, "object": "model", "created": 0, "owned_by": "mesh", "status": "unloaded", "phase": "requested",
            "health_status": "unknown", "display_name": name, "path": None, "version": "1.0.0", "enabled": True,
            "use_count": 0, "size_bytes": 0, "preload": True, "nodes": [], "capabilities": [], "context_length": 0,
            "parameter_count": "0", "warm": False, "tags": [],
        }
        for name in sorted(names)
    ]  # fmt: skip


def _why(view: MeshView, cold: ColdModel) -> Document:
    """Return what keeps a model out of memory, where something does."""
    if cold.is_held:
        return {"phase": "held"}
    if cold.lack:
        return {"phase": "queued" if cold.model in view.me.waiting else "sleeping", "waiting": cold.lack}
    return {"phase": "queued"} if cold.model in view.me.waiting else {}


def _node(view: MeshView, node: NodeId, cold: ColdModel) -> Document:
    member = view.members.get(node)
    return {
        "node_id": node, "name": member.announcement.name if member is not None else short(node), "status": "unloaded",
        "slots": 0, "digest": cold.digest or None, "context_length": 0, "health_status": "unknown",
    }  # fmt: skip
