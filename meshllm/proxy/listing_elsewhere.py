"""What other members serve, as it stands in the list of models: entries of theirs, and their part of ours.

Owns the shape of a model's entry where another node has it. Decides which of them count as the same model: those of
the same file. Doesn't know local models; pure. What a view holds is of living members only.
"""

from collections.abc import Iterable, Sequence

from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.ids import ModelId
from meshllm.core.routing.hosts import Host, serving_host
from meshllm.core.routing.replicas import is_usable
from meshllm.core.view import Replica

_FURTHEST = {state: number for number, state in enumerate([
    ServingState.FAILED, ServingState.CLAIMED, ServingState.DOWNLOADING, ServingState.LOADING, ServingState.DRAINING,
    ServingState.READY,
])}  # fmt: skip
_RANK = {"loaded": 2, "reloading": 1, "unloaded": 0}
_TROUBLES = ("progress", "error", "reason", "waiting")

Document = dict[str, object]


def elsewhere_entry(model: ModelId, replicas: Sequence[Replica], parameter_count: str) -> Document:
    """Return the entry of a model that this node does not have."""
    best, host = _furthest(replicas)
    capabilities = _capabilities(replicas, ())
    context = _largest_context(replicas) or best.context_tokens
    trouble = {"error": best.trouble} if best.trouble else {}
    return {
        "id": model, "object": "model", "created": 0, "owned_by": "mesh",
        "status": host.status, "phase": host.phase, "health_status": str(host.health_status),
        "display_name": best.display_name or model, "path": None, "version": "1.0.0", "enabled": True, "use_count": 0,
        "size_bytes": best.size_bytes, "preload": False, "nodes": nodes_of(replicas),
        "architecture": best.architecture, "parameter_count": parameter_count, "context_length": context,
        "capabilities": capabilities, "input_modalities": ["text", "image"] if "vision" in capabilities else ["text"],
        "tools_available": "tools" in capabilities,
        "meta": {
            "n_ctx": context, "n_params": best.parameters, "size": best.size_bytes,
            "quantization": best.quantization, "slots": sum(replica.served.slots for replica in replicas),
        },
        **trouble,
    }  # fmt: skip


def with_elsewhere(entry: Document, replicas: Sequence[Replica], digest: str, *, is_ready: bool) -> Document:
    """Return the entry of a model of this node with the part that others have in it.

    `digest` is of this node's file: another file under the same name is listed with its node, and changes nothing
    else. `is_ready`: it is ready here.
    """
    if not replicas:
        return entry
    nodes = entry["nodes"]
    merged = entry | {"nodes": [*(nodes if isinstance(nodes, list) else []), *nodes_of(replicas)]}
    same = [replica for replica in replicas if digest and replica.served.digest == digest]
    if not same:
        return merged
    _, host = _furthest(same)
    if _RANK[host.status] > _RANK[str(entry["status"])]:
        merged |= {
            "status": host.status, "phase": host.phase, "health_status": str(host.health_status), "enabled": True,
        }  # fmt: skip
        merged = {name: value for name, value in merged.items() if name not in _TROUBLES}
    here, there = entry.get("context_length"), _largest_context(same)
    context = max(there, here if is_ready and isinstance(here, int) else 0)
    if context:
        meta = entry.get("meta")
        merged |= {"context_length": context, "meta": (meta if isinstance(meta, dict) else {}) | {"n_ctx": context}}
    known = entry.get("capabilities")
    merged["capabilities"] = _capabilities(same, known if isinstance(known, list) else ())
    return merged


def nodes_of(replicas: Iterable[Replica]) -> list[Document]:
    """Return what the list says of each node that serves a model."""
    return [serving_host(replica).facts for replica in replicas]


def _furthest(replicas: Sequence[Replica]) -> tuple[ServedModel, Host]:
    """Return what is said of a model where it is farthest, and its node."""
    best = max(replicas, key=lambda replica: _rank(replica.served))
    return best.served, serving_host(best)


def _rank(served: ServedModel) -> tuple[bool, int, bool]:
    return (is_usable(served), _FURTHEST[served.state], served.health == "healthy")


def _largest_context(replicas: Iterable[Replica]) -> int:
    """Return the largest context of a ready engine; 0 without one."""
    ready = (replica.served for replica in replicas if replica.served.state is ServingState.READY)
    return max((served.context_tokens for served in ready), default=0)


def _capabilities(replicas: Iterable[Replica], known: Iterable[str]) -> list[str]:
    return sorted({*known, *(capability for replica in replicas for capability in replica.served.capabilities)})
