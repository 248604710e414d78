"""Which mesh a node belongs to when it starts: the one on its disk, the one of its tokens, or a new one.

Owns reading the tokens that a node was given and founding a mesh. Decides which of the three it is; a node never
changes its mesh in silence. Doesn't dial: what it returns is what the transport shows to peers.
"""

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from meshllm.core.announcement import Address
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.limits import CERTIFICATE_RENEWAL_SHARE
from meshllm.core.rights import OWN_MACHINE
from meshllm.daemon.errors import BadTokenError, NotJoinedError, StartError
from meshllm.daemon.mesh_files import MESH_NAME, Membership, MeshFiles
from meshllm.transport.certificates import Grant, Issuer, issue, read_certificate
from meshllm.transport.identity import Identity, IdentityError, mesh_id_of
from meshllm.wire.errors import WireError
from meshllm.wire.token import Token, TokenError, decode_token

log = logging.getLogger(__name__)

_SERIAL_BITS = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node's place in a mesh as it starts."""

    mesh: MeshId
    membership: Membership | None
    """None until a member has let the node in by one of its tokens."""
    tokens: tuple[Token, ...] = ()
    """All of this mesh; any one may admit."""
    is_new: bool = False
    """The mesh was founded at this start."""

    @property
    def contacts(self) -> tuple[tuple[NodeId, tuple[Address, ...]], ...]:
        """Return the nodes that the tokens name."""
        return tuple((token.issuer, token.addresses) for token in self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """Who looks for its place."""

    identity: Identity
    name: str
    mesh_name: str = ""
    is_client: bool = False
    must_join: bool = False
    """It shall be in a mesh of others or not run: it founds none."""


def place_of(files: MeshFiles, me: Newcomer, texts: Sequence[str], now_unix_s: float) -> Place:
    """Return the mesh of a node that starts, and write a new one down.

    Raises BadTokenError, NotJoinedError where the node must join and knows of no mesh, and StartError.
    """
    tokens = usable_tokens(texts)
    kept = None if me.is_client else files.membership()
    if kept is not None:
        return _kept(files, me, kept, tokens, now_unix_s)
    if tokens:
        return Place(mesh=tokens[0].mesh, membership=None, tokens=tokens)
    if me.is_client:
        raise BadTokenError("a client uses a mesh that is there: give it a token with --join or --join-file")
    if me.must_join:
        raise NotJoinedError(
            "--require-join: this node knows of no mesh yet; give it a token with --join or --join-file"
        )
    founded = found(me, now_unix_s)
    files.keep_membership(founded)
    return Place(mesh=founded.mesh, membership=founded, is_new=True)


def usable_tokens(texts: Sequence[str]) -> tuple[Token, ...]:
    """Return the tokens that can be read. One that cannot be is said; BadTokenError when all are such, or none fit."""
    found: list[Token] = []
    problems: list[str] = []
    for text in texts:
        try:
            found.append(decode_token(text))
        except TokenError as error:
            problems.append(error.message)
    if problems and not found:
        raise BadTokenError(problems[0])
    for problem in problems:
        log.warning("one of the tokens cannot be used: %s", problem)
    meshes = {token.mesh for token in found}
    if len(meshes) > 1:
        raise BadTokenError(f"the tokens are of {len(meshes)} different meshes; a node belongs to one")
    return tuple({token.token_id: token for token in found}.values())


def found(me: Newcomer, now_unix_s: float) -> Membership:
    """Return the membership of the first node of a new mesh: its root key, and its own certificate by it."""
    root = Identity.generate()
    membership = Membership(
        mesh=mesh_id_of(root.public),
        root_public=root.public,
        root_key=root.to_pem(),
        certificate=b"",
        name=me.mesh_name,
    )
    return replace(membership, certificate=_own_certificate(root, membership.mesh, me, now_unix_s))


def _kept(files: MeshFiles, me: Newcomer, kept: Membership, tokens: tuple[Token, ...], now_unix_s: float) -> Place:
    """Return the place in the mesh on disk. Raises StartError when it is not this node's, BadTokenError for another."""
    if tokens and tokens[0].mesh != kept.mesh:
        raise BadTokenError(
            f"the token is of the mesh {tokens[0].mesh[:8]}, but this node belongs to {kept.mesh[:8]}; start it with "
            f"another --state-dir, or move {MESH_NAME} out of the way to leave that mesh"
        )
    kept = renewed(files, me, kept, now_unix_s)
    return Place(mesh=kept.mesh, membership=kept, tokens=tokens)


def renewed(files: MeshFiles, me: Newcomer, kept: Membership, now_unix_s: float) -> Membership:
    """Return the membership; its founder renews its own certificate, which nobody else might be there to do."""
    root = _root(kept)
    try:
        facts = read_certificate(kept.certificate, kept.mesh, now_unix_s)
    except WireError as error:
        if root is None:
            log.warning("this node's certificate is no longer good; a member has to renew it, or a token: %s", error)
            return kept
    else:
        if facts.node != me.identity.node:
            raise StartError(
                f"{MESH_NAME} is of another node ({facts.node[:8]}): copy a state folder whole or not at all"
            )
        if root is None or now_unix_s < facts.renewal_unix_s(CERTIFICATE_RENEWAL_SHARE):
            return kept
    renewed = replace(kept, certificate=_own_certificate(root, kept.mesh, me, now_unix_s))
    files.keep_membership(renewed)
    return renewed


def _root(kept: Membership) -> Identity | None:
    if not kept.root_key:
        return None
    try:
        return Identity.from_pem(kept.root_key)
    except IdentityError as error:
        raise StartError(f"the mesh's root key in {MESH_NAME} cannot be used: {error}") from error


def _own_certificate(root: Identity, mesh: MeshId, me: Newcomer, now_unix_s: float) -> bytes:
    grant = Grant(node=me.identity.node, rights=OWN_MACHINE, name=me.name, serial=secrets.randbits(_SERIAL_BITS))
    return issue(Issuer(identity=root, mesh=mesh), grant, now_unix_s)
