"""`GET /api/settings`: the settings that are in force, and whether anybody watches this node.

Owns the shape of that document. Decides nothing. Doesn't know secrets: it is told of each only whether it is set.
"""

from collections.abc import Callable

from aiohttp import web

from meshllm.api.answers import json_answer
from meshllm.api.deps import ManagementDeps


class Settings:
    """The handler."""

    def __init__(self, deps: ManagementDeps, metrics_read: Callable[[], int]) -> None:
        """Ask `deps`; `metrics_read` counts how often `/metrics` was read."""
        self._deps = deps
        self._metrics_read = metrics_read

    async def settings(self, _: web.Request) -> web.Response:
        """Answer with every setting by its name, and with how often `/metrics` was read since the start."""
        return json_answer({"settings": dict(self._deps.settings), "metrics_read": self._metrics_read()})
