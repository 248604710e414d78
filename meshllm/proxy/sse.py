"""Server-sent events as bytes: comments that keep a stream alive, and the one event that ends it in error.

Owns the framing of what the front door itself says inside a stream. Decides nothing. Doesn't know why.
"""

from meshllm.core import limits


def comment(text: str) -> bytes:
    """Return a comment, which clients ignore. Line ends in the text become spaces."""
    return b": %b\n\n" % " ".join(text.split()).encode()


def anthropic_ping() -> bytes:
    """Return the event with which Anthropic keeps a stream alive; it may come anywhere, any number of times."""
    return b'event: ping\ndata: {"type": "ping"}\n\n'


def error_event(document: bytes) -> bytes:
    """Return an error document as one event. OpenAI's SDK raises on it; there must be no `[DONE]` after it."""
    return b"data: %b\n\n" % document[: limits.SSE_LINE_BYTES]


def anthropic_error_event(document: bytes) -> bytes:
    """Return an error document as the named event that Anthropic's SDK raises on."""
    return b"event: error\n" + error_event(document)
