"""Who may come in and who has to leave, over HTTP: `/api/tokens`, `/api/nodes`.

Owns how orders about tokens and nodes look there, and which node a short id or a name means. Decides nothing: the
core does. A token itself is answered once, when it is made; nothing here shows it again.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from aiohttp import web

from meshllm.api.answers import ApiError, json_answer
from meshllm.api.bodies import Body, read_body
from meshllm.api.deps import ManagementDeps, MeshRefusalError, TokenFacts
from meshllm.api.members import member_documents, mesh_document, rights_facts
from meshllm.core.ids import ID_CHARS, NodeId, TokenId
from meshllm.core.limits import TOKEN_TTL_LEAST_S, TOKEN_TTL_MOST_S, TOKEN_TTL_S, TOKEN_USES_MOST
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE, Rights, parse_rights
from meshllm.core.view import MeshView

BUNDLES = {"own": OWN_MACHINE, "guest": GUEST, "client": CLIENT_ONLY}
"""Rights by one word, as `rights` takes it beside a list of them."""
_STATUS_OF_REFUSAL = {"no_mesh": 409, "not_permitted": 403, "unknown_token": 404, "unknown_node": 404}
SHORTEST_ID = 4
REASON_CHARS = 200


class Trust:
    """The handlers."""

    def __init__(self, deps: ManagementDeps, unix_s: Callable[[], float] = time.time) -> None:
        """Ask `deps`."""
        self._deps = deps
        self._unix_s = unix_s

    async def nodes(self, _: web.Request) -> web.Response:
        """Answer with the mesh and all its members."""
        now_s = asyncio.get_running_loop().time()
        members = member_documents(self._deps.views.newest, now_s, self._deps.lines_by_peer())
        return json_answer({"mesh": mesh_document(self._deps.mesh), "nodes": members})

    async def make(self, request: web.Request) -> web.Response:
        """Make a token: 201 with the token itself, which is shown this once."""
        body = await read_body(request)
        rights = _rights(body)
        ttl_s = body.number("ttl_s", TOKEN_TTL_LEAST_S, TOKEN_TTL_MOST_S) or TOKEN_TTL_S
        uses = body.whole("uses", 1, TOKEN_USES_MOST)
        try:
            token = await self._deps.make_token(rights, float(ttl_s), uses)
        except MeshRefusalError as error:
            raise _refusal(error, "rights") from None
        answer = {"token": token, **rights_facts(rights), "ttl_s": ttl_s, "uses": uses}
        return json_answer(answer, 201)

    async def tokens(self, _: web.Request) -> web.Response:
        """Answer with the tokens by which somebody can join now, the one that lasts longest first."""
        now = self._unix_s()
        listed = sorted(self._deps.tokens(), key=lambda token: (-token.expires_unix_s, token.id))
        return json_answer({"tokens": [_token(token, now) for token in listed]})

    async def revoke(self, request: web.Request) -> web.Response:
        """Let nobody join by a token any more; those who have stay."""
        token = self._token_id(request.match_info["token"])
        try:
            await self._deps.revoke_token(token)
        except MeshRefusalError as error:
            raise _refusal(error, "token") from None
        return json_answer({"revoked": token})

    async def rotate(self, _: web.Request) -> web.Response:
        """Let nobody join by any token made so far; those who have stay."""
        try:
            return json_answer({"revoked": await self._deps.rotate_tokens()})
        except MeshRefusalError as error:
            raise _refusal(error, "token") from None

    async def expel(self, request: web.Request) -> web.Response:
        """Expel a node for good: its connections end, and it cannot come back by its certificate or a token."""
        body = await read_body(request)
        node = find_node(self._deps.views.newest, request.match_info["node"])
        reason = body.text("reason").strip()
        if len(reason) > REASON_CHARS or not reason.isprintable():
            message = f"reason has to be one line of at most {REASON_CHARS} characters"
            raise ApiError(400, "invalid_value", message, param="reason")
        try:
            await self._deps.revoke_node(node, reason)
        except MeshRefusalError as error:
            raise _refusal(error, "node") from None
        return json_answer({"revoked": node})

    def _token_id(self, asked: str) -> TokenId:
        """Return the id of a listed token that begins like this. Raises ApiError 404 or 409."""
        known = [token.id for token in self._deps.tokens() if token.id.startswith(asked.lower())]
        if len(known) == 1 and len(asked) >= SHORTEST_ID:
            return known[0]
        if len(known) > 1 and len(asked) >= SHORTEST_ID:
            raise ApiError(409, "ambiguous_token", f"{asked[:40]!r} begins the ids of several tokens", param="token")
        raise ApiError(404, "unknown_token", f"there is no token {asked[:40]!r}; `mesh-llm token list`", param="token")


def find_node(view: MeshView, asked: str) -> NodeId:
    """Return the other node that an id, the beginning of one, or a name means. Raises ApiError 400, 404 or 409."""
    key = asked.strip().lower()
    found = [node for node, member in view.members.items() if node == key or member.announcement.name.lower() == key]
    if not found and len(key) >= SHORTEST_ID:
        found = [node for node in view.members if node.startswith(key)]
    if not found and len(key) == ID_CHARS and key.isalnum() and key.isascii():
        found = [NodeId(key)]  # a node that nobody has seen lately can be expelled too
    if not found:
        raise ApiError(
            404, "unknown_node", f"there is no node {asked[:60]!r}; `mesh-llm nodes` lists them", param="node"
        )
    if len(found) > 1:
        candidates = ", ".join(sorted(found)[:8])
        raise ApiError(409, "ambiguous_node", f"{asked[:60]!r} could mean any of: {candidates}", param="node")
    if found[0] == view.me.node:
        raise ApiError(400, "invalid_value", "a node cannot expel itself; stop it instead", param="node")
    return found[0]


def _rights(body: Body) -> Rights:
    """Return the rights that a body asks for: a list of names, a bundle's name, or those of one's own machines."""
    key = "rights"
    if body.is_text(key):
        word = body.text(key)
        if word not in BUNDLES:
            message = f"rights has to be a list, or one of {', '.join(BUNDLES)}; not {word[:40]!r}"
            raise ApiError(400, "invalid_value", message, param=key)
        return BUNDLES[word]
    names = body.texts(key)
    if names is None:
        return OWN_MACHINE
    try:
        rights = parse_rights(name.strip().lower() for name in names)
    except ValueError as error:
        raise ApiError(400, "invalid_value", str(error)[:200], param=key) from None
    if not rights:
        raise ApiError(400, "invalid_value", "a token without rights would be of no use", param=key)
    return rights


def _token(token: TokenFacts, now: float) -> Mapping[str, object]:
    return {
        "id": token.id, **rights_facts(token.rights), "expires_unix_s": token.expires_unix_s,
        "expires_in_s": round(max(token.expires_unix_s - now, 0.0), 1), "uses_left": token.uses_left,
        "made_by": token.made_by,
    }  # fmt: skip


def _refusal(error: MeshRefusalError, param: str) -> ApiError:
    return ApiError(_STATUS_OF_REFUSAL.get(error.code, 409), error.code, error.message, param=param)
