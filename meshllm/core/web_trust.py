"""What people are told where the certificate of a server on the web is refused.

Owns the sentence, which names the cause. Decides whether a setting would help: it does where nobody who is trusted has
issued the certificate, and not where it has expired or belongs to another host. Doesn't know connections, nor who asks.
"""

from typing import Final

SETTING: Final = "SSL_CERT_FILE"
"""The environment variable that names a file of the authorities to trust, for OpenSSL and whatever is built on it."""
_NO_ISSUER: Final = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's X509_V_ERR numbers (x509_vfy.h) where no issuer is known, or the certificate is its own."""


def refused_certificate(whose: str, words: str, code: int, named: str) -> str:
    """Return why the certificate of a server was refused: OpenSSL's `words` and `code`; `named` as the setting says."""
    said = f"the certificate of {whose} is not trusted: {words}"
    if code not in _NO_ISSUER:
        return said
    if named:
        return f"{said}; {SETTING}={named} has nobody who issued it"
    return f"{said}; {SETTING} can name a file with those to trust"
