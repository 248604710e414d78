"""What is signed: membership certificates, records and revocations, made and checked.

Owns signatures over them and the chain from a member to the mesh's root. Decides whether a signature and its issuer are
good at a moment. Doesn't know who was revoked since, nor connections: `core.members.admission` decides who may join.

The chain: the root's key makes the mesh id. A certificate is signed by the root, or by a node whose own certificate
stands beside it, has the right ADMIN, and is good by the same rule. Nobody gives a right that it lacks. A member's
certificate lives for 30 days; an admin may issue for longer than that (`delegated_until_unix_s`), so that a mesh whose
founder is gone goes on while its admins renew each other.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

from meshllm.core.announcement import Announcement
from meshllm.core.credentials import CertificateFacts, Revocation
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.limits import CERTIFICATE_CHAIN, CERTIFICATE_LEEWAY_S, CERTIFICATE_LIFE_S, DELEGATION_LIFE_S
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.transport.identity import Identity, mesh_id_of, node_id_of, verify
from meshllm.wire import credentials as form
from meshllm.wire.announcements import decode_announcement, encode_announcement
from meshllm.wire.credentials import SignedAs
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.ids import id_bytes, id_text
from meshllm.wire.names import fit_node_name, fit_text


class CertificateError(WireError):
    """A signature or its issuer is not good. `problem` says which part, for the local log alone."""

    def __init__(self, problem: str, code: WireCode = WireCode.UNAUTHORIZED) -> None:
        """Keep the problem, in words."""
        super().__init__(code, problem)
        self.problem = problem


# -- certificates --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who signs for a mesh: its root (`certificate` is None and `identity` the root's key), or an admin."""

    identity: Identity
    mesh: MeshId
    certificate: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a certificate is to say of a node."""

    node: NodeId
    rights: Rights
    name: str
    serial: int
    """Any number below 2^63, to tell certificates of one node apart."""


def issue(issuer: Issuer, grant: Grant, now_unix_s: float) -> bytes:
    """Return a certificate for 30 days, or for as long as the issuer may issue.

    Raises CertificateError when nobody would take it.
    """
    until = int(now_unix_s + CERTIFICATE_LIFE_S)
    delegated_until = int(now_unix_s + DELEGATION_LIFE_S) if Rights.ADMIN in grant.rights else 0
    if issuer.certificate is not None:
        latest = int(_facts(issuer.certificate, issuer.mesh).delegated_until_unix_s)
        until, delegated_until = min(until, latest), min(delegated_until, latest)
    if until <= now_unix_s:
        raise CertificateError("the issuer's time to issue is over")
    body = form.CertificateBody(
        v=form.CERTIFICATE_VERSION, mesh=id_bytes(issuer.mesh), node=id_bytes(grant.node), rights=int(grant.rights),
        name=fit_node_name(grant.name), serial=grant.serial, not_before=int(now_unix_s), not_after=until,
        delegated_until=delegated_until,
    )  # fmt: skip
    data = _signed(issuer, SignedAs.CERTIFICATE, form.write(body))
    _facts(data, issuer.mesh)
    return data


def read_certificate(data: bytes, mesh: MeshId, now_unix_s: float) -> CertificateFacts:
    """Return what a certificate says, with every signature up to the root checked. Raises WireError."""
    facts = _facts(data, mesh)
    _check_time(facts, now_unix_s)
    return facts


def _check_time(facts: CertificateFacts, now_unix_s: float) -> None:
    if now_unix_s < facts.not_before_unix_s - CERTIFICATE_LEEWAY_S:
        raise CertificateError("the certificate is from the future", WireCode.EXPIRED)
    if now_unix_s > facts.not_after_unix_s + CERTIFICATE_LEEWAY_S:
        raise CertificateError("the certificate has expired", WireCode.EXPIRED)


def better_delegation(certificates: Iterable[bytes], mesh: MeshId, now_unix_s: float) -> bytes | None:
    """Return which of a node's certificates is the best one to issue with, or None when none is.

    Fewer issuers come first, since admins that renew each other would otherwise lengthen the chain each time; but a
    delegation that ends within the life of a certificate comes last.
    """

    def rank(data: bytes) -> tuple[bool, int, float]:
        facts = _facts(data, mesh)
        left_s = facts.delegated_until_unix_s - now_unix_s
        return left_s < CERTIFICATE_LIFE_S, len(facts.issuers), -left_s

    return min((data for data in certificates if _facts(data, mesh).delegated_until_unix_s), key=rank, default=None)


@lru_cache(maxsize=4096)
def _facts(data: bytes, mesh: MeshId, room: int = CERTIFICATE_CHAIN) -> CertificateFacts:
    """Return what a certificate says, all checked but whether it is good at this moment."""
    issued, parent = _opened(data, SignedAs.CERTIFICATE, mesh, room)
    said = form.read_certificate_body(issued.body)
    rights = Rights(said.rights) & OWN_MACHINE
    delegated_until = said.delegated_until if Rights.ADMIN in rights else 0
    if id_text(said.mesh) != mesh:
        raise CertificateError("the certificate is of another mesh")
    if parent is not None:
        if rights & ~parent.rights:
            raise CertificateError("the certificate gives rights that its issuer lacks")
        if max(said.not_after, delegated_until) > parent.delegated_until_unix_s:
            raise CertificateError("the certificate is valid for longer than its issuer may issue")
        if said.not_before < parent.not_before_unix_s - CERTIFICATE_LEEWAY_S:
            raise CertificateError("the certificate is older than its issuer's")
    return CertificateFacts(
        mesh=mesh, node=NodeId(id_text(said.node)), rights=rights, name=said.name, serial=said.serial,
        not_before_unix_s=said.not_before, not_after_unix_s=said.not_after, delegated_until_unix_s=delegated_until,
        issuers=() if parent is None else (parent.node, *parent.issuers),
    )  # fmt: skip


# -- revocations ---------------------------------------------------------------------------------------


def revoke(issuer: Issuer, node: NodeId, reason: str, now_unix_s: float) -> bytes:
    """Return the signed word that a node is expelled; it holds until nothing that the node was given is valid."""
    body = form.RevocationBody(
        mesh=id_bytes(issuer.mesh), node=id_bytes(node), at=int(now_unix_s),
        until=int(now_unix_s + DELEGATION_LIFE_S + CERTIFICATE_LEEWAY_S), reason=fit_text(reason),
    )  # fmt: skip
    data = _signed(issuer, SignedAs.REVOCATION, form.write(body))
    open_revocation(data, issuer.mesh)
    return data


def open_revocation(data: bytes, mesh: MeshId) -> Revocation:
    """Return whom an admin expelled, with every signature up to the root checked. Raises WireError."""
    issued, parent = _opened(data, SignedAs.REVOCATION, mesh, CERTIFICATE_CHAIN + 1)
    said = form.read_revocation_body(issued.body)
    if id_text(said.mesh) != mesh:
        raise CertificateError("the revocation is of another mesh")
    if parent is not None and said.at > parent.delegated_until_unix_s:
        raise CertificateError("the issuer's time was over")
    return Revocation(
        node=NodeId(id_text(said.node)), by=None if parent is None else parent.node, at_unix_s=said.at,
        until_unix_s=said.until, reason=said.reason, sealed=data,
    )  # fmt: skip


# -- records -------------------------------------------------------------------------------------------


def seal(identity: Identity, certificate: bytes, announcement: Announcement) -> bytes:
    """Return a node's own announcement with its signature and its certificate."""
    mesh = form.read_certificate_body(form.read_issued(certificate).body).mesh
    body = encode_announcement(announcement)
    signature = identity.sign(SignedAs.ANNOUNCEMENT.value + mesh + body)
    return form.write(
        form.SealedRecord(body=body, public=identity.public, signature=signature, certificate=certificate)
    )


def open_sealed(
    data: bytes, mesh: MeshId, now_unix_s: float, *,
    revoked: Collection[NodeId] = frozenset(), allow_loopback: bool = False,
) -> Announcement:  # fmt: skip
    """Return what a member of the mesh said of itself, with every signature checked. Raises WireError.

    Nothing is taken from a node in `revoked`, nor from one that such a node admitted.
    """
    announcement, facts = _record(data, mesh, allow_loopback)
    _check_time(facts, now_unix_s)
    if any(node in revoked for node in (facts.node, *facts.issuers)):
        raise CertificateError("the record is of a node that was expelled, or was admitted by one")
    return announcement


@lru_cache(maxsize=256)  # a change reaches a node several times within a second, by several ways
def _record(data: bytes, mesh: MeshId, allow_loopback: bool) -> tuple[Announcement, CertificateFacts]:  # noqa: FBT001
    """Return what a record says and the certificate behind it, all checked but whether it is good at this moment."""
    sealed = form.read_sealed(data)
    if not verify(sealed.public, sealed.signature, SignedAs.ANNOUNCEMENT.value + id_bytes(mesh) + sealed.body):
        raise CertificateError("the record's signature is wrong")
    facts = _facts(sealed.certificate, mesh)
    announcement = decode_announcement(sealed.body, allow_loopback=allow_loopback)
    if not facts.node == node_id_of(sealed.public) == announcement.node:
        raise CertificateError("the record is signed by another node than it speaks of")
    if announcement.rights & ~facts.rights:  # it may claim fewer: a node can refuse to use one
        raise CertificateError("the record claims rights that the certificate does not give")
    return announcement, facts


# -- signatures ----------------------------------------------------------------------------------------


def _signed(issuer: Issuer, purpose: SignedAs, body: bytes) -> bytes:
    signature = issuer.identity.sign(purpose.value + body)
    public, chain = issuer.identity.public, issuer.certificate or b""
    return form.write(form.Issued(body=body, issuer=public, signature=signature, chain=chain))


def _opened(data: bytes, purpose: SignedAs, mesh: MeshId, room: int) -> tuple[form.Issued, CertificateFacts | None]:
    """Return what the root or an admin signed, with the admin's certificate, or None for the root."""
    issued = form.read_issued(data)
    if not verify(issued.issuer, issued.signature, purpose.value + issued.body):
        raise CertificateError("the signature is wrong")
    if not issued.chain:
        if mesh_id_of(issued.issuer) != mesh:
            raise CertificateError("the issuer is not of this mesh")
        return issued, None
    if room <= 1:
        raise CertificateError("there are too many issuers between this and the root")
    parent = _facts(issued.chain, mesh, room - 1)
    if parent.node != node_id_of(issued.issuer):
        raise CertificateError("the issuer shows another node's certificate")
    if Rights.ADMIN not in parent.rights:
        raise CertificateError("the issuer is no admin")
    return issued, parent
