"""What is kept of a stream tells what its client has, and no more than that is kept."""

import json
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.proxy.framing import chunk
from meshllm.proxy.journal import Journal, events_of
from meshllm.proxy.story_chat import ChatStory


def an_event(text: str = "", **fields: Any) -> bytes:
    """Return the data of one event of a chat."""
    choice = {"index": 0, "delta": {"content": text}} | fields
    return json.dumps({"id": "a", "created": 1, "model": "m", "choices": [choice]}).encode()


def a_piece(*events: bytes) -> bytes:
    """Return a chunk with some events."""
    return chunk(b"".join(b"data: %b\n\n" % event for event in events))


def test_a_journal_tells_what_its_pieces_say() -> None:
    """Text, first event, reason and end; comments are nothing."""
    journal = Journal(ChatStory())

    journal.keep(a_piece(an_event("Zo"), an_event("ë")))
    journal.keep(chunk(b": waiting\n\n") + a_piece(an_event(" 🐈", finish_reason="stop")))
    open_story = (journal.story().text, journal.story().reason, journal.story().is_done)
    journal.keep(a_piece(b"[DONE]"))

    assert open_story == ("Zoë 🐈", "stop", False)
    assert journal.story().is_done
    assert journal.story().has_opened
    assert not journal.story().is_odd


def test_a_text_completion_is_a_story_too() -> None:
    """Its text stands elsewhere."""
    journal = Journal(ChatStory())

    journal.keep(a_piece(b'{"choices":[{"index":0,"text":"a"}]}', b'{"choices":[],"usage":{"prompt_tokens":1}}'))

    assert (journal.story().text, journal.story().has_usage) == ("a", True)


@pytest.mark.parametrize(
    "event",
    [
        b"{", b'{"n":1}', b'{"error":{"message":"m"}}', an_event(index=1), an_event(logprobs={"content": []}),
        an_event(delta={"tool_calls": [{}]}),
        an_event(delta={"audio": {"id": "x"}}),
    ],
)  # fmt: skip
def test_what_is_no_plain_text_is_odd(event: bytes) -> None:
    """Nobody can go on with it."""
    story = ChatStory()

    story.take(event)

    assert story.is_odd


def test_a_long_stream_is_kept_as_text_and_up_to_the_limit() -> None:
    """The wire has a hundred bytes for each word; beyond the limit nothing is kept."""
    journal, word = Journal(ChatStory()), "x" * 1000
    piece = a_piece(an_event(word))

    for _ in range(limits.STREAM_JOURNAL_BYTES // 1000):
        journal.keep(piece)
    full = len(journal.story().text)
    for _ in range(100):
        journal.keep(piece)

    assert full == limits.STREAM_JOURNAL_BYTES // 1000 * 1000
    assert journal.story().is_odd
    assert journal.story().text == ""


def test_events_of_a_payload() -> None:
    """With either line end."""
    assert events_of(b"data: 1\n\n: c\n\nevent: x\r\ndata:2\r\n\r\n") == [b"1", b"2"]
