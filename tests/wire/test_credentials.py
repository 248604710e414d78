"""The forms of what is signed; whether it is signed well is tested in tests/transport/test_certificates.py."""

from dataclasses import replace

import pytest

from meshllm.core.limits import CERTIFICATE_BYTES
from meshllm.wire import credentials as form
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.packing import pack, plain

BODY = form.CertificateBody(
    v=1, mesh=b"m" * 32, node=b"n" * 32, rights=3, name="studio", serial=9, not_before=1, not_after=2
)
REVOCATION = form.RevocationBody(mesh=b"m" * 32, node=b"n" * 32, at=1, until=2, reason="sold")
ISSUED = form.Issued(body=b"body", issuer=b"i" * 32, signature=b"s" * 64, chain=b"chain")
SEALED = form.SealedRecord(body=b"body", public=b"p" * 32, signature=b"s" * 64, certificate=b"certificate")


def test_every_form_comes_back() -> None:
    """There and back again."""
    assert form.read_certificate_body(form.write(BODY)) == BODY
    assert form.read_revocation_body(form.write(REVOCATION)) == REVOCATION
    assert form.read_issued(form.write(ISSUED)) == ISSUED
    assert form.read_sealed(form.write(SEALED)) == SEALED


def test_what_a_newer_program_adds_is_left_out() -> None:
    """The signature is over the bytes, not over what is understood of them."""
    assert form.read_certificate_body(pack({**plain(BODY), "mood": 1})) == BODY


READERS = {
    form.CertificateBody: form.read_certificate_body, form.RevocationBody: form.read_revocation_body,
    form.Issued: form.read_issued, form.SealedRecord: form.read_sealed,
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (BODY, {"v": 0}), (BODY, {"v": 2}), (BODY, {"mesh": b""}), (BODY, {"node": bytes(33)}), (BODY, {"name": ""}),
        (BODY, {"name": "a\nb"}), (BODY, {"not_after": 0}),
        (REVOCATION, {"node": b""}), (REVOCATION, {"mesh": bytes(31)}), (REVOCATION, {"reason": "x" * 300}),
        (REVOCATION, {"reason": "\x1b[2J"}),
        (ISSUED, {"issuer": b""}), (ISSUED, {"signature": bytes(63)}),
        (SEALED, {"public": bytes(31)}), (SEALED, {"signature": b""}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else type(value).__name__,
)  # fmt: skip
def test_a_wrong_form_is_refused(value, changes: dict[str, object]) -> None:
    """Before any signature is computed."""
    with pytest.raises(WireError) as caught:
        READERS[type(value)](form.write(replace(value, **changes)))

    assert caught.value.code is WireCode.MALFORMED


def test_a_large_certificate_is_refused_unread() -> None:
    """Certificates within certificates within certificates."""
    with pytest.raises(WireError) as caught:
        form.read_issued(bytes(CERTIFICATE_BYTES + 1))

    assert caught.value.code is WireCode.FRAME_TOO_LARGE


def test_no_purpose_is_the_beginning_of_another() -> None:
    """A signature for one thing can never be shown for another."""
    values = [purpose.value for purpose in form.SignedAs]

    assert not any(one != two and two.startswith(one) for one in values for two in values)
