"""Streams of chats and texts, read and gone on with."""

import json
from typing import Any

import pytest

from meshllm.proxy.journal import Amount
from meshllm.proxy.story_chat import ChatStory, read, usage_of


def an_event(**delta: Any) -> bytes:
    """Return the data of an event of a chat."""
    return json.dumps({"id": "a", "model": "m", "choices": [{"index": 0, "delta": delta}]}).encode()


def test_thoughts_stand_before_the_text() -> None:
    """Both are kept, each for itself."""
    story = ChatStory()

    for delta in ({"reasoning_content": "h"}, {"reasoning_content": "m"}, {"content": "a"}):
        story.take(an_event(**delta))

    assert (story.thoughts, story.text, story.is_odd, story.has_begun) == ("hm", "a", False, True)


def test_thoughts_behind_text_are_odd() -> None:
    """No prompt has a place for them."""
    story = ChatStory()

    story.take(an_event(content="a"))
    story.take(an_event(reasoning_content="hm"))

    assert story.is_odd


def test_more_is_said_in_events_of_the_same_name() -> None:
    """And belongs to the story."""
    story = ChatStory()
    story.take(an_event(content="a"))

    thought, word = (json.loads(event[6:]) for event in (ChatStory.think(story, ""), story.speak("b")))

    assert (thought["id"], word["id"], word["choices"][0]["delta"], story.text) == ("a", "a", {"content": "b"}, "ab")


@pytest.mark.parametrize("event", [b"{", b'{"choices":null}', b'{"choices":[],"error":{}}'])
def test_what_is_none_of_these_streams_is_not_read(event: bytes) -> None:
    """Errors and nonsense."""
    assert read(event) is None


def test_an_amount_that_nobody_knows_is_not_told() -> None:
    """Half of it would be wrong."""
    assert usage_of(Amount(read=None, cached=0, made=3)) is None
