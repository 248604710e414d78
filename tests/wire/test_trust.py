"""Tokens and revocations in a file."""

import json
from dataclasses import replace

import pytest

from meshllm.core.credentials import Revocation
from meshllm.core.ids import TokenId
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.trust import check_token, kept_trust, read_trust
from tests.wire.test_codec import OTHER_TOKEN, REVOCATION, TOKEN, open_revocation


def test_what_is_kept_comes_back_through_json() -> None:
    """A node that restarts knows its tokens and who was expelled."""
    document = json.loads(json.dumps(kept_trust([TOKEN, OTHER_TOKEN], [REVOCATION])))

    assert read_trust(document, open_revocation) == ((TOKEN, OTHER_TOKEN), (REVOCATION,))


def test_a_first_start_knows_nothing() -> None:
    """An empty document is one, too."""
    assert read_trust({}, open_revocation) == ((), ())


def test_a_revocation_that_no_admin_signed_is_left_out() -> None:
    """Whoever writes into the file gains nothing by it."""
    forged = Revocation(node=REVOCATION.node, by=None, at_unix_s=0.0, until_unix_s=1.0, sealed=b"forged")

    assert read_trust(kept_trust([], [forged, REVOCATION]), open_revocation) == ((), (REVOCATION,))


@pytest.mark.parametrize(
    "document",
    [
        {"tokens": 1}, {"tokens": [{}]}, {"revocations": [1]}, {"revocations": ["not base64!"]},
        {"revocations": ["\ud800"]},
        kept_trust([replace(TOKEN, secret_hash=b"")], []),
    ],
    ids=ascii,
)  # fmt: skip
def test_a_document_that_is_none_is_told(document: dict[str, object]) -> None:
    """The daemon puts such a file aside."""
    with pytest.raises(WireError) as caught:
        read_trust(document, open_revocation)

    assert caught.value.code is WireCode.MALFORMED


def test_a_good_record_passes() -> None:
    """And a bad id does not."""
    check_token(OTHER_TOKEN)

    with pytest.raises(WireError):
        check_token(replace(TOKEN, token_id=TokenId("F" * 16)))
