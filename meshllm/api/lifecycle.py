"""Loading and unloading over HTTP: `/v1/models/unload|reload|pin|status`, `/v1/models/rescan`, `/mesh/drop`.

Owns how intents and their outcomes look there: `{"model_id","status"}` with the closed vocabulary of
`api.status`, and codes 200, 202, 404, 409, 500, 503. Decides nothing about models: the core does.
"""

from aiohttp import web

from meshllm.api.answers import ApiError, json_answer
from meshllm.api.background import Background
from meshllm.api.bodies import Body, read_body
from meshllm.api.deps import ManagementDeps
from meshllm.api.model_status import mesh_status, status_of
from meshllm.api.names import RETRY_AFTER, find_id, find_model, is_early, not_found_message, refuse_stand_in
from meshllm.api.status import lifecycle_status
from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.core.names import Unknown
from meshllm.core.serving.scopes import MESH, NODE, find_node, usual_scope
from meshllm.core.view import LocalModel, MeshView

_HTTP_OF_OUTCOME = {
    OutcomeCode.DONE: 200, OutcomeCode.UNKNOWN_MODEL: 404, OutcomeCode.NOT_SERVED: 404,
    OutcomeCode.AMBIGUOUS_MODEL: 409, OutcomeCode.SUPERSEDED: 409, OutcomeCode.NO_CAPACITY: 503,
    OutcomeCode.LEAVING: 503, OutcomeCode.LOAD_FAILED: 500, OutcomeCode.DOWNLOAD_FAILED: 500,
    OutcomeCode.NOT_ALLOWED: 403, OutcomeCode.UNREACHABLE: 503, OutcomeCode.NOT_LOADABLE: 409,
    OutcomeCode.INVALID_VALUE: 400, OutcomeCode.INVALID_STRATEGY: 400, OutcomeCode.UNKNOWN_KEY: 400,
    OutcomeCode.VERSION_CONFLICT: 409, OutcomeCode.STARTING: 503,
}  # fmt: skip
_CODE_OF_OUTCOME = {
    OutcomeCode.UNKNOWN_MODEL: "model_not_found", OutcomeCode.NOT_LOADABLE: "no_loader_config",
}  # fmt: skip


_AS_IT_IS = (
    OutcomeCode.NO_CAPACITY, OutcomeCode.SUPERSEDED, OutcomeCode.LEAVING, OutcomeCode.UNREACHABLE,
)  # fmt: skip
"""After these the model is what it was, or on its way."""
_WHO = {NODE: "this node has no", MESH: "there is no"}


class Lifecycle:
    """The handlers."""

    def __init__(self, deps: ManagementDeps, background: Background) -> None:
        """Ask `deps`; requests that do not wait go to `background`."""
        self._deps = deps
        self._background = background

    async def unload(self, request: web.Request) -> web.Response:
        """Take a model out of memory; 200 when its processes are gone and their memory free."""
        body = await read_body(request)
        asked = self._ordered(body, "model_id", "model")
        view, scope = self._deps.views.newest, self._scope(body)
        found = self._find(asked, scope)
        if isinstance(found, Unknown):
            return _status(asked, "not_found", 404, not_found_message(found, _WHO.get(scope, _WHO[MESH])))
        intent = Intent(
            verb=Verb.UNLOAD, model=found, request_id="", scope=scope, hold=body.flag("hold"), force=body.flag("force")
        )
        if not body.flag("wait", default=True) and not _is_adopted(view, found):
            self._background.start(f"unload:{asked}", self._deps.ask(intent))
            return _status(asked, self._word(view, found, scope), 202)
        return await self._carry_out(intent, asked, done="unloaded")

    async def reload(self, request: web.Request) -> web.Response:
        """Bring a model into memory; 200 when it answers, 202 at once with `"wait": false`."""
        body = await read_body(request)
        asked = self._ordered(body, "model_id", "model")
        scope = self._scope(body)
        found = self._find(asked, scope)
        # A name that nothing here has may still be one to download: the core finds out.
        model = asked if isinstance(found, Unknown) else found
        intent = Intent(verb=Verb.LOAD, model=model, request_id="", scope=scope)
        if not body.flag("wait", default=True) and not _is_adopted(self._deps.views.newest, model):
            if scope in (NODE, MESH) and self._word(self._deps.views.newest, ModelId(model), scope) == "loaded":
                return _status(asked, "loaded")
            self._background.start(f"load:{asked}", self._deps.ask(intent))
            return _status(asked, "reloading", 202)
        return await self._carry_out(intent, asked, done="loaded")

    async def status(self, request: web.Request) -> web.Response:
        """Say where a model is, and at which nodes; never loads it."""
        asked = (await read_body(request)).name("model_id", "model")
        view = self._deps.views.newest
        found = find_id(view, asked)
        if isinstance(found, Unknown):
            return _status(asked, "not_found", 404, not_found_message(found, _WHO[MESH]))
        return json_answer(status_of(view, found, asked))

    async def drop(self, request: web.Request) -> web.Response:
        """Withdraw a model from this node, or from all; the node leaves when it was its only one, unless told to stay.

        Nodes that drop a model because another one says so stay in any case.
        """
        body = await read_body(request)
        asked = self._ordered(body, "model", "model_id")
        scope = MESH if body.flag("everywhere") else NODE
        found = self._find(asked, scope)
        if isinstance(found, Unknown):
            raise ApiError(404, "model_not_found", not_found_message(found, _WHO[scope]), param="model")
        intent = Intent(
            verb=Verb.DROP, model=found, request_id="", scope=scope,
            force=body.flag("force"), keep_running=body.flag("keep_running"),
        )  # fmt: skip
        outcome = await self._deps.ask(intent)
        if not outcome.is_done:
            raise refusal(outcome)
        return json_answer({"dropped": outcome.model or found})

    async def pin(self, request: web.Request) -> web.Response:
        """Keep a model in a node's memory once it is there, or with `"pinned": false` no longer."""
        body = await read_body(request)
        asked = self._ordered(body, "model_id", "model")
        is_pinned, scope = body.flag("pinned", default=True), self._scope(body) if body.has("scope") else NODE
        found = self._find(asked, scope)
        if isinstance(found, Unknown):
            raise ApiError(
                404, "model_not_found", not_found_message(found, _WHO.get(scope, _WHO[MESH])), param="model_id"
            )
        verb = Verb.PIN if is_pinned else Verb.UNPIN
        outcome = await self._deps.ask(Intent(verb=verb, model=found, request_id="", scope=scope))
        if not outcome.is_done:
            raise refusal(outcome)
        return json_answer({"model_id": asked, "pinned": is_pinned})

    async def rescan(self, _: web.Request) -> web.Response:
        """Look at the model folders soon; the view shows what is found."""
        self._deps.rescan()
        return json_answer({"status": "rescanning"}, 202)

    async def _carry_out(self, intent: Intent, asked: str, *, done: str) -> web.Response:
        outcome = await self._deps.ask(intent)
        if outcome.is_done:
            return _status(asked, done)
        if outcome.code in (OutcomeCode.AMBIGUOUS_MODEL, OutcomeCode.NOT_ALLOWED, OutcomeCode.STARTING):
            raise refusal(outcome)
        code = _HTTP_OF_OUTCOME[outcome.code]
        return _status(asked, self._status_after(outcome, asked), code, outcome.message)

    def _status_after(self, outcome: Outcome, asked: str) -> str:
        """Return the word of the closed vocabulary for an intent that failed."""
        if outcome.code in (OutcomeCode.UNKNOWN_MODEL, OutcomeCode.NOT_SERVED):
            return "not_found"
        if outcome.code is OutcomeCode.NOT_LOADABLE:
            return "no_loader_config"
        view = self._deps.views.newest
        name = outcome.model or asked
        found = Unknown(name, ()) if is_early(view, name) else find_id(view, name)
        if outcome.code in _AS_IT_IS:
            return "unloaded" if isinstance(found, Unknown) else mesh_status(view, found)
        is_lost = not isinstance(found, Unknown) and mesh_status(view, found) == "no_loader_config"
        return "no_loader_config" if is_lost else "internal_error"

    def _ordered(self, body: Body, *keys: str) -> str:
        """Return the name of the model that an order is about."""
        asked = body.name(*keys)
        refuse_stand_in(self._deps.views.newest, asked, body.key(*keys))
        return asked

    def _scope(self, body: Body) -> str:
        """Return whom an order is for: `node`, `mesh`, or the id of another node. Raises ApiError 400."""
        return read_scope(self._deps.views.newest, body)

    def _find(self, asked: str, scope: str) -> ModelId | Unknown:
        """Return the model that a name means where the order goes; another node looks itself; early, the core does."""
        view = self._deps.views.newest
        if scope not in (NODE, MESH) or is_early(view, asked):
            return ModelId(asked)
        if scope == NODE:
            found = find_model(view, asked)
            return found.id if isinstance(found, LocalModel) else found
        return find_id(view, asked)

    def _word(self, view: MeshView, model: ModelId, scope: str) -> str:
        local = view.local.get(model)
        if scope == NODE:
            return lifecycle_status(local) if local is not None else "unloaded"
        found = mesh_status(view, model)
        return found if found != "not_found" else "unloaded"


def read_scope(view: MeshView, body: Body) -> str:
    """Return whom an order is for: `node`, `mesh`, or the id of another node. Raises ApiError 400.

    Who does not say so means the mesh where this node may order that, and this node elsewhere.
    """
    scope = body.text("scope") or usual_scope(view)
    if scope in (NODE, MESH):
        return scope
    found = find_node(view, scope)
    if found not in view.members:
        raise ApiError(400, "invalid_value", found, param="scope")
    return NODE if found == view.me.node else found


def _is_adopted(view: MeshView, model: str) -> bool:
    """Tell whether a model is of an adopted server: an order about it is refused, and that is said at once."""
    local = view.local.get(ModelId(model))
    return local is not None and local.adopted_from != ""


def refusal(outcome: Outcome) -> ApiError:
    """Return the error that an intent's outcome deserves."""
    status = _HTTP_OF_OUTCOME[outcome.code]
    code = _CODE_OF_OUTCOME.get(outcome.code, str(outcome.code))
    return ApiError(
        status, code, outcome.message, param=outcome.param or "model", headers=RETRY_AFTER if status == 503 else None
    )


def _status(asked: str, status: str, code: int = 200, error: str = "") -> web.Response:
    document = {"model_id": asked, "status": status}
    if error:
        document["error"] = error
    if status == "no_loader_config":
        code = 409
    return json_answer(document, code, RETRY_AFTER if code == 503 else None)
