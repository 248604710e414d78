"""Streams of Anthropic's messages, read and gone on with."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.proxy.journal import Amount
from meshllm.proxy.story_messages import MessageStory

START = {"type": "message_start", "message": {"id": "a"}}
OPEN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
WORD = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
THINK = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
THOUGHT = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}
AMOUNT = Amount(read=None, cached=0, made=5)


def a_story(*documents: dict[str, Any]) -> MessageStory:
    """Return a story that has said so much."""
    story = MessageStory()
    for document in documents:
        story.take(json.dumps(document).encode())
    return story


def types_in(events: bytes) -> list[tuple[str, int | None]]:
    """Return what kinds of events there are, and about which blocks."""
    documents = [json.loads(line[6:]) for line in events.split(b"\n") if line.startswith(b"data: ")]
    return [(document["type"], document.get("index")) for document in documents]


def test_text_behind_thoughts_ends_these_with_a_signature() -> None:
    """Each block has the next number, and is opened and closed once."""
    story = a_story(START, THINK, THOUGHT)

    said, end = story.speak("a"), story.end("length", AMOUNT, 0)

    assert types_in(said) == [
        ("content_block_delta", 0), ("content_block_stop", 0), ("content_block_start", 1), ("content_block_delta", 1),
    ]  # fmt: skip
    assert types_in(end) == [("content_block_stop", 1), ("message_delta", None), ("message_stop", None)]
    assert b'"max_tokens"' in end
    assert b'"output_tokens":5' in end
    assert (story.thoughts, story.text, story.is_done, story.is_odd) == ("hm", "a", True, False)


def test_a_text_that_was_closed_is_over() -> None:
    """Why is not known yet; then it is, and only the last event is missing."""
    story = a_story(START, OPEN, WORD, {"type": "content_block_stop", "index": 0})
    open_reason = (story.is_closed, story.reason)
    story.take(json.dumps({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}).encode())

    assert open_reason == (True, None)
    assert (story.reason, story.has_usage) == ("stop", True)
    assert types_in(story.end("stop", AMOUNT, 0)) == [("message_stop", None)]


@pytest.mark.parametrize(
    "document",
    [
        {"type": "error", "error": {}}, {"type": "something"}, OPEN | {"index": 3}, WORD | {"index": 1},
        OPEN | {"index": 1, "content_block": {"type": "tool_use"}}, OPEN | {"index": 1},
        WORD | {"delta": {"type": "input_json_delta"}}, {"type": "content_block_stop", "index": 1}, {"a": 1},
    ],
)  # fmt: skip
def test_what_is_no_plain_text_is_odd(document: dict[str, Any]) -> None:
    """Nobody can go on with it."""
    assert a_story(START, OPEN, WORD, document).is_odd
    assert not a_story(START, OPEN, WORD, {"type": "ping"}).is_odd


def test_a_repeated_answer_begins_once() -> None:
    """A block that is open stays open; another one in its place does not fit."""
    story = a_story(START, OPEN)

    told = [story.repeat(json.dumps(event).encode()) for event in (START, THINK, OPEN, WORD, {"type": "error"})]

    assert [one if not one else types_in(one) for one in told] == [
        b"", None, b"", [("content_block_delta", 0)], None,
    ]  # fmt: skip
    assert story.text == "a"
    assert story.repeat(b"{") is None


_ANY = st.none() | st.integers(-2, 2) | st.sampled_from([*[one.get(key) for one in (OPEN, WORD, THINK, THOUGHT)
    for key in ("content_block", "delta")], "text", {}])  # fmt: skip
_EVENTS = st.dictionaries(st.sampled_from(["index", "content_block", "delta", "usage", "message"]), _ANY, max_size=4)
_TYPES = [*(document["type"] for document in (START, OPEN, WORD)), "content_block_stop", "message_delta", "ping", 3]


@given(st.lists(st.tuples(st.sampled_from(_TYPES), _EVENTS, st.booleans()), max_size=6))
def test_whatever_an_engine_says_is_read_or_odd(events: list[tuple[object, dict[str, Any], bool]]) -> None:
    """It is another process, perhaps of another version: nothing of it is a mistake of ours."""
    story = a_story(START, OPEN)

    for kind, document, is_repeated in events:
        event = json.dumps({**document, "type": kind}).encode()
        if is_repeated:
            story.repeat(event)
        else:
            story.take(event)

    assert types_in(story.end("stop", AMOUNT, 0))[-1] == ("message_stop", None)
