"""How models are, over HTTP: `/health/model/{id}`, `/v1/models/{id}/health`, `/health/check`.

Owns the shape of a model's health, as a whole and by node. Decides nothing: the core measures and judges. Of other
nodes it shows what they say of themselves, with the moment at which this node heard it.
"""

import asyncio
import time

from aiohttp import web

from meshllm.api.answers import json_answer, moment
from meshllm.api.bodies import Body, read_body
from meshllm.api.deps import ManagementDeps
from meshllm.api.names import require_anywhere
from meshllm.core.health import HealthState
from meshllm.core.ids import ModelId
from meshllm.core.routing.hosts import Host, best_health, best_status, hosts_of
from meshllm.core.view import MeshView

_NOT_MEASURED = {"file_integrity": "unknown", "memory": "unknown", "response_time_s": None, "error_rate": None}


class ModelHealth:
    """The handlers."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Ask `deps`."""
        self._deps = deps

    async def model(self, request: web.Request) -> web.Response:
        """Answer with the health of one model, node by node; never loads it."""
        view = self._deps.views.newest
        return json_answer(health_document(view, require_anywhere(view, request.match_info["model"])))

    async def check(self, request: web.Request) -> web.Response:
        """Look at files and engines now, here and at all hosts, and answer with the health of one model or of all."""
        body = await read_body(request) if request.can_read_body else Body({})
        asked = body.name("model_id", "model") if body.has("model_id", "model") else ""
        began_s = asyncio.get_running_loop().time()
        meant = require_anywhere(self._deps.views.newest, asked) if asked else None
        await self._deps.check_health(meant)
        view = self._deps.views.newest
        models = [require_anywhere(view, asked)] if asked else sorted({*view.local, *view.replicas})
        took_s = asyncio.get_running_loop().time() - began_s
        results = [health_document(view, model) for model in models]
        return json_answer({"results": results, "duration_ms": round(took_s * 1000)})


def health_document(view: MeshView, model: ModelId) -> dict[str, object]:
    """Return how a model is in the mesh: as well as on its best host; what this node measured, and each host."""
    hosts = hosts_of(view, model)
    own = next((host for host in hosts if host.checks is not None), None)
    state = best_health(host.health_status for host in hosts)
    return {
        "model_id": model, "health_status": str(state), "status": best_status(hosts),
        "last_check": _when(max((host.checked_s for host in hosts if host.checked_s is not None), default=None)),
        "checks": own.checks.facts if own is not None and own.checks is not None else _NOT_MEASURED,
        "nodes": [_host(host) for host in hosts],
    }  # fmt: skip


def _host(host: Host) -> dict[str, object]:
    checks, reason = host.checks, ""
    if checks is not None:
        reason = checks.reason
    elif host.health_status is not HealthState.UNKNOWN:
        reason = "as the node itself says"
    return {
        **host.facts, "measured_by": host.node_id, "last_check": _when(host.checked_s),
        "checks": checks.facts if checks is not None else _NOT_MEASURED, **({"reason": reason} if reason else {}),
    }  # fmt: skip


def _when(at_s: float | None) -> str | None:
    """Return a moment of the loop's clock as people write it."""
    if at_s is None:
        return None
    return moment(time.time() - (asyncio.get_running_loop().time() - at_s))
