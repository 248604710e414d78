"""Quotas over HTTP: `/quotas/{model}`, `/quotas/{model}/report`, `/metrics/quotas`.

Owns the forms of the answers. Decides nothing: the core keeps what was chosen, the front door's ledger counts. Doesn't
know windows nor leases.
"""

from aiohttp import web

from meshllm.api.answers import ApiError, json_answer
from meshllm.api.bodies import read_body
from meshllm.api.deps import ManagementDeps
from meshllm.api.lifecycle import refusal
from meshllm.api.names import refuse_stand_in, require_anywhere
from meshllm.core.ids import ModelId
from meshllm.core.limits import QUOTA_BODY_BYTES
from meshllm.core.view import MeshView

_YES = frozenset({"1", "true", "yes", ""})


class Quotas:
    """The handlers."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Ask `deps`."""
        self._deps = deps

    async def quotas(self, request: web.Request) -> web.Response:
        """Answer with what a model may be used for. Raises ApiError 404."""
        return json_answer(self._shown(self._model(request)))

    async def change(self, request: web.Request) -> web.Response:
        """Change the limits that the body names, for the whole mesh; answer with all of them. Raises ApiError."""
        refuse_stand_in(self._deps.views.newest, request.match_info["model"], "model")
        model = self._model(request)
        body = await read_body(request)
        if len(await request.read()) > QUOTA_BODY_BYTES:
            raise ApiError(413, "body_too_large", f"quotas have at most {QUOTA_BODY_BYTES} bytes")
        outcome = await self._deps.change_quotas(model, body.values)
        if not outcome.is_done:
            raise refusal(outcome)
        return json_answer(self._shown(model))

    async def report(self, request: web.Request) -> web.Response:
        """Answer with how much of each limit is used, which of them binds, and when each begins anew."""
        return json_answer(self._deps.quota_report(self._model(request)))

    async def all(self, request: web.Request) -> web.Response:
        """Answer with the reports of all models that have quotas; `?detailed=true` adds the quotas themselves."""
        is_detailed = request.query.get("detailed", "0").lower() in _YES
        reports = {}
        for model in limited(self._deps.views.newest):
            reports[model] = self._deps.quota_report(model)
            if is_detailed:
                reports[model] |= self._shown(model)
        return json_answer({"per_model": reports})

    def _model(self, request: web.Request) -> ModelId:
        return require_anywhere(self._deps.views.newest, request.match_info["model"])

    def _shown(self, model: ModelId) -> dict[str, object]:
        return self._deps.views.newest.quotas.shown(model, self._deps.quota_timezone)


def limited(view: MeshView) -> list[ModelId]:
    """Return the models that have quotas, sorted."""
    if not view.quotas.is_limiting:
        return []
    known = {*view.local, *view.replicas, *view.cold, *view.quotas.by_model}
    return sorted(model for model in known if view.quotas.of(model).is_limiting)
