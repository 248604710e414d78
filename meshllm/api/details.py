"""`GET /api/models/{model}`: one model with its files, the memory that it takes, and every node that has it.

Owns the shape of that document. Decides nothing: the core computes. Doesn't touch files.
"""

import asyncio

from aiohttp import web

from meshllm.api.answers import json_answer
from meshllm.api.deps import ManagementDeps
from meshllm.api.names import require_anywhere
from meshllm.api.registry import version_documents
from meshllm.api.status import model_document
from meshllm.core.ids import ModelId
from meshllm.core.routing.hosts import Host, best_health, best_status, hosts_of
from meshllm.core.view import MeshView

_PHASES = {"loaded": "ready", "reloading": "loading", "unloaded": "unloaded"}


class Details:
    """The handler."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Ask `deps`."""
        self._deps = deps

    async def details(self, request: web.Request) -> web.Response:
        """Answer with `model` as in the status document, `files`, `memory`, `nodes`, `versions` and `health_status`."""
        view, asked = self._deps.views.newest, request.match_info["model"]
        model = require_anywhere(view, asked)
        local, hosts = view.local.get(model), hosts_of(view, model)
        now_s = asyncio.get_running_loop().time()
        shown = (
            model_document(view, local, now_s, self._deps.in_flight(model))
            if local is not None
            else _elsewhere(view, model, hosts)
        )
        return json_answer({
            "model": shown,
            "files": [] if local is None or local.spec is None else list(local.spec.files),
            "memory": dict(self._deps.memory(model)),
            "nodes": [host.facts for host in hosts],
            "versions": version_documents(view, asked if asked != "default" else model),
            "health_status": str(best_health(host.health_status for host in hosts)),
        })  # fmt: skip


def _elsewhere(view: MeshView, model: ModelId, hosts: tuple[Host, ...]) -> dict[str, object]:
    """Return what is known of a model that this node does not have, by the names of the status document."""
    served = [replica.served for replica in view.replicas.get(model, ())]
    said = max(served, key=lambda one: (one.parameters, one.slots), default=None)
    digests = {host.digest for host in hosts if host.digest}
    return {
        "id": model, "phase": _PHASES[best_status(hosts)], "aliases": list(view.names.aliases_of(model)),
        "size_bytes": max((host.size_bytes for host in hosts), default=0),
        "digest": digests.pop() if len(digests) == 1 else "",
        "quantization": said.quantization if said is not None else "",
        "parameters": said.parameters if said is not None else 0,
        "architecture": said.architecture if said is not None else "",
        "capabilities": list(said.capabilities) if said is not None else [],
        "context_tokens": max((host.context_length for host in hosts), default=0),
        "slots": sum(host.slots for host in hosts),
    }  # fmt: skip
