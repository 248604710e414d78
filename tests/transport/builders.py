"""A mesh for tests: its root, and members with certificates of any kind."""

import itertools
from dataclasses import dataclass, field

from meshllm.core.announcement import Announcement
from meshllm.core.ids import TokenId
from meshllm.core.rights import GUEST, OWN_MACHINE, Rights
from meshllm.transport.certificates import Grant, Issuer, issue
from meshllm.transport.handshake import AcceptorHandshake, Credentials, DiallerHandshake, Terms
from meshllm.transport.identity import Identity, mesh_id_of
from meshllm.wire.token import Token
from tests.wire.builders import announcement

NOW_UNIX_S = 1_800_000_000.0
_serials = itertools.count(1)


@dataclass
class Mesh:
    """The root, which signs."""

    root: Identity = field(default_factory=Identity.generate)

    @property
    def id(self):
        """Return the mesh's id."""
        return mesh_id_of(self.root.public)

    @property
    def issuer(self) -> Issuer:
        """Return the root as an issuer."""
        return Issuer(identity=self.root, mesh=self.id)

    def member(
        self, rights: Rights = OWN_MACHINE, *,
        by: "Node | None" = None, at: float = NOW_UNIX_S, identity: Identity | None = None,
    ) -> "Node":  # fmt: skip
        """Return a node with a certificate from the root, or from another member."""
        identity = identity or Identity.generate()
        issuer = self.issuer if by is None else by.issuer
        grant = Grant(node=identity.node, rights=rights, name="studio", serial=next(_serials))
        return Node(self, identity, issue(issuer, grant, at))

    def stranger(self) -> "Node":
        """Return a node without anything."""
        return Node(self, Identity.generate(), b"")


@dataclass
class Node:
    """A key, and a certificate or none: then it is empty."""

    mesh: Mesh
    identity: Identity
    certificate: bytes

    @property
    def id(self):
        """Return the node's id."""
        return self.identity.node

    @property
    def issuer(self) -> Issuer:
        """Return the node as an issuer."""
        return Issuer(identity=self.identity, mesh=self.mesh.id, certificate=self.certificate)

    def says(self, **changes) -> Announcement:
        """Return what the node announces."""
        return announcement(**{"node": self.id, "rights": OWN_MACHINE, **changes})

    def credentials(self, token: Token | None = None) -> Credentials:
        """Return what the node shows in a handshake."""
        root = self.mesh.root.public if self.certificate else None
        return Credentials(
            identity=self.identity,
            mesh=self.mesh.id,
            root_public=root,
            certificate=self.certificate or None,
            token=token,
        )

    def token(self, rights: Rights = GUEST) -> Token:
        """Return a token that this node made."""
        return Token(
            mesh=self.mesh.id, issuer=self.id, addresses=(), token_id=TokenId("00112233445566ff"), secret=b"s" * 32,
            rights=rights, expires_unix_s=int(NOW_UNIX_S) + 86_400,
        )  # fmt: skip


class Chance:
    """Bytes that repeat with every run and never within one."""

    def __init__(self) -> None:
        self._count = itertools.count()

    def __call__(self, count: int) -> bytes:
        """Return so many bytes."""
        return (next(self._count) + 1).to_bytes(count, "big")


chance = Chance()


def terms(**changes) -> Terms:
    """Return what a handshake is told."""
    return Terms(**{"now_unix_s": NOW_UNIX_S, "random_bytes": chance, "name": "laptop", **changes})


def dialler(node: Node, server: Node, *, token: Token | None = None, **changes) -> DiallerHandshake:
    """Return the side of `node` in a handshake with `server`."""
    return DiallerHandshake(node.credentials(token), server.id, server.identity.public, terms(**changes))


def acceptor(node: Node, **changes) -> AcceptorHandshake:
    """Return the side of `node` in a handshake with anybody."""
    return AcceptorHandshake(node.credentials(), terms(**{"name": "studio", **changes}))
