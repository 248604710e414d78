"""`GET /v1/models` as a document made of a view.

Owns the shape of a model's entry: OpenAI's fields, the lifecycle words of other servers beside finer
ones of ours, what clients read to size their context. Decides nothing; pure. Never shows endpoints,
keys or folders.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from meshllm.core.catalog import CatalogModel
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.known_models import find
from meshllm.core.policy import LoadMode
from meshllm.core.routing.abilities import tags_here
from meshllm.core.serving.health import local_health
from meshllm.core.standing import LIVE
from meshllm.core.view import LocalModel, MeshView
from meshllm.proxy.listing_cold import cold_entry, wanted_entries, with_cold
from meshllm.proxy.listing_elsewhere import Document, elsewhere_entry, with_elsewhere

_LOADED = frozenset({EngineState.READY, EngineState.DRAINING})
_COMING = frozenset({EngineState.STARTING, EngineState.BACKING_OFF})
_YES = frozenset({"1", "true", "yes"})
_NO = frozenset({"0", "false", "no"})


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What a list should hold, from its query string."""

    only_served: bool = False
    with_catalog: bool = False
    with_pseudo: bool = True
    with_auto: bool = False

    @classmethod
    def parse(cls, query: str) -> "ListOptions":
        """Read `served`, `catalog` and `pseudo`; other parameters and unknown values change nothing."""
        if not query:
            return cls()
        given = {name: values[-1].lower() for name, values in parse_qs(query, max_num_fields=32).items()}
        pseudo = given.get("pseudo", "")
        return cls(
            only_served=given.get("served", "") in _YES, with_catalog=given.get("catalog", "") in _YES,
            with_pseudo=pseudo not in _NO, with_auto=pseudo == "all",
        )  # fmt: skip


def model_list(view: MeshView, options: ListOptions, catalog: Iterable[CatalogModel] = ()) -> Document:
    """Return the list: the pseudo entry first, then ids sorted."""
    data: list[Document] = []
    if options.with_pseudo:
        data.append(pseudo_entry(view, "default"))
        data += [pseudo_entry(view, "auto")] if options.with_auto else []
    uses = uses_elsewhere(view)
    entries = [mesh_entry(view, model, uses) for model in sorted(_present(view))]
    if options.only_served:
        entries = [entry for entry in entries if entry["status"] == "loaded"]
    if options.with_catalog:
        entries += catalog_entries(view, catalog)
        entries += wanted_entries(view, [entry["id"] for entry in entries])
        entries.sort(key=lambda entry: str(entry["id"]))
    return {"object": "list", "data": data + entries, "default_model": view.default_model}


def mesh_entry(view: MeshView, model: ModelId, uses: Mapping[str, int]) -> Document:
    """Return the entry of a model, with every node that serves it; where none does, with those that have its file.

    `uses` counts the requests that other nodes' engines answered, by model.
    """
    entry, cold = _entry(view, model), view.cold.get(model)
    if cold is not None:
        entry = with_cold(view, entry, cold)
    policy = view.policies.get(model)
    count = entry["use_count"]
    entry |= {
        "warm": entry["status"] == "loaded",
        "use_count": (count if isinstance(count, int) else 0) + uses.get(model, 0),
        "tags": list(policy.tags) if policy is not None else [],
    }
    if tags := tags_here(view, model):
        known = entry["capabilities"]
        entry["capabilities"] = sorted(tags.union(known if isinstance(known, list) else ()))
    if policy is not None:
        entry |= {"enabled": bool(entry["enabled"]) and policy.is_enabled}
        entry |= {"display_name": policy.label} if policy.label else {}
        entry |= {"preload": True} if policy.load is LoadMode.EAGER else {}
    return entry


def _entry(view: MeshView, model: ModelId) -> Document:
    local, replicas, cold = view.local.get(model), view.replicas.get(model, ()), view.cold.get(model)
    if replicas and (local is None or local.dropped):
        return elsewhere_entry(model, replicas, _parameter_count(max(each.served.parameters for each in replicas)))
    if cold is not None and (local is None or local.dropped):
        known = find(model)
        return cold_entry(view, cold, _parameter_count(known[0].parameters if known is not None else 0))
    local = view.local[model]
    return with_elsewhere(model_entry(view, local), replicas, local.digest, is_ready=local.is_ready)


def uses_elsewhere(view: MeshView) -> Counter[str]:
    """Return the requests that other nodes' engines answered, by model."""
    uses: Counter[str] = Counter()
    for node, member in view.members.items():
        if node != view.me.node and member.state in LIVE:
            for model, count in member.announcement.uses:
                uses[model] += count
    return uses


def _present(view: MeshView) -> set[ModelId]:
    """Return the models that are listed: of this node, served elsewhere, or on a disk of somebody who may serve it."""
    dropped = {model.id for model in view.local.values() if model.dropped}
    only_dropped = {model for model in dropped if set(_cold_nodes(view, model)) <= {view.me.node}}
    return {*(view.local.keys() - dropped), *view.replicas, *(view.cold.keys() - only_dropped)}


def _cold_nodes(view: MeshView, model: ModelId) -> tuple[NodeId, ...]:
    cold = view.cold.get(model)
    return cold.nodes if cold is not None else ()


def pseudo_entry(view: MeshView, name: str) -> Document:
    """Return the entry of `default` or `auto`: a name that always works, so it has no status."""
    model = view.local.get(view.default_model) if view.default_model is not None else None
    created = int(model.spec.modified_s) if model is not None and model.spec is not None else 0
    return {"id": name, "object": "model", "created": created, "owned_by": "local"}


def model_entry(view: MeshView, model: LocalModel) -> Document:
    """Return one model's entry."""
    spec = model.spec
    entry: Document = {
        "id": model.id, "object": "model", "created": int(spec.modified_s) if spec else 0, "owned_by": "local",
        "status": _status(model), "phase": _phase(model), "health_status": str(local_health(model)),
        "display_name": (spec.display_name if spec else "") or model.id,
        "path": base_name(spec.path) if spec else None, "version": "1.0.0",
        "enabled": not (model.held or model.dropped),
        "use_count": model.requests, "size_bytes": spec.size_bytes if spec else 0, "preload": model.wanted,
        "nodes": [{
            "node_id": view.me.node, "name": view.me.name, "status": _status(model), "slots": model.slots,
            "digest": model.digest or None, "context_length": model.context_tokens,
            "health_status": str(local_health(model)),
        }],
    }  # fmt: skip
    if spec is not None:
        shape = spec.architecture
        context = model.context_tokens or (model.plan.context_tokens if model.plan else 0) or shape.context_tokens
        entry |= {
            "architecture": shape.name, "parameter_count": _parameter_count(spec.parameters),
            "context_length": context, "capabilities": sorted(spec.capabilities),
            "input_modalities": ["text", "image"] if "vision" in spec.capabilities else ["text"],
            "tools_available": "tools" in spec.capabilities,
            "meta": {
                "n_ctx": context, "n_ctx_train": shape.context_tokens, "n_params": spec.parameters,
                "n_vocab": shape.vocabulary, "n_embd": shape.embedding, "size": spec.size_bytes,
                "quantization": spec.quantization, "slots": model.slots,
            },
        }  # fmt: skip
    return entry | _adopted(model) | _troubles(model)


def _adopted(model: LocalModel) -> Document:
    """Return what is known of a model at an adopted server."""
    if not model.adopted_from:
        return {}
    facts: Document = {"kind": "adopted", "server": model.adopted_from}
    return facts | ({"context_length": model.context_tokens} if model.context_tokens else {})


def _troubles(model: LocalModel) -> Document:
    """Return what keeps a model from being loaded, where something does."""
    found: Document = {}
    if model.progress is not None:
        progress = model.progress
        found["progress"] = {
            "stage": progress.stage, "share": round(progress.share, 3), "done_bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
        }  # fmt: skip
    if model.failure is not None:
        found["error"] = model.failure.message
        found["reason"] = model.failure.fault
    if model.waiting:
        found["waiting"] = model.waiting
    return found


def _status(model: LocalModel) -> str:
    """Return the lifecycle word, of a closed set: loaded, unloaded, reloading."""
    if model.state in _LOADED:
        return "loaded"
    return "reloading" if model.state in _COMING else "unloaded"


def _phase(model: LocalModel) -> str:
    """Return the finer word."""
    if model.state is EngineState.STARTING:
        return "loading"
    if model.state is EngineState.STOPPED:
        if model.progress is not None:
            return model.progress.stage
        if model.waiting:
            return "queued"
        return "held" if model.held else "sleeping"
    return model.state.value


def catalog_entries(view: MeshView, catalog: Iterable[CatalogModel]) -> list[Document]:
    """Return entries of well-known models that this node could fetch and does not have."""
    return [
        {
            "id": file.stem, "object": "model", "created": 0, "owned_by": model.repository.partition("/")[0],
            "status": "unloaded", "phase": "not_downloaded", "health_status": "unknown", "display_name": model.name,
            "path": None, "version": "1.0.0", "parameter_count": _parameter_count(model.parameters),
            "context_length": model.context_tokens, "capabilities": sorted(model.capabilities),
            "size_bytes": file.size_bytes, "enabled": True, "use_count": 0, "preload": False, "nodes": [],
            "warm": False, "tags": [],
        }
        for model in catalog
        for file in model.files
        if not _has(view, file.stem)
    ]  # fmt: skip


def _has(view: MeshView, model: ModelId) -> bool:
    return model in view.replicas or model in view.cold or (model in view.local and not view.local[model].dropped)


def base_name(path: str) -> str:
    """Return the last part of a path; the folders are nobody's business."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def _parameter_count(parameters: int) -> str:
    """Return `135M`, `1.7B` or `70B`."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= size:
            value = parameters / size
            return f"{value:.1f}{unit}" if value < 10 and f"{value:.1f}"[-1] != "0" else f"{value:.0f}{unit}"
    return str(parameters)
