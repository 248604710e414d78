"""The default model over HTTP: `POST /v1/models/default`. The front door answers `GET`, as for every model.

Owns how a choice is asked for and answered. Decides nothing: the core keeps the mesh's choice and this node's own.
"""

from aiohttp import web

from meshllm.api.answers import ApiError, json_answer
from meshllm.api.bodies import read_body
from meshllm.api.deps import ManagementDeps
from meshllm.api.lifecycle import read_scope, refusal
from meshllm.api.names import find_id, is_early, not_found_message, refuse_stand_in
from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, Verb
from meshllm.core.names import Unknown
from meshllm.core.serving.scopes import MESH, NODE


class Defaults:
    """The handler."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Ask `deps`."""
        self._deps = deps

    async def choose(self, request: web.Request) -> web.Response:
        """Let a model answer where none is named: in the mesh, at this node, or at another one.

        `null` for a node ends its own choice. An unknown model is 404, and the old one stays.
        """
        body = await read_body(request)
        view = self._deps.views.newest
        scope, previous = read_scope(view, body), view.default_model
        if body.is_null("model_id"):
            if scope == MESH:
                raise ApiError(400, "invalid_value", "only a node can be without a choice of its own", param="model_id")
            found = ""
        else:
            asked = body.name("model_id", "model")
            refuse_stand_in(view, asked, body.key("model_id", "model"))
            known = ModelId(asked) if is_early(view, asked) else find_id(view, asked)
            if isinstance(known, Unknown):
                raise ApiError(404, "model_not_found", not_found_message(known), param="model_id")
            found = known
        outcome = await self._deps.ask(Intent(verb=Verb.DEFAULT, model=found, request_id="", scope=scope))
        if not outcome.is_done:
            raise refusal(outcome)
        found = outcome.model or found
        now = self._deps.views.newest.default_model if not found and scope == NODE else found or None
        return json_answer({"default_model_id": now, "previous": previous, "scope": scope})
