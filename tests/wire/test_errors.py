"""The error that everything in wire raises."""

from meshllm.wire.errors import WireCode, WireError


def test_error_says_code_and_reason() -> None:
    """The code is for programs and peers, the words for the log."""
    error = WireError(WireCode.TRUNCATED, "the stream ended 3 bytes into a frame")

    assert error.code == "truncated"
    assert str(error) == "truncated: the stream ended 3 bytes into a frame"
