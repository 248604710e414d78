"""`GET /metrics`: who may read what, and the text of it.

Owns the handler and its registries. Decides when the series are loaded, with the first scrape, and when engines are
asked for theirs: with each. Doesn't know the names of series; `series` does.
"""

from typing import TYPE_CHECKING

from aiohttp import web

from meshllm.api.answers import ApiError
from meshllm.api.deps import ManagementDeps

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_NODE, _MESH = "node", "mesh"


class Metrics:
    """The handler, and the registries that it has made so far."""

    def __init__(self, deps: ManagementDeps, version: str) -> None:
        """Read `deps` at every scrape."""
        self._deps = deps
        self._version = version
        self._registries: dict[bool, CollectorRegistry] = {}
        self.read = 0
        """How often somebody asked, and was answered."""

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer in the text format that the scraper asks for; in detail where that is measured. Raises ApiError.

        `?scope=mesh` is what all members say of themselves, `node` (as without it) what this one knows of itself.
        """
        from meshllm.api import series  # noqa: PLC0415 - three megabytes that a node without a scraper never needs

        scope, accept = request.query.get("scope", _NODE).lower(), request.headers.get("Accept", "")
        if scope not in {_NODE, _MESH}:
            raise ApiError(400, "invalid_value", f"scope is {_NODE} or {_MESH}", param="scope")
        if scope == _MESH:
            return self._answer(series.as_text(series.mesh_registry_of(self._deps), accept))
        is_detailed = request.query.get("detailed", "false").lower() in {"1", "true", "yes"}
        if is_detailed and self._deps.durations() is None:
            message = "this node does not measure that; start it with MESH_LLM_PROFILE=1 or --profile"
            raise ApiError(403, "profiling_disabled", message, param="detailed")
        registry = self._registries.get(is_detailed)
        if registry is None:
            registry = series.registry_of(self._deps, self._version, is_detailed=is_detailed)
            self._registries[is_detailed] = registry
        engines = series.engine_registry_of(self._deps.views.newest.me.node, await self._deps.engine_metrics())
        return self._answer(series.as_one_text((registry, engines), accept))

    def _answer(self, told: tuple[bytes, str]) -> web.Response:
        self.read += 1
        text, content_type = told
        return web.Response(body=text, headers={"Content-Type": content_type})
