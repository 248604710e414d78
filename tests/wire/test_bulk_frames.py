"""What is said on the bulk plane: form and limits."""

import pytest

from meshllm.core.limits import BULK_FRAME_BYTES, BULK_PIECE_BYTES
from meshllm.wire.bulk_frames import (
    BulkStep,
    Join,
    Piece,
    Purpose,
    Ready,
    Refused,
    Want,
    decode_bulk,
    encode_bulk,
    refused,
)
from meshllm.wire.errors import WireError
from meshllm.wire.packing import pack

DIGEST = "sha256:" + "0a" * 32
STEPS = (
    Purpose(use="file"), Ready(), Want(digest=DIGEST, offset=0, length=BULK_PIECE_BYTES),
    Piece(offset=5, length=1, size_bytes=6), Refused(code="not_here", message="no such file"),
    Join(model="big", epoch=7),
)  # fmt: skip


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_what_is_said_arrives(step: BulkStep) -> None:
    """Every step comes out as it went in."""
    assert decode_bulk(encode_bulk(step)) == step


@pytest.mark.parametrize(
    "content",
    [
        {"k": "want", "digest": DIGEST, "offset": 0, "length": 0},
        {"k": "want", "digest": DIGEST, "offset": 0, "length": BULK_PIECE_BYTES + 1},
        {"k": "want", "digest": DIGEST, "offset": -1, "length": 1},
        {"k": "want", "digest": "", "offset": 0, "length": 1},
        {"k": "want", "digest": "../../etc/passwd", "offset": 0, "length": 1},
        {"k": "want", "offset": 0, "length": 1},
        {"k": "piece", "offset": 6, "length": 1, "size_bytes": 6},
        {"k": "piece", "offset": 0, "length": BULK_PIECE_BYTES + 1, "size_bytes": 2**40},
        {"k": "purpose", "use": "File; rm"},
        {"k": "refused", "code": "no", "message": "x" * 1000},
        {"k": "refused", "code": "no", "message": "\x1b[2J"},
        {"k": "join", "model": "", "epoch": 1},
        {"k": "join", "model": "big", "epoch": 0},
        {"k": "join", "model": "big", "epoch": 2**60},
        {"k": "join", "model": "big", "epoch": "1"},
        {"k": "other"},
        {"k": 7},
        {},
    ],
    ids=repr,
)
def test_what_nobody_says_is_refused(content: dict[str, object]) -> None:
    """Lengths, digests, words and texts have bounds."""
    with pytest.raises(WireError):
        decode_bulk(pack(content))


def test_a_payload_has_a_bound() -> None:
    """Nobody sends kilobytes to ask for a piece."""
    with pytest.raises(WireError):
        decode_bulk(bytes(BULK_FRAME_BYTES + 1))


def test_a_refusal_is_made_to_fit() -> None:
    """What this node says others take, whatever is in the text."""
    said = refused("not_here", "a\nb" + "x" * 1000)

    assert decode_bulk(encode_bulk(said)) == said
