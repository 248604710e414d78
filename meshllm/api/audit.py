"""The audit trail: one line of the log for everything that is changed over HTTP, with what was before and after.

Owns which routes change something and what is read around each. Decides nothing and refuses nothing. Doesn't know the
log's form; `module` is `audit` in it. Who asked is what the front door says in `X-Mesh-Caller`, which no client can.
"""

import json
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

from aiohttp import web

from meshllm.api.answers import ApiError, Handler
from meshllm.api.bodies import arrived
from meshllm.api.deps import ManagementDeps
from meshllm.api.status import is_pinned
from meshllm.api.trust import find_node
from meshllm.core.caches.report import allocation
from meshllm.core.ids import ModelId
from meshllm.core.routing.meaning import meaning
from meshllm.core.routing.routes import RouteRequest
from meshllm.core.serving.registry import versions_of

audit_log = logging.getLogger("meshllm.audit")

CALLER = "X-Mesh-Caller"
_OWN_SOCKET = "own_socket"
"""Of a program of this user that speaks to the management socket itself."""
_AGENT_CHARS = 80
_SAID_CHARS = 2000
_CUT_OFF = 499

Values = Mapping[str, object]
Reader = Callable[[ManagementDeps, str, Values], object]
"""From the name in the path or the body, and the body, to what is there now."""


def _model(deps: ManagementDeps, name: str, _: Values) -> object:
    """Return how a model is at this node, and what was ordered for it in the mesh."""
    view = deps.views.newest
    found = meaning(view, RouteRequest(model=name))
    model = found[0] if isinstance(found, tuple) else ModelId(name)
    order = view.orders.get(model)
    local = view.local.get(model)
    facts: dict[str, object] = {"ordered": f"{order.verb} by {order.author}" if order is not None else None}
    if local is None:
        return facts | {"state": None}
    return facts | {"state": str(local.state), "wanted": local.wanted, "held": local.held, "dropped": local.dropped}


def _default(deps: ManagementDeps, _name: str, _: Values) -> object:
    return deps.views.newest.default_model


def _versions(deps: ManagementDeps, name: str, _: Values) -> object:
    return [f"{one.version} {one.digest}".strip() for one in versions_of(deps.views.newest, name)]


def _member(deps: ManagementDeps, name: str, _: Values) -> object:
    try:
        node = find_node(deps.views.newest, name)
    except ApiError:
        return {}
    member = deps.views.newest.members.get(node)
    return {node: str(member.state) if member is not None else None}


def _tokens(deps: ManagementDeps, _name: str, _: Values) -> object:
    return sorted(token.id for token in deps.tokens())


def _routing(deps: ManagementDeps, _name: str, said: Values) -> object:
    shown = deps.views.newest.routing.shown()
    return {key: value for key, value in shown.items() if key in said or key in {"scope", "version"}}


def _quotas(deps: ManagementDeps, name: str, _: Values) -> object:
    found = meaning(deps.views.newest, RouteRequest(model=name))
    model = found[0] if isinstance(found, tuple) else ModelId(name)
    return deps.views.newest.quotas.shown(model, deps.quota_timezone)


def _caches(deps: ManagementDeps, _name: str, _: Values) -> object:
    return allocation(deps.views.newest)


def _pin(deps: ManagementDeps, name: str, _: Values) -> object:
    found = meaning(deps.views.newest, RouteRequest(model=name))
    return {"pinned": is_pinned(deps.views.newest, found[0] if isinstance(found, tuple) else ModelId(name))}


READERS: Mapping[str, Reader] = MappingProxyType({
    "unload": _model, "reload": _model, "drop": _model, "pull": _model, "remove": _model, "default": _default,
    "register": _versions, "unregister": _versions, "expel": _member, "make_token": _tokens,
    "rotate_tokens": _tokens, "revoke_token": _tokens, "change_routing": _routing, "change_quotas": _quotas,
    "change_cache": _caches, "pin": _pin,
})  # fmt: skip
"""What is read before and after, by the handler of what changes something."""
CHANGES_NOTHING = frozenset({
    "model_status", "rescan", "health_check", "generate", "generate_batch", "generate_stream",
})  # fmt: skip
"""Handlers that take a body and only look, or answer."""


def audited(deps: ManagementDeps, name: str, handler: Handler) -> Handler:
    """Return a handler that writes down what it changed, if it changes anything."""
    read = READERS.get(name)
    if read is None:
        return handler

    async def and_written_down(request: web.Request) -> web.StreamResponse:
        said = await _said(request)
        about = _about(request, said)
        before, status = read(deps, about, said), _CUT_OFF
        try:
            answer = await handler(request)
            status = answer.status
        except ApiError as error:
            status = error.status
            raise
        finally:
            fields = _who(request) | {
                "action": name, "path": request.path[:_SAID_CHARS], "said": _cut(said), "before": before,
                "after": read(deps, about, said), "status": status,
            }  # fmt: skip
            if read in {_model, _quotas, _versions, _pin} and about:
                fields["model"] = about
            audit_log.info("admin change", extra={"fields": fields})
        return answer

    return and_written_down


async def _said(request: web.Request) -> Values:
    """Return the body, which the handler reads again from memory; empty where it is no object. Raises ApiError."""
    content = await arrived(request)
    try:
        document = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _about(request: web.Request, said: Values) -> str:
    """Return what the path or the body names."""
    path = request.match_info
    named = next((path[key] for key in ("model", "node", "token") if key in path), None)
    found = named or next((said[key] for key in ("model_id", "model", "id") if said.get(key)), "")
    return str(found)[:_SAID_CHARS]


def _who(request: web.Request) -> dict[str, object]:
    return {
        "who": request.headers.get(CALLER, _OWN_SOCKET), "agent": request.headers.get("User-Agent", "")[:_AGENT_CHARS],
        "request_id": request.headers.get("X-Request-ID", ""),
    }  # fmt: skip


def _cut(said: Values) -> object:
    text = json.dumps(said, ensure_ascii=False, default=str)
    return dict(said) if len(text) <= _SAID_CHARS else text[:_SAID_CHARS]
