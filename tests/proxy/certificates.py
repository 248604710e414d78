"""Certificates for servers of tests: for localhost, self-made or issued by an authority that nobody knows."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from ssl import Purpose, SSLContext, create_default_context

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_NAMES = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]


def a_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for localhost and its key; return both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _written(folder / "certificate.pem", _signed("localhost", key, "localhost", key)), _key(folder, key)


def an_issued_certificate(folder: Path, days: int = 1) -> tuple[Path, SSLContext]:
    """Return the file of an authority of its own, and what a server needs that shows a certificate by it.

    With less than one of `days` it has expired.
    """
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _written(folder / "authority.pem", _signed("An authority", root, "An authority", root))
    certificate = _written(folder / "issued.pem", _signed("localhost", key, "An authority", root, days))
    tls = create_default_context(Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, _key(folder, key))
    return authority, tls


def _signed(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, days: int = 1
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(_NAMES), critical=False)
        .add_extension(x509.BasicConstraints(ca=key is signer, path_length=None), critical=True)
    )
    return builder.sign(signer, hashes.SHA256())


def _written(path: Path, certificate: x509.Certificate) -> Path:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


def _key(folder: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    plain, traditional = serialization.NoEncryption(), serialization.PrivateFormat.TraditionalOpenSSL
    path = folder / "key.pem"
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, traditional, plain))
    return path
