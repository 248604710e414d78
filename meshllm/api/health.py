"""Is the node well: `/health`, `/healthz`, `/readyz`. Cheap; never loads anything.

Owns the judgement. Doesn't know why something failed: the status document says.
"""

import asyncio

from aiohttp import web

from meshllm.api.answers import json_answer
from meshllm.api.deps import ManagementDeps
from meshllm.api.status import phase_of
from meshllm.core.engines import EngineState
from meshllm.core.health import HealthState
from meshllm.core.serving.health import local_health
from meshllm.core.view import MeshView

_WELL = frozenset({HealthState.HEALTHY, HealthState.UNKNOWN})


class Health:
    """The handlers."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Judge by the views of `deps`."""
        self._deps = deps

    async def health(self, _: web.Request) -> web.Response:
        """Answer 200 when healthy or degraded, 503 when unhealthy."""
        view = self._deps.views.newest
        status = health_of(view)
        uptime_s = round(asyncio.get_running_loop().time() - self._deps.started_s, 1)
        counts = {"total": len(view.local)}
        for model in view.local.values():
            counts[phase_of(model)] = counts.get(phase_of(model), 0) + 1
        document = {
            "status": status, "node_id": view.me.node, "models": counts, "peers": len(view.members) - 1,
            "uptime_s": uptime_s,
        }  # fmt: skip
        return json_answer(document, 503 if status == "unhealthy" else 200)

    async def live(self, _: web.Request) -> web.Response:
        """Answer 200: the process runs and its loop turns."""
        return json_answer({"status": "ok"})

    async def ready(self, _: web.Request) -> web.Response:
        """Answer 200 when a request would be answered now, else 503 with the reason."""
        reason = unready_because(self._deps.views.newest)
        if reason:
            return json_answer({"status": "not_ready", "reason": reason}, 503, {"Retry-After": "5"})
        return json_answer({"status": "ready"})


def health_of(view: MeshView) -> str:
    """Return `healthy`, `degraded` or `unhealthy`."""
    phases = {phase_of(model) for model in view.local.values()}
    if view.leaving or view.engine_failure is not None:
        return "unhealthy"
    if phases & {"failed", "retrying"}:
        return "degraded" if phases & {"ready", "retrying", "loading", "downloading", "queued"} else "unhealthy"
    unwell = any(model.state is EngineState.READY and local_health(model) not in _WELL for model in view.local.values())
    return "degraded" if view.unresolved or unwell else "healthy"


def unready_because(view: MeshView) -> str:
    """Return why no request would be answered now; empty when one would."""
    if view.leaving:
        return "the node is shutting down"
    if view.engine_failure is not None:
        return view.engine_failure.message
    if any(model.is_ready for model in view.local.values()):
        return ""
    on_the_way = [f"{model.id} is {phase_of(model)}" for model in view.local.values() if model.wanted]
    return "; ".join(on_the_way) or "no model is loaded"
