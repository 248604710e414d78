"""Streams of OpenAI's responses, read and gone on with."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.proxy.journal import Amount
from meshllm.proxy.story_responses import ResponseStory

CREATED = {"type": "response.created", "response": {"id": "resp_a"}}
ITEM = {"type": "response.output_item.added", "item": {"type": "message", "id": "msg_a"}}
PART = {"type": "response.content_part.added", "item_id": "msg_a", "part": {}}
WORD = {"type": "response.output_text.delta", "item_id": "msg_a", "delta": "a"}
THINK = {"type": "response.output_item.added", "item": {"type": "reasoning", "id": "rs_a"}}
THOUGHT = {"type": "response.reasoning_text.delta", "item_id": "rs_a", "delta": "hm"}
AMOUNT = Amount(read=3, cached=1, made=5)


def a_story(*documents: dict[str, Any], is_numbered: bool = False) -> ResponseStory:
    """Return a story that has said so much."""
    story = ResponseStory("m")
    for number, document in enumerate(documents):
        more = {"sequence_number": number, "output_index": 0} if is_numbered else {}
        story.take(json.dumps(document | more).encode())
    return story


def documents_in(events: bytes) -> list[dict[str, Any]]:
    """Return the documents of some events."""
    return [json.loads(line[6:]) for line in events.split(b"\n") if line.startswith(b"data: ")]


def test_text_behind_thoughts_is_an_item_of_its_own() -> None:
    """It has a name like the others, and everything is said once more in the end."""
    story = a_story(CREATED, THINK, THOUGHT)

    added, part, word = documents_in(story.speak("a"))
    end = documents_in(story.end("stop", AMOUNT, 7))

    assert (added["item"]["id"], part["item_id"], word["item_id"]) == ("msg_a", "msg_a", "msg_a")
    assert [document["type"].removeprefix("response.") for document in end] == [
        "output_item.done", "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    whole = end[-1]["response"]
    assert (whole["id"], whole["created_at"], whole["model"]) == ("resp_a", 7, "m")
    assert [item["content"][0]["text"] for item in whole["output"]] == ["hm", "a"]
    assert (whole["usage"]["input_tokens"], whole["usage"]["total_tokens"]) == (3, 8)
    assert (story.is_done, story.is_odd) == (True, False)


def test_numbers_go_on_where_an_engine_gives_them() -> None:
    """Of events, of items and of their parts."""
    story = a_story(CREATED, ITEM, PART, WORD, is_numbered=True)

    (word,) = documents_in(story.speak("b"))
    end = documents_in(story.end("stop", AMOUNT, 7))

    assert (word["sequence_number"], word["output_index"], word["content_index"]) == (4, 0, 0)
    assert [document["sequence_number"] for document in end] == list(range(5, 9))


def test_what_was_done_is_not_done_twice() -> None:
    """A text whose end was told is over."""
    done = {"type": "response.output_text.done", "item_id": "msg_a", "text": "a"}
    story = a_story(CREATED, ITEM, PART, WORD, done)

    end = documents_in(story.end("stop", Amount(read=None, cached=0, made=1), 7))

    assert story.is_closed
    assert [document["type"] for document in end].count("response.output_text.done") == 0
    assert end[-1]["response"]["usage"] is None


@pytest.mark.parametrize(
    "document",
    [
        {"type": "response.function_call_arguments.delta"}, ITEM, WORD | {"item_id": "other"}, WORD | {"delta": 1},
        WORD | {"logprobs": [{}]}, {"type": "response.output_item.added", "item": {"type": "function_call", "id": "f"}},
        {"error": {}},
    ],
)  # fmt: skip
def test_what_is_no_plain_text_is_odd(document: dict[str, Any]) -> None:
    """Nobody can go on with it."""
    assert a_story(CREATED, ITEM, PART, WORD, document).is_odd


def test_a_repeated_answer_has_the_names_of_the_first_one() -> None:
    """Its beginning is not told again, and what it named anew has one name."""
    story = a_story(CREATED, ITEM, PART)
    other = [json.loads(json.dumps(event).replace("_a", "_b")) for event in (CREATED, ITEM, PART, WORD)]
    whole = {"type": "response.completed", "response": {"id": "resp_b", "output": [{"id": "msg_b"}]}}

    told = [story.repeat(json.dumps(event).encode()) for event in (*other, whole)]

    assert told[:3] == [b"", b"", b""]
    assert documents_in(told[3] or b"") == [WORD]
    assert documents_in(told[4] or b"")[0]["response"] == {"id": "resp_a", "output": [{"id": "msg_a"}]}
    assert story.is_done


@pytest.mark.parametrize("event", [b"{", b'{"type":"error"}', b'{"error":{}}', b'{"type":"response.failed"}', b"[]"])
def test_what_cannot_be_repeated_is_an_error(event: bytes) -> None:
    """And an item of another kind has no place beside an empty one."""
    assert a_story(CREATED).repeat(event) is None
    assert a_story(CREATED, ITEM).repeat(json.dumps(THINK).encode()) is None


_ANY = st.recursive(
    st.none() | st.integers(-2, 2) | st.sampled_from(["msg_a", "rs_a", "message", "reasoning", "resp_a", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["id", "type", "text", "content"]), inner, max_size=3)
    ),
    max_leaves=4,
)
_FIELDS = ("response", "item", "item_id", "delta", "part", "sequence_number", "output_index", "error")
_EVENTS = st.dictionaries(st.sampled_from(_FIELDS), _ANY, max_size=4)
_TYPES = [document["type"] for document in (CREATED, ITEM, PART, WORD, THOUGHT)] + [
    "response.output_item.done", "response.output_text.done", "response.completed", 3,
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(_TYPES), _EVENTS, st.booleans()), max_size=6))
def test_whatever_an_engine_says_is_read_or_odd(events: list[tuple[object, dict[str, Any], bool]]) -> None:
    """It is another process, perhaps of another version: nothing of it is a mistake of ours."""
    story = a_story(CREATED, ITEM, PART)

    for kind, document, is_repeated in events:
        event = json.dumps({**document, "type": kind}).encode()
        if is_repeated:
            story.repeat(event)
        else:
            story.take(event)

    assert documents_in(story.end("stop", AMOUNT, 7))[-1]["type"] == "response.completed"
