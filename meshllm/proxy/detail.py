"""`GET /v1/models/{id}`: one model's entry, with every node that has it, its versions and its health. Pure.

Owns what the entry of one model has beyond that of the list. Decides nothing: names mean here what they mean in
requests, and `core.serving` reads the view. Never shows endpoints, keys or folders.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from meshllm.core.catalog import CatalogModel
from meshllm.core.ids import ModelId
from meshllm.core.names import AUTO_NAME, RESERVED_NAMES
from meshllm.core.registration import FIRST_VERSION
from meshllm.core.routing.hosts import best_health, hosts_of
from meshllm.core.routing.meaning import meaning
from meshllm.core.routing.routes import Refusal, RouteRequest, Wait
from meshllm.core.serving.registry import KnownVersion, registered_names, versions_of
from meshllm.core.view import MeshView
from meshllm.proxy.listing import base_name, catalog_entries, mesh_entry, pseudo_entry, uses_elsewhere
from meshllm.proxy.listing_elsewhere import Document


def model_detail(view: MeshView, asked: str, catalog: Iterable[CatalogModel] = ()) -> Document | Wait | Refusal:
    """Return one model's entry with details, or why there is none of that name, or none yet."""
    if asked in RESERVED_NAMES:
        chosen: Document = {} if asked == AUTO_NAME else {"default_model_id": view.default_model}
        return pseudo_entry(view, asked) | chosen
    found = meaning(view, RouteRequest(model=asked))
    if not isinstance(found, Wait | Refusal):
        return _detail(view, asked, *found)
    for entry in catalog_entries(view, catalog):
        if asked in {entry["id"], entry["display_name"]}:
            return entry
    return found


def _detail(view: MeshView, asked: str, model: ModelId, pin: str) -> Document:
    hosts = hosts_of(view, model)
    if pin:
        hosts = tuple(host for host in hosts if host.digest == pin)
    digests = {host.digest for host in hosts if host.digest}
    versions = _versions(view, asked, model)
    version = next((one.version for one in versions if one.model == model), FIRST_VERSION)
    entry = mesh_entry(view, model, uses_elsewhere(view))
    own = next((host.checks for host in hosts if host.checks is not None), None)
    detail: Document = {
        "version": version, "health_status": str(best_health(host.health_status for host in hosts)),
        "nodes": [host.facts for host in hosts],
        "versions": [version_document(one) for one in versions], "quota": None,
        "aliases": view.names.aliases_of(model), "digest": digests.pop() if len(digests) == 1 else None,
        "health": None if own is None else own.facts | {"reason": own.reason},
    }  # fmt: skip
    local = view.local.get(model)
    if local is not None and local.spec is not None:
        detail["files"] = [base_name(file) for file in local.spec.files]
    if local is not None and local.plan is not None:
        memory = local.plan.memory
        detail["memory"] = {
            "weights_bytes": memory.weights_bytes, "kv_bytes": memory.kv_bytes,
            "overhead_bytes": memory.overhead_bytes, "prompt_cache_bytes": memory.prompt_cache_bytes,
        }  # fmt: skip
    return entry | detail


def _versions(view: MeshView, asked: str, model: ModelId) -> tuple[KnownVersion, ...]:
    """Return the versions of the name that was asked for; of the name that the model is registered under, if one."""
    name = asked.partition("@")[0]
    names = registered_names(view, model)
    if name not in names and len(names) == 1:
        name = names[0]
    return versions_of(view, name) or versions_of(view, model)


def version_document(one: KnownVersion) -> Document:
    """Return one version as people see it; of its path, the last part."""
    since = datetime.fromtimestamp(one.registered_unix_s, UTC) if one.registered_unix_s else None
    return {
        "version": one.version, "model": one.model, "digest": one.digest or None, "size_bytes": one.size_bytes,
        "registered_at": since.strftime("%Y-%m-%dT%H:%M:%SZ") if since is not None else None,
        "nodes": list(one.nodes), "aliases": list(one.aliases),
    }  # fmt: skip
