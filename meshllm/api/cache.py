"""Prompt caches over HTTP: `/cache/allocation`, `/cache/stats`, `/metrics/cache`.

Owns the forms of questions and the names in them. Decides nothing: the core keeps what was chosen and divides, engines
count. Doesn't know bytes.
"""

from aiohttp import web

from meshllm.api.answers import ApiError, json_answer
from meshllm.api.bodies import read_body
from meshllm.api.deps import ManagementDeps
from meshllm.api.lifecycle import refusal
from meshllm.api.names import refuse_stand_in, require_anywhere
from meshllm.core.cache_config import NAMING_KEYS, CacheConfigError, unwrapped
from meshllm.core.cache_limits import CACHE_BODY_BYTES
from meshllm.core.caches.report import allocation, stats
from meshllm.core.intents import Outcome, OutcomeCode

_YES = frozenset({"1", "true", "yes", ""})


class Caches:
    """The handlers."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Ask `deps`."""
        self._deps = deps

    async def allocation(self, _: web.Request) -> web.Response:
        """Answer with how this node's prompt cache is shared out."""
        return json_answer(allocation(self._deps.views.newest))

    async def change(self, request: web.Request) -> web.Response:
        """Change what the body names, for this node; answer with the whole. Raises ApiError."""
        body = await read_body(request)
        if len(await request.read()) > CACHE_BODY_BYTES:
            raise ApiError(413, "body_too_large", f"a way to share out caches has at most {CACHE_BODY_BYTES} bytes")
        try:
            changes = unwrapped(body.values)
        except CacheConfigError as error:
            raise refusal(Outcome(code=OutcomeCode(error.fault), message=error.message, param=error.key)) from None
        outcome = await self._deps.change_caches({key: self._by_id(key, value) for key, value in changes.items()})
        if not outcome.is_done:
            raise refusal(outcome)
        return json_answer(allocation(self._deps.views.newest))

    async def stats(self, request: web.Request) -> web.Response:
        """Answer with what engines found in their caches; `?detailed=true` by host and slot."""
        is_detailed = request.query.get("detailed", "0").lower() in _YES
        view = self._deps.views.newest
        return json_answer(stats(view, view.routing.effective, is_detailed=is_detailed))

    def _by_id(self, key: str, value: object) -> object:
        """Return a table of models by their ids. Raises ApiError 404 for a name that nothing has."""
        if key not in NAMING_KEYS or not isinstance(value, dict):
            return value
        view = self._deps.views.newest
        found: dict[str, object] = {}
        for name, number in value.items():
            refuse_stand_in(view, str(name), key)
            found[str(name) if number is None else require_anywhere(view, str(name))] = number
        return found
