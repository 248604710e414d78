"""`GET /api/models/{model}`: one model with its files and the memory that it takes.

Owns the shape of that document. Decides nothing: the core computes. Doesn't touch files.
"""

import asyncio

from aiohttp import web

from meshllm.api.answers import json_answer
from meshllm.api.deps import ManagementDeps
from meshllm.api.names import require_model
from meshllm.api.status import model_document


class Details:
    """The handler."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Ask `deps`."""
        self._deps = deps

    async def details(self, request: web.Request) -> web.Response:
        """Answer with `model` as in the status document, `files`, and `memory`: what, and how much in words."""
        view = self._deps.views.newest
        model = require_model(view, request.match_info["model"])
        now_s = asyncio.get_running_loop().time()
        return json_answer({
            "model": model_document(view, model, now_s, self._deps.in_flight(model.id)),
            "files": [] if model.spec is None else list(model.spec.files),
            "memory": dict(self._deps.memory(model.id)),
        })  # fmt: skip
