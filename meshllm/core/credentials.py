"""Who somebody claims to be, as facts that the shells have checked: certificates, proofs, claims.

Owns the shapes. Decides nothing: `members.admission` does. Doesn't know bytes or signatures: `transport.certificates`
and `transport.handshake` have verified every signature before a value of this module exists.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from meshllm.core.ids import MeshId, NodeId, TokenId
from meshllm.core.rights import Rights


class RejectCode(StrEnum):
    """What a peer that is not let in is told. Which part of its claim was wrong is nobody's business but ours."""

    MALFORMED = "malformed"
    WRONG_MESH = "wrong_mesh"
    VERSION_MISMATCH = "version_mismatch"
    SELF = "self"
    """It is this very node."""
    UNAUTHORIZED = "unauthorized"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What a valid membership certificate says."""

    mesh: MeshId
    node: NodeId
    rights: Rights
    name: str
    serial: int
    not_before_unix_s: float
    not_after_unix_s: float
    issuers: tuple[NodeId, ...] = ()
    """The admins between the node and the root, the nearest first. Empty: the root itself signed."""
    delegated_until_unix_s: float = 0.0
    """How long certificates that the node issues may be valid; 0 without the right to issue."""

    @property
    def issuer(self) -> NodeId | None:
        """Return the admin that signed, or None for the root."""
        return self.issuers[0] if self.issuers else None

    def renewal_unix_s(self, share: float) -> float:
        """Return when a share of its life, 0 to 1, is over."""
        return self.not_before_unix_s + share * (self.not_after_unix_s - self.not_before_unix_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenProof:
    """Somebody says that it has a token, and proves it or not: the secret itself never travels."""

    token_id: TokenId
    proof: bytes = field(repr=False)
    """HMAC-SHA-256 of `transcript`; its key is the SHA-256 of the token's secret."""
    transcript: bytes = field(repr=False)
    """What the proof is over: this handshake and no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a dialler says of itself. That it holds the key of `node` is proved."""

    node: NodeId
    public: bytes
    """Its public key, 32 bytes."""
    name: str
    version: int
    """The protocol version that both speak."""
    features: tuple[str, ...] = ()
    certificate: CertificateFacts | None = None
    """Valid in form and time; whether it was revoked is for the core to say."""
    certificate_problem: str = ""
    """Why a certificate that came beside a token is not there."""
    token_proof: TokenProof | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """An admin's word that a node is expelled."""

    node: NodeId
    by: NodeId | None
    """The admin; None when the root signed."""
    at_unix_s: float
    until_unix_s: float
    """When nothing that the node was given is valid any more, and this may be forgotten."""
    reason: str = ""
    sealed: bytes = field(default=b"", repr=False)
    """The signed bytes that it was read from; what nodes pass on to one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """What admins keep of a token that was given out. Only they may see it: `secret_hash` proves as the secret does."""

    token_id: TokenId
    secret_hash: bytes = field(repr=False)
    """SHA-256 of the secret, which nobody keeps."""
    rights: Rights
    made_by: NodeId
    made_unix_s: float
    expires_unix_s: float
    uses: int = 0
    """How many nodes may join with it; 0 for any number."""
    used_by: tuple[NodeId, ...] = ()
    """The nodes that have, sorted. A node counts once, however often it joins."""
    is_revoked: bool = False

    @property
    def uses_left(self) -> int | None:
        """Return how many more nodes may join with it; None for any number."""
        return max(self.uses - len(self.used_by), 0) if self.uses else None

    def is_live(self, now_unix_s: float) -> bool:
        """Tell whether somebody could join with it."""
        return not self.is_revoked and now_unix_s <= self.expires_unix_s and self.uses_left != 0
