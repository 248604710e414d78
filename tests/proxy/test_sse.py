"""What the front door itself says inside a stream."""

import json

from meshllm.proxy import sse


def test_a_comment_is_one_line() -> None:
    """A line end inside would begin an event."""
    assert sse.comment("waiting:\r\n\ndata: x") == b": waiting: data: x\n\n"


def test_an_error_is_one_event() -> None:
    """OpenAI's SDK raises on the first, Anthropic's on the second."""
    assert sse.error_event(b"{}") == b"data: {}\n\n"
    assert sse.anthropic_error_event(b"{}") == b"event: error\ndata: {}\n\n"


def test_a_ping_is_an_event_whose_document_says_so() -> None:
    """Anthropic's SDK reads the type from the document."""
    name, _, data = sse.anthropic_ping().decode().partition("\n")

    assert name == "event: ping"
    assert json.loads(data.removeprefix("data: ").removesuffix("\n\n")) == {"type": "ping"}
