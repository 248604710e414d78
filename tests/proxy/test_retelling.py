"""The second engine's words become the first one's."""

import json
from typing import Any

import pytest

from meshllm.proxy.resumable import CHAT, Wanted
from meshllm.proxy.retelling import Repeat, Rest
from meshllm.proxy.story_chat import ChatStory

FIRST = {"id": "one", "created": 1, "model": "m", "object": "o", "choices": [{"index": 0, "delta": {"content": "a"}}]}


def a_story(*, is_chat: bool = True, wants_usage: bool = False, **fields: Any) -> ChatStory:
    """Return a story that has begun."""
    story = ChatStory(is_chat=is_chat)
    story.wants_usage = wants_usage
    story.take(json.dumps(FIRST | {"timings": {}} | fields).encode())
    return story


def a_wanted(path: bytes = CHAT, **fields: Any) -> Wanted:
    """Return a question for one text."""
    facts: dict[str, Any] = {
        "document": {}, "is_plain": True, "model": "m", "prompt": "", "most_tokens": None, "stops": (),
        "has_usage": False, "thinks_aloud": False,
    } | fields  # fmt: skip
    return Wanted(path=path, **facts)


def data_of(events: bytes) -> list[Any]:
    """Return the documents of some events."""
    found = [line[6:] for line in events.split(b"\n") if line.startswith(b"data: ")]
    return [one if one == b"[DONE]" else json.loads(one) for one in found]


def said(text: str, **fields: Any) -> bytes:
    """Return an event of a text completion."""
    return json.dumps({"id": "two", "choices": [{"index": 0, "text": text} | fields]}).encode()


def test_every_event_has_what_the_first_one_said_of_all() -> None:
    """Id, time and model; not what was only about that event."""
    assert a_story().base == {key: FIRST[key] for key in ("id", "created", "model", "object")}
    assert ChatStory().base == {}


def test_the_rest_of_a_chat_is_told_as_a_chat() -> None:
    """With why it ended, and how much both engines made."""
    rest = Rest(a_wanted(), a_story(wants_usage=True), 3, None)
    usage = {"prompt_tokens": 13, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 12}}

    (told,) = data_of(rest.tell(said("b")))
    nothing = rest.tell(json.dumps({"choices": [{"text": "", "finish_reason": "stop"}], "usage": usage}).encode())
    reason, amount, done = data_of(rest.ending() or b"")

    assert (told["id"], told["choices"]) == ("one", [{"finish_reason": None, "index": 0, "delta": {"content": "b"}}])
    assert nothing == b""
    assert reason["choices"][0] == {"finish_reason": "stop", "index": 0, "delta": {}}
    assert amount["choices"] == []
    assert amount["usage"] == {
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 10},
    }  # fmt: skip
    assert done == b"[DONE]"


def test_the_rest_of_a_text_is_told_as_a_text() -> None:
    """Its amount stands beside its reason."""
    rest = Rest(a_wanted(b"/v1/completions"), a_story(is_chat=False), 1, None)

    rest.tell(said("b", finish_reason="length"))
    rest.tell(b'{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":1}}')
    last, done = data_of(rest.ending() or b"")

    assert last["choices"] == [{"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert (last["usage"]["total_tokens"], done) == (5, b"[DONE]")


def test_an_end_that_is_known_makes_an_engine_mute() -> None:
    """It is only asked how much the prompt was."""
    rest = Rest(a_wanted(), a_story(wants_usage=True), 3, "length")

    told = rest.tell(said("b", finish_reason="stop"))
    rest.tell(b'{"choices":[],"usage":{"prompt_tokens":13,"completion_tokens":1}}')
    reason, amount, _ = data_of(rest.ending() or b"")

    assert told == b""
    assert reason["choices"][0]["finish_reason"] == "length"
    assert amount["usage"]["completion_tokens"] == 3


def test_a_text_that_just_ends_has_no_ending() -> None:
    """The engine broke off in good order; that is an error all the same."""
    assert Rest(a_wanted(), a_story(), 3, None).ending() is None


@pytest.mark.parametrize("event", [b"{", b'{"error":{"message":"m"}}'])
def test_what_is_wrong_is_kept_and_not_told(event: bytes) -> None:
    """Nothing that follows can make it good."""
    for retelling in (Rest(a_wanted(), a_story(), 3, None), Repeat(ChatStory())):
        told = retelling.tell(event)

        assert (told, retelling.error) == (b"", event)


def test_a_repeated_answer_opens_once() -> None:
    """Everything but its opening is told, under the first id."""
    story = a_story(choices=[{"index": 0, "delta": {"role": "assistant", "content": None}}])
    opening = b'{"id":"two","choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}'
    word = b'{"id":"two","choices":[{"index":0,"delta":{"content":"b"}}]}'
    repeat = Repeat(story)

    told = [repeat.tell(event) for event in (opening, word, b"[DONE]")]

    assert told[0] == b""
    assert data_of(told[1])[0]["id"] == "one"
    assert told[2] == b"data: [DONE]\n\n"
    assert (story.text, story.is_done, repeat.ending()) == ("b", True, b"")
    assert data_of(Repeat(ChatStory()).tell(opening))[0]["id"] == "two"
