"""Who may use the bulk plane, and for what: the same certificates as everywhere, and a right for each use.

Owns the rules. Decides both questions. Doesn't know TLS or files; that a claim's signatures are good, others have
made sure of.

Files are for those who serve models: a machine that only sends requests has no use for them, and a model file may be
worth more than an answer.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum

from meshllm.core.credentials import Claim
from meshllm.core.effects import Lend
from meshllm.core.ids import NodeId
from meshllm.core.rights import Rights

BULK_FEATURE = "bulk"
"""What a dialler says in its HELLO on this plane: what it signs there is worth nothing on the other one."""


class BulkUse(StrEnum):
    """What a connection is for."""

    FILE = "file"
    """Ranges of model files."""
    RPC = "rpc"
    """The tensor traffic of a split."""
    LINE = "line"
    """Tunnels, one after another."""


RIGHTS_NEEDED: Mapping[BulkUse, Rights] = {
    BulkUse.FILE: Rights.HOST, BulkUse.RPC: Rights.RPC, BulkUse.LINE: Rights.INFER,
}  # fmt: skip
"""What both sides need."""


def bulk_rights(claim: Claim, revoked: Collection[NodeId]) -> Rights | str:
    """Return the rights of whoever dialled, or the exact reason why it gets nowhere. Nobody joins on this plane."""
    if BULK_FEATURE not in claim.features:
        return "another_plane"
    if claim.certificate is None:
        return claim.certificate_problem or "no_certificate"
    if claim.node in revoked:
        return "node_revoked"
    if any(issuer in revoked for issuer in claim.certificate.issuers):
        return "issuer_revoked"
    return claim.certificate.rights


def join_refusal(lent: Lend | None, peer: NodeId, epoch: int, *, is_ready: bool) -> str:
    """Return why a peer may not reach the server that is `lent` for a model, as a word of the protocol; empty: it may.

    It is the order's: for its host alone, in its very epoch, once it listens.
    """
    if lent is None:
        return "not_lent"
    if lent.host != peer:
        return "wrong_host"
    if lent.epoch != epoch:
        return "stale_epoch"
    return "" if is_ready else "not_lent"


def refusal_of(use: str, theirs: Rights, mine: Rights) -> str:
    """Return why a connection may not be for this, as a word of the protocol; empty where it may."""
    if use not in RIGHTS_NEEDED:
        return "unknown_use"
    needed = RIGHTS_NEEDED[BulkUse(use)]
    if needed & ~theirs:
        return "no_right"
    return "not_served" if needed & ~mine else ""
