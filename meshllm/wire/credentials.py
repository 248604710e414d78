"""Signed things as bytes: certificates, records and revocations, each a body with its signature beside it.

Owns their forms and the words that each signature begins with, so that none can be taken for another. Decides what has
the right form. Doesn't know keys: signing and checking are `transport.certificates`'s.
"""

from dataclasses import dataclass
from enum import Enum

from meshllm.core.limits import CERTIFICATE_BYTES, MSGPACK_BINARY_BYTES
from meshllm.wire.ids import ID_BYTES
from meshllm.wire.names import check_node_name, check_text
from meshllm.wire.packing import malformed, pack, read

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
CERTIFICATE_VERSION = 1


class SignedAs(Enum):
    """What a signature is for: the bytes that stand before what is signed."""

    CERTIFICATE = b"meshllm/1 certificate\0"
    ANNOUNCEMENT = b"meshllm/1 announcement\0"
    REVOCATION = b"meshllm/1 revocation\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateBody:
    """What an issuer signs of a node. Times are Unix seconds."""

    v: int
    mesh: bytes
    node: bytes
    rights: int
    name: str
    serial: int
    not_before: int
    not_after: int
    delegated_until: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationBody:
    """What an admin signs of a node that is expelled."""

    mesh: bytes
    node: bytes
    at: int
    until: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate or revocation: a body, signed by the root or by an admin."""

    body: bytes
    issuer: bytes
    """The issuer's public key."""
    signature: bytes
    chain: bytes = b""
    """The issuer's own certificate; empty when the issuer is the root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRecord:
    """An announcement, signed by its owner."""

    body: bytes
    public: bytes
    """The owner's public key."""
    signature: bytes
    certificate: bytes


def read_issued(data: bytes) -> Issued:
    """Return the parts of a certificate or revocation. Raises WireError."""
    issued = read(data, Issued, CERTIFICATE_BYTES)
    check_sizes((issued.issuer, PUBLIC_BYTES), (issued.signature, SIGNATURE_BYTES))
    return issued


def read_certificate_body(body: bytes) -> CertificateBody:
    """Return what a certificate says. Raises WireError."""
    said = read(body, CertificateBody, CERTIFICATE_BYTES)
    check_sizes((said.mesh, ID_BYTES), (said.node, ID_BYTES))
    check_node_name(said.name)
    if said.v != CERTIFICATE_VERSION or said.not_after < said.not_before:
        raise malformed("not a certificate of version 1 with a life")
    return said


def read_revocation_body(body: bytes) -> RevocationBody:
    """Return what a revocation says. Raises WireError."""
    said = read(body, RevocationBody, CERTIFICATE_BYTES)
    check_sizes((said.mesh, ID_BYTES), (said.node, ID_BYTES))
    check_text(said.reason)
    return said


def read_sealed(data: bytes) -> SealedRecord:
    """Return the parts of a signed record. Raises WireError."""
    sealed = read(data, SealedRecord, MSGPACK_BINARY_BYTES)
    check_sizes((sealed.public, PUBLIC_BYTES), (sealed.signature, SIGNATURE_BYTES))
    return sealed


def write(value: CertificateBody | RevocationBody | Issued | SealedRecord) -> bytes:
    """Return one of these as bytes."""
    return pack(value)


def check_sizes(*sized: tuple[bytes, int]) -> None:
    """Refuse keys, ids and signatures of another length than theirs. Raises WireError."""
    if any(len(data) != size_bytes for data, size_bytes in sized):
        raise malformed("a key, an id or a signature of a wrong length")
