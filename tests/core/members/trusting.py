"""Claims, tokens and revocations for tests of admission and trust."""

import hashlib
import hmac
from dataclasses import replace

from meshllm.core import events as ev
from meshllm.core.announcement import Address
from meshllm.core.credentials import CertificateFacts, Claim, Revocation, TokenProof, TokenRecord
from meshllm.core.ids import ConnectionId, MeshId, NodeId, TokenId
from meshllm.core.rights import GUEST, OWN_MACHINE, Rights

NOW_UNIX_S = 1_800_000_000.0
DAY_S = 86_400.0
ME, ADA, BOB, EVE = (NodeId(letter * 52) for letter in ("m", "a", "b", "e"))
TOKEN = TokenId("00112233445566ff")
SECRET = b"secret"
HERE = Address("192.0.2.7", 4000)


def a_token(**changes: object) -> TokenRecord:
    """Return what an admin keeps of a token for guests, or a variation."""
    record = TokenRecord(
        token_id=TOKEN, secret_hash=hashlib.sha256(SECRET).digest(), rights=GUEST, made_by=ME, made_unix_s=NOW_UNIX_S,
        expires_unix_s=NOW_UNIX_S + DAY_S,
    )  # fmt: skip
    return replace(record, **changes)


def a_proof(secret: bytes = SECRET, token: TokenId = TOKEN) -> TokenProof:
    """Return what somebody with a secret shows."""
    key = hashlib.sha256(secret).digest()
    return TokenProof(token_id=token, proof=hmac.digest(key, b"transcript", "sha256"), transcript=b"transcript")


def a_certificate(node: NodeId = ADA, rights: Rights = GUEST, *, age_s: float = 0.0, by: tuple[NodeId, ...] = ()):
    """Return the facts of a valid certificate."""
    since = NOW_UNIX_S - age_s
    return CertificateFacts(
        mesh=MeshId("x" * 52), node=node, rights=rights, name="ada", serial=1, not_before_unix_s=since,
        not_after_unix_s=since + 30 * DAY_S, issuers=by,
    )  # fmt: skip


def a_claim(node: NodeId = ADA, **changes: object) -> Claim:
    """Return what a dialler says, with nothing to show unless it is given."""
    return replace(Claim(node=node, public=b"p" * 32, name="ada", version=1), **changes)


def a_revocation(node: NodeId = EVE, *, by: NodeId | None = ME, until: float = NOW_UNIX_S + 400 * DAY_S) -> Revocation:
    """Return an admin's word that a node is expelled."""
    sealed = f"{node} {until}".encode()
    return Revocation(node=node, by=by, at_unix_s=NOW_UNIX_S, until_unix_s=until, reason="sold", sealed=sealed)


def asked(claim: Claim, *, address: Address = HERE, later_s: float = 0.0) -> ev.AdmissionAsked:
    """Return the event of a claim."""
    return ev.AdmissionAsked(ticket=7, claim=claim, address=address, now_unix_s=NOW_UNIX_S + later_s)


def connected(
    peer: NodeId, rights: Rights = OWN_MACHINE, *, connection: int = 1, by: tuple[NodeId, ...] = ()
) -> ev.PeerConnected:
    """Return the event of a connection."""
    return ev.PeerConnected(
        peer=peer, connection=ConnectionId(connection), address=HERE, is_dialled=False, rights=rights, rtt_s=0.01,
        issuers=by,
    )  # fmt: skip
