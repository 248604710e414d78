"""Orders about the mesh from this machine: tokens made and taken back, nodes expelled, certificates issued.

Owns turning them into secrets, signatures and events. Decides only what this node's own rights allow; what a token or
a revocation then means is the core's. A token's secret is nowhere but in the string that is returned.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshllm.api.deps import MeshRefusalError, TokenFacts
from meshllm.core.announcement import Address
from meshllm.core.credentials import TokenRecord
from meshllm.core.events import Event, NodeRevoked, TokenMade, TokenRevoked, TokensRotated
from meshllm.core.ids import NodeId, TokenId
from meshllm.core.rights import Rights, rights_names
from meshllm.daemon.mesh_files import Membership
from meshllm.transport.certificates import CertificateError, Issuer, open_revocation, revoke
from meshllm.transport.identity import Identity
from meshllm.wire.token import SECRET_BYTES, TOKEN_ID_BYTES, Token, encode_token


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """This node in its mesh, at one moment."""

    identity: Identity
    membership: Membership
    rights: Rights
    addresses: tuple[Address, ...]


def issuer_of(standing: Standing) -> Issuer:
    """Return who signs for the mesh here: its root, where this node founded it, or the node as an admin."""
    membership = standing.membership
    if membership.root_key:
        return Issuer(identity=Identity.from_pem(membership.root_key), mesh=membership.mesh)
    certificate = membership.delegation or membership.certificate
    return Issuer(identity=standing.identity, mesh=membership.mesh, certificate=certificate)


class Invitations:
    """What the management API asks about tokens and nodes."""

    def __init__(
        self, standing: Callable[[], Standing | None], records: Callable[[], Sequence[TokenRecord]],
        post: Callable[[Event], None], unix_s: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Act as `standing` says, None before the node has a mesh; `records` are the core's tokens."""
        self._standing = standing
        self._records = records
        self._post = post
        self._unix_s = unix_s

    def make_token(self, rights: Rights, ttl_s: float, uses: int | None) -> str:
        """Return a new token to share. Raises MeshRefusalError."""
        me, now = self._admin(), self._unix_s()
        if lacking := rights & ~me.rights:
            raise MeshRefusalError("not_permitted", f"this node cannot give what it lacks: {_named(lacking)}")
        token = Token(
            mesh=me.membership.mesh, issuer=me.identity.node, addresses=me.addresses, rights=rights,
            token_id=TokenId(secrets.token_hex(TOKEN_ID_BYTES)), secret=secrets.token_bytes(SECRET_BYTES),
            expires_unix_s=int(now + ttl_s),
        )  # fmt: skip
        record = TokenRecord(
            token_id=token.token_id, secret_hash=hashlib.sha256(token.secret).digest(), rights=rights,
            made_by=me.identity.node, made_unix_s=now, expires_unix_s=token.expires_unix_s, uses=uses or 0,
        )  # fmt: skip
        self._post(TokenMade(record=record, now_unix_s=now))
        return encode_token(token)

    def tokens(self) -> tuple[TokenFacts, ...]:
        """Return the tokens by which somebody can join now."""
        return tuple(
            TokenFacts(
                id=record.token_id, rights=record.rights, expires_unix_s=record.expires_unix_s,
                uses_left=record.uses_left, made_by=record.made_by,
            )
            for record in self._records()
            if record.is_live(self._unix_s())
        )  # fmt: skip

    def revoke_token(self, token: TokenId) -> None:
        """Let nobody join by a token any more. Raises MeshRefusalError."""
        self._admin()
        if token not in {record.token_id for record in self._records()}:
            raise MeshRefusalError("unknown_token", f"there is no token {token}")
        self._post(TokenRevoked(token=token, now_unix_s=self._unix_s()))

    def rotate_tokens(self) -> int:
        """Let nobody join by any token made so far; return how many there were. Raises MeshRefusalError."""
        self._admin()
        count = len(self.tokens())
        self._post(TokensRotated(now_unix_s=self._unix_s()))
        return count

    def revoke_node(self, node: NodeId, reason: str) -> None:
        """Expel a node for good. Raises MeshRefusalError."""
        me, now = self._admin(), self._unix_s()
        if node == me.identity.node:
            raise MeshRefusalError("not_permitted", "a node cannot expel itself; stop it instead")
        try:
            sealed = revoke(issuer_of(me), node, reason, now)
        except (CertificateError, ValueError) as error:
            raise MeshRefusalError("not_permitted", f"this node cannot sign that now: {error}") from error
        self._post(NodeRevoked(revocation=open_revocation(sealed, me.membership.mesh), now_unix_s=now))

    def _admin(self) -> Standing:
        """Return this node's standing where it may manage others. Raises MeshRefusalError."""
        standing = self._standing()
        if standing is None:
            raise MeshRefusalError("no_mesh", "this node has not joined its mesh yet")
        if Rights.ADMIN not in standing.rights:
            message = f"this node may not manage others; its rights are {_named(standing.rights)}"
            raise MeshRefusalError("not_permitted", message)
        return standing


def _named(rights: Rights) -> str:
    return ", ".join(rights_names(rights)) or "none"
