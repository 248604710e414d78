"""A node's key: what it is known by, signs with, and shows as its TLS certificate.

Owns Ed25519 keys and the ids made from them. Decides nothing. Doesn't know files: whoever keeps the key writes `to_pem`
somewhere that only the user can read.
"""

import datetime as dt
import hashlib
from functools import cached_property, lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from meshllm.core.ids import MeshId, NodeId
from meshllm.wire.ids import id_text

TLS_NAME = "meshllm"
"""What every node is called in TLS, so that an observer learns nothing from it."""
_TLS_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_TLS_UNTIL = dt.datetime(2120, 1, 1, tzinfo=dt.UTC)
"""TLS shows the key; how long it is a member's is the membership certificate's to say."""


class IdentityError(Exception):
    """A file that should hold a node's key does not."""


class Identity:
    """An Ed25519 key with what follows from it. `node` is its id, `public` its 32 public bytes."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        """Take a key."""
        self.private_key = private_key
        self.public = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.node = node_id_of(self.public)

    @classmethod
    def generate(cls) -> "Identity":
        """Make a key that nobody has had before."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, data: bytes) -> "Identity":
        """Return the key in a PEM file. Raises IdentityError, in words for people."""
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError) as error:  # TypeError: it has a password
            raise IdentityError("the key file is damaged, or it is not an unencrypted PEM key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError("the key file holds another kind of key than Ed25519")
        return cls(key)

    def to_pem(self) -> bytes:
        """Return the private key as PEM (PKCS 8), unencrypted."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of a signature."""
        return self.private_key.sign(data)

    @cached_property
    def tls_certificate(self) -> x509.Certificate:
        """Return a self-signed certificate that carries the public key and says nothing else."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, TLS_NAME)])
        builder = x509.CertificateBuilder(
            issuer_name=name, subject_name=name, public_key=self.private_key.public_key(),
            serial_number=x509.random_serial_number(), not_valid_before=_TLS_FROM, not_valid_after=_TLS_UNTIL,
        )  # fmt: skip
        return builder.sign(self.private_key, algorithm=None)


def node_id_of(public: bytes) -> NodeId:
    """Return the id of the node with this public key."""
    return NodeId(id_text(hashlib.sha256(public).digest()))


def mesh_id_of(root_public: bytes) -> MeshId:
    """Return the id of the mesh with this root public key."""
    return MeshId(id_text(hashlib.sha256(root_public).digest()))


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Tell whether the holder of a key signed these bytes."""
    try:
        _loaded(public).verify(signature, data)
    except (InvalidSignature, ValueError):  # ValueError: no point on the curve, or not 32 bytes
        return False
    return True


@lru_cache(maxsize=1024)
def _loaded(public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public)
