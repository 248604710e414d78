"""Streams of every door survive their engines, thoughts and all: one answer, of one grammar."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.proxy.builders import House, Reply, a_chat, a_post
from tests.proxy.storyteller import PROMPT_TOKENS, STORY, THOUGHTS, TOKENS, TURN, Teller
from tests.proxy.teller_doors import Read, read_chat, read_message, read_response
from tests.proxy.tunnels import FIRST, SECOND, THIRD, FarHalf, Half, a_mesh

BEHIND_A_MARK = f"{TURN}<think>\n"


@dataclass(frozen=True)
class Door:
    """One of the doors, and how it is read."""

    path: str
    body: dict[str, Any]
    reads: Callable[[Reply], Read]
    whole: str
    """Why a whole story ends."""

    async def ask(self, entry: House, **fields: Any) -> Read:
        """Ask for the story as a stream."""
        return self.reads(await entry.ask(a_post(self.body | {"stream": True} | fields, self.path)))


CHAT = Door(
    "/v1/chat/completions", a_chat(stream_options={"include_usage": True}), read_chat, "stop"
)  # fmt: skip
MESSAGES = Door("/v1/messages", a_chat(max_tokens=200, system="Be kind."), read_message, "end_turn")
RESPONSES = Door(
    "/v1/responses", {"model": "tiny", "input": "Tell.", "instructions": "Be kind."}, read_response, "completed"
)  # fmt: skip
HOW = ("between", "behind")
DOORS = pytest.mark.parametrize("door", [CHAT, MESSAGES, RESPONSES], ids=lambda door: door.path)


def a_teller(thinks: str = "", **fields: Any) -> Teller:
    """Return a teller that does not think, or thinks between marks, or behind the mark of its prompt."""
    if thinks == "behind":
        fields["turn"] = BEHIND_A_MARK
    return Teller(thinks=bool(thinks), is_numbered=True, **fields)


NEW_DOORS = pytest.mark.parametrize("door", [MESSAGES, RESPONSES], ids=lambda door: door.path)
CASES = pytest.mark.parametrize(
    ("door", "thinks"),
    [(MESSAGES, ""), (RESPONSES, ""), *((door, how) for door in (CHAT, MESSAGES, RESPONSES) for how in HOW)],
    ids=lambda case: case.path if isinstance(case, Door) else case or "nothing",
)


@CASES
async def test_after_whichever_event_an_engine_is_lost_the_answer_is_the_same(door: Door, thinks: str) -> None:
    """Every one of them, from the first to the last: no gap, no repetition, one id, all numbers in a row."""
    async with a_mesh(a_teller(thinks)) as (entry, _):
        whole = await door.ask(entry)
    made, resumed = len(a_teller(thinks).tokens), 0

    assert (whole.text, whole.thoughts, whole.amount) == (STORY, THOUGHTS if thinks else "", (PROMPT_TOKENS, made))
    assert (whole.reason, whole.is_whole) == (door.whole, True)
    for after in range(1, made + 10):
        async with a_mesh(a_teller(thinks, breaks_after=[after]), a_teller(thinks)) as (entry, _):
            read = await door.ask(entry)

        resumed += len(read.comments)
        read.comments.clear()
        assert (after, read) == (after, whole)
    assert resumed >= len(TOKENS)


@CASES
async def test_wherever_tunnels_are_cut_twice_the_answer_is_the_same(door: Door, thinks: str) -> None:
    """In a character as well, and again in the words that go on."""
    rng = random.Random(f"{door.path} {thinks}")
    for _ in range(8):
        async with a_mesh(*(a_teller(thinks) for _ in range(3))) as (entry, _mesh):
            cuts = iter((rng.randrange(600, 9000), *[None] * rng.randrange(2, 4), rng.randrange(600, 9000)))

            def fault(_: Half, far: FarHalf, cuts: Iterator[int | None] = cuts) -> None:
                far.cut_after = next(cuts, None)

            _mesh.faults = dict.fromkeys((FIRST, SECOND, THIRD), fault)
            read = await door.ask(entry)

        assert (read.text, read.thoughts) == (STORY, THOUGHTS if thinks else "")
        assert (read.is_whole, read.amount) == (True, (PROMPT_TOKENS, len(a_teller(thinks).tokens)))


@NEW_DOORS
async def test_no_more_is_said_than_was_asked_for(door: Door) -> None:
    """What was said before the seam counts, whether the text or its end was lost."""
    for after in (5, 12, 13, 14):
        async with a_mesh(a_teller(breaks_after=[after]), a_teller()) as (entry, _):
            read = await door.ask(entry, **{"max_tokens" if door is MESSAGES else "max_output_tokens": 10})

        assert (read.text, read.amount, read.is_whole) == ("".join(TOKENS[:10]), (PROMPT_TOKENS, 10), True)
        assert read.reason in {"max_tokens", "completed"}


@NEW_DOORS
async def test_a_stop_sequence_is_found_across_the_seam(door: Door) -> None:
    """Messages have another name for it."""
    name = "stop_sequences" if door is MESSAGES else "stop"
    for after in range(33, 39):
        async with a_mesh(a_teller(breaks_after=[after], is_hasty=True), a_teller()) as (entry, _):
            read = await door.ask(entry, **{name: ["never", "\\n. END"]})

        assert read.text in {"".join(TOKENS[:30]) + begun for begun in ("", " ", " \\", " \\n", " \\n.")}
        assert (read.is_whole, read.reason) == (True, door.whole)


@NEW_DOORS
@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "name": "f", "input_schema": {}}]},
        {"grammar": 'root ::= "a"'},
        {"resume": False},
        {
            "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Once"}],
            "input": [{"role": "user", "content": "a"}, {"type": "message", "role": "assistant", "content": "Once"}],
        },
        {
            "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "b"}]}],
            "input": [{"type": "function_call", "call_id": "a", "name": "b", "arguments": "{}"}],
        },
    ],
    ids=["tools", "grammar", "not wanted", "half an answer", "calls"],
)
async def test_what_is_more_than_a_text_ends_with_one_error(door: Door, fields: dict[str, Any]) -> None:
    """Nobody else can go on with it, and its reader is told so."""
    async with a_mesh(a_teller(breaks_after=[9]), a_teller()) as (entry, mesh):
        read = await door.ask(entry, **fields)

    assert read.text
    assert STORY.startswith(read.text)
    assert (read.is_whole, mesh.asked) == (False, [FIRST])
    assert read.error["message"].startswith("the host")


@NEW_DOORS
async def test_whatever_was_asked_begins_anew_while_nothing_was_said(door: Door) -> None:
    """The client has an id and perhaps an empty block; they stay, and tools do not matter."""
    tools = [{"type": "function", "name": "f", "input_schema": {}}]
    for after in range(1, 3 if door is MESSAGES else 5):
        async with a_mesh(a_teller(breaks_after=[after]), a_teller()) as (entry, mesh):
            read = await door.ask(entry, tools=tools)

        assert (read.text, read.is_whole, read.amount) == (STORY, True, (PROMPT_TOKENS, len(TOKENS)))
        assert mesh.asked == [FIRST, SECOND]


@DOORS
async def test_thoughts_whose_marks_are_not_known_are_not_continued(door: Door) -> None:
    """A model that marks them in another way would be put words into its mouth."""
    async with a_mesh(a_teller("between", breaks_after=[9]), a_teller("between", has_mark=False)) as (entry, _):
        read = await door.ask(entry)

    assert "how the model marks its thoughts" in read.error["message"]
    assert THOUGHTS.startswith(read.thoughts)
    assert not read.is_whole


@NEW_DOORS
async def test_thoughts_with_a_bound_of_their_own_are_continued_when_they_are_over(door: Door) -> None:
    """How much of it was left, the engine that is gone alone knew."""
    fields = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    async with a_mesh(a_teller("between", breaks_after=[9]), a_teller("between")) as (entry, _):
        thinking = await door.ask(entry, **fields)
    async with a_mesh(a_teller("between", breaks_after=[30]), a_teller("between")) as (entry, _):
        telling = await door.ask(entry, **fields)

    assert (bool(thinking.error), thinking.text) == (True, "")
    assert (telling.text, telling.thoughts, telling.is_whole) == (STORY, THOUGHTS, True)
