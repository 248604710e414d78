"""How requests are routed, over HTTP: `/routing/config`, `/routing/stats`, `/metrics/routing`, `/api/explain`.

Owns the forms of the answers. Decides nothing: the core keeps what was chosen, and says where a request would go.
Doesn't count: the front door's memory has the numbers.
"""

import asyncio

from aiohttp import web

from meshllm.api.answers import ApiError, json_answer
from meshllm.api.bodies import read_body
from meshllm.api.deps import ManagementDeps
from meshllm.api.lifecycle import refusal
from meshllm.api.names import require_anywhere
from meshllm.core.ids import ModelId
from meshllm.core.limits import DECISIONS_SHOWN, ROUTING_BODY_BYTES
from meshllm.core.routing import explain
from meshllm.core.routing.prospect import Prospect, Question, foresee
from meshllm.core.serving.splits import forecast

_YES = frozenset({"1", "true", "yes", ""})


class Routing:
    """The handlers."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Ask `deps`."""
        self._deps = deps

    async def config(self, _: web.Request) -> web.Response:
        """Answer with how requests are routed here, and who chose that."""
        return json_answer(self._deps.views.newest.routing.shown())

    async def change(self, request: web.Request) -> web.Response:
        """Change what the body names, for the mesh or this node; answer with the whole configuration."""
        body = await read_body(request)
        if len(await request.read()) > ROUTING_BODY_BYTES:
            raise ApiError(413, "body_too_large", f"a routing configuration has at most {ROUTING_BODY_BYTES} bytes")
        outcome = await self._deps.change_routing(body.values)
        if not outcome.is_done:
            raise refusal(outcome)
        return json_answer(self._deps.views.newest.routing.shown())

    async def stats(self, request: web.Request) -> web.Response:
        """Answer with what was routed; `?detailed=true` adds times, picks and the newest decisions."""
        is_detailed = request.query.get("detailed", "0").lower() in _YES
        document = self._deps.routes.stats.shown(is_detailed=is_detailed)
        if is_detailed:
            document["decisions"] = self._decisions(None)
        return json_answer(document)

    async def explain(self, request: web.Request) -> web.Response:
        """Answer with where a request for `?model=` would go and why, and where the newest `?count=` ones went.

        `?tokens=` is what such a request needs of a context. `?request=` is one request by its id, instead.
        """
        count = min(_number(request, "count", DECISIONS_SHOWN), DECISIONS_SHOWN)
        if wanted := request.query.get("request"):
            return json_answer(self._one(wanted))
        asked = request.query.get("model")
        if asked is None:
            return json_answer({"decisions": self._decisions(None, count)})
        view = self._deps.views.newest
        model = require_anywhere(view, asked)
        now_s = asyncio.get_running_loop().time()
        question = Question(asked=asked, model=model, tokens=_number(request, "tokens", 0))
        found = foresee(view, self._deps.routes, question, self._deps, now_s)
        split = forecast.told(view, model)
        return json_answer({**_shown(found), "split": split, "decisions": self._decisions(model, count)})

    def _decisions(self, model: ModelId | None, count: int = DECISIONS_SHOWN) -> list[dict[str, object]]:
        newest = self._deps.routes.decisions.newest(model, count)
        return [explain.shown(kept) for kept in newest]

    def _one(self, wanted: str) -> dict[str, object]:
        """Return the decisions about one request: a request whose model is open has two. Raises ApiError 404."""
        newest = self._deps.routes.decisions.newest()
        found = [explain.shown(kept) for kept in newest if kept.decision.request_id == wanted]
        if not found:
            message = f"nothing is remembered of a request {wanted[:80]!r}: it had one way only, or is long gone"
            raise ApiError(404, "request_not_found", message, param="request")
        return {"request_id": wanted, "decisions": found}


def _shown(found: Prospect) -> dict[str, object]:
    """Return what would happen as a document."""
    decision = found.decision
    return {
        "model_id": decision.model, "strategy": decision.strategy, "reason": decision.reason,
        "picked": decision.picked or None, "waits": found.waits, "message": found.message or None,
        "code": found.code or None,
        "candidates": [{**explain.shown_rating(one), "node": found.names.get(one.name)} for one in decision.ratings],
        "rejected": [
            {"candidate": one.name, "node": found.names.get(one.name), "why": one.why} for one in decision.rejected
        ],
    }  # fmt: skip


def _number(request: web.Request, name: str, default: int) -> int:
    """Return a whole number of the query. Raises ApiError 400."""
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ApiError(400, "invalid_value", f"{name} has to be a whole number", param=name)
    return int(text)
