"""Who may change the node over HTTP: whoever the front door says has a right to.

Owns the refusal and its words. Decides nothing: the core judged the caller when the front door asked. Doesn't know keys
nor connections. A program at the management socket itself is the node's user: its folder is private.
"""

from aiohttp import web

from meshllm.api.answers import ApiError, Handler
from meshllm.api.audit import CALLER, READERS
from meshllm.core.callers import CallerRight

_NEEDS_KEY = (
    "changing this node takes its admin key, as `Authorization: Bearer <key>`; commands take MESH_LLM_ADMIN_KEY"
)
_NEEDS_USER = (
    "only the user who runs this node may change it, from its own machine; with an admin key (MESH_LLM_ADMIN_KEY) "
    "whoever shows that may"
)
_WORDS = {
    CallerRight.UNKEYED: (401, "missing_admin_key", _NEEDS_KEY),
    CallerRight.STRANGER: (403, "not_allowed", _NEEDS_USER),
}


def gated(name: str, handler: Handler) -> Handler:
    """Return a handler that refuses callers without a right to it, if it changes anything."""
    if name not in READERS:
        return handler

    async def if_allowed(request: web.Request) -> web.StreamResponse:
        objection = _WORDS.get(right_in(request.headers.get(CALLER, "")))
        if objection is not None:
            status, code, message = objection
            raise ApiError(status, code, message)
        return await handler(request)

    return if_allowed


def right_in(caller: str) -> CallerRight:
    """Return the right that the front door found: the last word; without any, the caller is at our own socket."""
    if not caller:
        return CallerRight.OWNER
    word = caller.rpartition(" ")[2]
    return CallerRight(word) if word in list(CallerRight) else CallerRight.STRANGER
