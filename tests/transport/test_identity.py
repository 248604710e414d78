"""Keys and ids."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from meshllm.transport.identity import Identity, IdentityError, mesh_id_of, node_id_of, verify

KNOWN_PEM = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
"""
"""The first secret key of RFC 8032, section 7.1."""
KNOWN_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_a_key_comes_back_from_its_file() -> None:
    """A node stays who it is."""
    identity = Identity.generate()

    again = Identity.from_pem(identity.to_pem())

    assert (again.node, again.public, again.to_pem()) == (identity.node, identity.public, identity.to_pem())


def test_an_id_is_the_hash_of_the_public_key() -> None:
    """Ids outlive versions of this program: a fixed key has a fixed id."""
    identity = Identity.from_pem(KNOWN_PEM)

    assert identity.public == KNOWN_PUBLIC
    assert identity.node == node_id_of(KNOWN_PUBLIC) == "eh7ddx5bksrgcytl7bkai36se4nxx3klnk7elksyq57pi74xeg4q"
    assert mesh_id_of(KNOWN_PUBLIC) == identity.node


def test_a_signature_is_good_for_its_key_and_its_text_only() -> None:
    """Anything else is refused without an exception."""
    mine, other = Identity.generate(), Identity.generate()
    signature = mine.sign(b"text")

    assert verify(mine.public, signature, b"text")
    assert not verify(mine.public, signature, b"texT")
    assert not verify(other.public, signature, b"text")
    assert not verify(mine.public, signature[:-1], b"text")
    assert not verify(mine.public, bytes(64), b"text")
    assert not verify(b"\xff" * 32, signature, b"text")
    assert not verify(b"short", signature, b"text")


def test_the_tls_certificate_carries_the_key_and_nothing_of_the_machine() -> None:
    """An observer learns no name; the key is what the other side pins."""
    identity = Identity.generate()

    certificate = identity.tls_certificate

    carried = certificate.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert carried == identity.public
    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string() == "CN=meshllm"
    certificate.verify_directly_issued_by(certificate)
    assert certificate is identity.tls_certificate


def other_kind() -> bytes:
    """Return a key of another kind."""
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def locked() -> bytes:
    """Return a key that asks for a password."""
    key = Identity.generate().private_key
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 100, KNOWN_PEM[:60], KNOWN_PEM.replace(b"MC4C", b"AAAA"), other_kind(), locked()],
    ids=["empty", "zeros", "cut", "damaged", "other kind", "locked"],
)
def test_what_is_no_key_stops_with_words(data: bytes) -> None:
    """A damaged key is never replaced in silence: that would be another node."""
    with pytest.raises(IdentityError, match="key file"):
        Identity.from_pem(data)
