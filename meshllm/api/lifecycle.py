"""Loading and unloading over HTTP: `/v1/models/unload|reload|status`, `/v1/models/rescan`, `/mesh/drop`.

Owns how intents and their outcomes look there: `{"model_id","status"}` with the closed vocabulary of
`api.status`, and codes 200, 202, 404, 409, 500, 503. Decides nothing about models: the core does.
"""

from aiohttp import web

from meshllm.api.answers import ApiError, json_answer
from meshllm.api.background import Background
from meshllm.api.bodies import Body, read_body
from meshllm.api.deps import ManagementDeps
from meshllm.api.names import find_model, not_found_message, refuse_stand_in
from meshllm.api.status import lifecycle_status, phase_of
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.core.names import Unknown
from meshllm.core.view import LocalModel

RETRY_AFTER = {"Retry-After": "5"}
_HTTP_OF_OUTCOME = {
    OutcomeCode.DONE: 200, OutcomeCode.UNKNOWN_MODEL: 404, OutcomeCode.NOT_SERVED: 404,
    OutcomeCode.AMBIGUOUS_MODEL: 409, OutcomeCode.SUPERSEDED: 409, OutcomeCode.NO_CAPACITY: 503,
    OutcomeCode.LEAVING: 503, OutcomeCode.LOAD_FAILED: 500, OutcomeCode.DOWNLOAD_FAILED: 500,
    OutcomeCode.NOT_LOADABLE: 409,
}  # fmt: skip

_CODE_OF_OUTCOME = {
    OutcomeCode.UNKNOWN_MODEL: "model_not_found", OutcomeCode.NOT_LOADABLE: "no_loader_config",
}  # fmt: skip


class Lifecycle:
    """The handlers."""

    def __init__(self, deps: ManagementDeps, background: Background) -> None:
        """Ask `deps`; requests that do not wait go to `background`."""
        self._deps = deps
        self._background = background

    async def unload(self, request: web.Request) -> web.Response:
        """Take a model out of memory; 200 when its process is gone and its memory free."""
        body = await read_body(request)
        asked = self._ordered(body, "model_id", "model")
        self._check_scope(body)
        found = find_model(self._deps.views.newest, asked)
        if isinstance(found, Unknown):
            return _status(asked, "not_found", 404, not_found_message(found))
        intent = Intent(
            verb=Verb.UNLOAD, model=found.id, request_id="", hold=body.flag("hold"), force=body.flag("force")
        )
        if not body.flag("wait", default=True) and not found.adopted_from:
            self._background.start(f"unload:{asked}", self._deps.ask(intent))
            return _status(asked, lifecycle_status(found), 202)
        return await self._carry_out(intent, asked, done="unloaded")

    async def reload(self, request: web.Request) -> web.Response:
        """Bring a model into memory; 200 when it answers, 202 at once with `"wait": false`."""
        body = await read_body(request)
        asked = self._ordered(body, "model_id", "model")
        self._check_scope(body)
        found = find_model(self._deps.views.newest, asked)
        is_adopted = isinstance(found, LocalModel) and found.adopted_from != ""
        wait = body.flag("wait", default=True) or is_adopted
        if isinstance(found, LocalModel) and phase_of(found) == "ready" and not is_adopted:
            return _status(asked, "loaded")
        # A name that nothing here has may still be one to download: the core finds out.
        intent = Intent(verb=Verb.LOAD, model=asked if isinstance(found, Unknown) else found.id, request_id="")
        if not wait:
            self._background.start(f"load:{asked}", self._deps.ask(intent))
            return _status(asked, "reloading", 202)
        return await self._carry_out(intent, asked, done="loaded")

    async def status(self, request: web.Request) -> web.Response:
        """Say where a model is; never loads it."""
        asked = (await read_body(request)).name("model_id", "model")
        view = self._deps.views.newest
        found = find_model(view, asked)
        if isinstance(found, Unknown):
            return _status(asked, "not_found", 404, not_found_message(found))
        status, phase = lifecycle_status(found), phase_of(found)
        document: dict[str, object] = {"model_id": asked, "status": status, "mesh_status": status, "phase": phase}
        node: dict[str, object] = {"node_id": view.me.node, "status": status}
        if phase in ("failed", "retrying") and found.failure is not None:
            document["error"] = node["error"] = found.failure.message
        return json_answer({**document, "nodes": [node]})

    async def drop(self, request: web.Request) -> web.Response:
        """Withdraw a model from this node; the node leaves when it was its only one, unless `keep_running`."""
        body = await read_body(request)
        asked = self._ordered(body, "model", "model_id")
        found = find_model(self._deps.views.newest, asked)
        if isinstance(found, Unknown):
            raise ApiError(404, "model_not_found", not_found_message(found), param="model")
        intent = Intent(
            verb=Verb.DROP, model=found.id, request_id="",
            force=body.flag("force"), keep_running=body.flag("keep_running"),
        )  # fmt: skip
        outcome = await self._deps.ask(intent)
        if not outcome.is_done:
            raise refusal(outcome)
        return json_answer({"dropped": outcome.model or found.id})

    async def rescan(self, _: web.Request) -> web.Response:
        """Look at the model folders soon; the view shows what is found."""
        self._deps.rescan()
        return json_answer({"status": "rescanning"}, 202)

    async def _carry_out(self, intent: Intent, asked: str, *, done: str) -> web.Response:
        outcome = await self._deps.ask(intent)
        if outcome.is_done:
            return _status(asked, done)
        if outcome.code is OutcomeCode.AMBIGUOUS_MODEL:
            raise refusal(outcome)
        code = _HTTP_OF_OUTCOME[outcome.code]
        return _status(asked, self._status_after(outcome, asked), code, outcome.message)

    def _status_after(self, outcome: Outcome, asked: str) -> str:
        """Return the word of the closed vocabulary for an intent that failed."""
        if outcome.code in (OutcomeCode.UNKNOWN_MODEL, OutcomeCode.NOT_SERVED):
            return "not_found"
        if outcome.code is OutcomeCode.NOT_LOADABLE:
            return "no_loader_config"
        found = find_model(self._deps.views.newest, outcome.model or asked)
        if outcome.code in (OutcomeCode.NO_CAPACITY, OutcomeCode.SUPERSEDED, OutcomeCode.LEAVING):
            return lifecycle_status(found) if isinstance(found, LocalModel) else "unloaded"
        is_lost = isinstance(found, LocalModel) and lifecycle_status(found) == "no_loader_config"
        return "no_loader_config" if is_lost else "internal_error"

    def _ordered(self, body: Body, *keys: str) -> str:
        """Return the name of the model that an order is about."""
        asked = body.name(*keys)
        refuse_stand_in(self._deps.views.newest, asked, body.key(*keys))
        return asked

    def _check_scope(self, body: Body) -> None:
        """Accept only scopes that this node can reach: alone, the mesh and the node are the same."""
        me = self._deps.views.newest.me
        scope = body.text("scope", "node")
        if scope not in ("node", "mesh", me.name) and not (len(scope) >= 4 and me.node.startswith(scope)):
            raise ApiError(
                400, "invalid_value", f"scope has to be mesh, node or a node's id, not {scope!r}", param="scope"
            )


def refusal(outcome: Outcome) -> ApiError:
    """Return the error that an intent's outcome deserves."""
    status = _HTTP_OF_OUTCOME[outcome.code]
    code = _CODE_OF_OUTCOME.get(outcome.code, str(outcome.code))
    return ApiError(status, code, outcome.message, param="model", headers=RETRY_AFTER if status == 503 else None)


def _status(asked: str, status: str, code: int = 200, error: str = "") -> web.Response:
    document = {"model_id": asked, "status": status}
    if error:
        document["error"] = error
    if status == "no_loader_config":
        code = 409
    return json_answer(document, code, RETRY_AFTER if code == 503 else None)
