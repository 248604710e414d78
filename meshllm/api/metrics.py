"""`GET /metrics`: who may read what, and the text of it.

Owns the handler and its registries. Decides when the series are loaded: with the first scrape. Doesn't know their
names; `series` does.
"""

from typing import TYPE_CHECKING

from aiohttp import web

from meshllm.api.answers import ApiError
from meshllm.api.deps import ManagementDeps

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Metrics:
    """The handler, and the registries that it has made so far."""

    def __init__(self, deps: ManagementDeps, version: str) -> None:
        """Read `deps` at every scrape."""
        self._deps = deps
        self._version = version
        self._registries: dict[bool, CollectorRegistry] = {}

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer in the text format that the scraper asks for; in detail where that is measured. Raises ApiError."""
        from meshllm.api import series  # noqa: PLC0415 - three megabytes that a node without a scraper never needs

        is_detailed = request.query.get("detailed", "false").lower() in {"1", "true", "yes"}
        if is_detailed and self._deps.durations() is None:
            message = "this node does not measure that; start it with MESH_LLM_PROFILE=1 or --profile"
            raise ApiError(403, "profiling_disabled", message, param="detailed")
        registry = self._registries.get(is_detailed)
        if registry is None:
            registry = series.registry_of(self._deps, self._version, is_detailed=is_detailed)
            self._registries[is_detailed] = registry
        text, content_type = series.as_text(registry, request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})
