"""Whose certificates a node trusts on the web, where Python's OpenSSL finds none.

Owns the places where systems keep them. Decides by `SSL_CERT_FILE` for this process and its children, so that adopted
servers, collectors, the model hub and the package index are all trusted alike. Doesn't know connections.

Invariant: whoever has named somebody to trust is obeyed, also where what is named is of no use.
"""

import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from meshllm.core.web_trust import SETTING

_FOLDER_SETTING: Final = "SSL_CERT_DIR"
_CERTIFICATE: Final = b"-----BEGIN "
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]")
"""How OpenSSL wants files in a folder to be called."""
_OF_SYSTEMS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora and its kin
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)


def find_trust() -> None:
    """Let this process and its children trust whom the machine trusts; call it before anything asks the web.

    Pythons that were built elsewhere look where this system has nothing, and small images have no certificates at all.
    """
    found = missing_bundle(os.environ, ssl.get_default_verify_paths(), _bundles())
    if found is not None:
        os.environ[SETTING] = str(found)


def missing_bundle(environ: Mapping[str, str], stores: ssl.DefaultVerifyPaths, others: Iterable[Path]) -> Path | None:
    """Return the first of `others` that has certificates; None where OpenSSL has some, or was told where to look."""
    if environ.get(SETTING) or environ.get(_FOLDER_SETTING):
        return None
    if _has_certificates(Path(stores.openssl_cafile)) or _is_store(Path(stores.openssl_capath)):
        return None
    return next(filter(_has_certificates, others), None)


def _bundles() -> Iterator[Path]:
    """Give the bundles of systems, then the one that comes with this program."""
    yield from map(Path, _OF_SYSTEMS)
    import certifi  # noqa: PLC0415 - few machines need it

    yield Path(certifi.where())


def _has_certificates(bundle: Path) -> bool:
    try:
        return _CERTIFICATE in bundle.read_bytes()
    except OSError:
        return False


def _is_store(folder: Path) -> bool:
    try:
        return any(_HASHED.fullmatch(entry.name) for entry in folder.iterdir())
    except OSError:
        return False
