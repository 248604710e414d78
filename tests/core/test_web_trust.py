"""Where a certificate is refused people are told why, and of the setting only where it helps."""

import pytest

from meshllm.core.web_trust import refused_certificate


@pytest.mark.parametrize(
    ("code", "named", "end"),
    [
        (20, "", "is not trusted: why; SSL_CERT_FILE can name a file with those to trust"),
        (18, "/ca.pem", "is not trusted: why; SSL_CERT_FILE=/ca.pem has nobody who issued it"),
        (10, "/ca.pem", "is not trusted: why"),
        (62, "", "is not trusted: why"),
    ],
)
def test_the_setting_is_named_where_nobody_trusted_has_issued_it(code: int, named: str, end: str) -> None:
    """No file of authorities makes an expired certificate good, nor one of another host."""
    assert refused_certificate("the server 'box'", "why", code, named) == f"the certificate of the server 'box' {end}"
