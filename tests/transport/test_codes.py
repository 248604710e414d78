"""Numbers on the wire stay what they are, and every one that a peer may send has a name."""

import pytest

from meshllm.transport.codes import CloseCode, StreamCode, StreamKind, close_name, stream_name


def test_numbers_are_those_that_older_nodes_know() -> None:
    """A number that is used again means something else to a node that was not updated."""
    assert [code.name for code in sorted(CloseCode)] == [
        "DONE", "SELF", "AUTH_TIMEOUT", "UNAUTHORIZED", "REPLACED", "LEAVING", "REVOKED", "PROTOCOL", "FRAME_TOO_LARGE",
        "TRUNCATED", "VERSION_MISMATCH", "WRONG_MESH", "ABUSE", "DEAD",
        "SPARE",
    ]  # fmt: skip
    assert [code.name for code in sorted(StreamCode)] == [
        "ENOUGH", "CANCELLED", "UNKNOWN_STREAM", "FORBIDDEN", "MALFORMED", "BUSY", "TIMEOUT", "REPLACED",
        "SPARE",
    ]  # fmt: skip
    assert {kind.name: kind.value for kind in StreamKind} == {"CONTROL": 1, "TUNNEL": 2}


@pytest.mark.parametrize(
    ("code", "is_application", "name"),
    [
        (CloseCode.LEAVING, True, "leaving"),
        (4711, True, "code_4711"),
        (0x12A, False, "wrong_identity"),
        (0x178, False, "version_mismatch"),
        (CloseCode.LEAVING, False, "transport"),
    ],
)
def test_every_close_has_a_name(code: int, is_application: bool, name: str) -> None:
    """What a newer node sends is told as it is; QUIC's own numbers are not taken for ours."""
    assert close_name(code, is_application=is_application) == name


def test_every_end_of_a_stream_has_a_name() -> None:
    """The same for streams."""
    assert (stream_name(StreamCode.FORBIDDEN), stream_name(99)) == ("forbidden", "code_99")
