"""What of a prompt an engine has cached, as far as others can know."""

import random
import time
from itertools import pairwise

import pytest

from meshllm.core import limits
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.prefix_index import (
    NO_PROMPT,
    PrefixIndex,
    Prompt,
    prompt_of,
    without_attribution,
)

HERE, THERE = (NodeId("here"), ModelId("m")), (NodeId("there"), ModelId("m"))
SYSTEM = ("system", "You are helpful. " * 200)
LINE = "x-anthropic-billing-header: cc_version=2.0.{}; cch={};\n"


def talk(*texts: str) -> Prompt:
    """Return a conversation of long turns under one system text."""
    return prompt_of([SYSTEM, *(("user", text * 1500) for text in texts)])


def taught(index: PrefixIndex, prompt: Prompt, life: str = "1") -> None:
    """Send a prompt and let it be answered."""
    expected = index.sent(HERE, life, prompt)
    index.answered(HERE, life, expected, expected.size_bytes)


def test_equal_beginnings_have_equal_blocks() -> None:
    """A conversation that goes on begins like the one before it."""
    before, after, other = talk("a", "b"), talk("a", "b", "c"), talk("x", "b")

    assert after.blocks[: len(before.blocks)] == before.blocks
    assert len(before.blocks) < len(after.blocks)
    shared = sum(one == two for one, two in zip(before.blocks, other.blocks, strict=False))
    assert len(SYSTEM[1]) - 256 <= before.bytes_to(shared) <= len(SYSTEM[1])


def test_blocks_are_fine_at_the_beginning_and_end_at_a_limit() -> None:
    """Short prompts matter too; very long ones cost no more than a megabyte."""
    prompt = prompt_of([("user", "x" * (3 * limits.MIB))])
    ends = [prompt.bytes_to(count) for count in range(len(prompt.blocks) + 1)]

    assert prompt.bytes_to(1) == 256
    assert ends[-1] == limits.PREFIX_BYTES
    assert all(first < second <= first + 4096 for first, second in pairwise(ends))
    assert prompt.size_bytes >= 3 * limits.MIB


def test_a_prompt_without_a_whole_block_has_none() -> None:
    """There is nothing to find."""
    assert prompt_of([("user", "hi")]).blocks == NO_PROMPT.blocks == ()
    assert PrefixIndex().longest(HERE, "1", NO_PROMPT) == 0


def test_text_that_is_no_text_is_hashed_all_the_same() -> None:
    """JSON can say half a character."""
    assert len(prompt_of([("user", "\ud83d" * 300)]).blocks) > 0


def test_lines_that_a_client_changes_at_every_call_do_not_count() -> None:
    """Claude Code puts one for billing before everything else."""
    first, second = (
        prompt_of([("system", LINE.format(number, number * 7) + SYSTEM[1]), ("user", "hello")]) for number in (1, 2)
    )

    assert first.blocks == second.blocks
    assert len(first.blocks) > 5


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (LINE.format(1, 2) + "You are", "You are"),
        ("X-Some-Attribution-Header: abc", ""),
        ("You are x-anthropic-billing-header: no", "You are x-anthropic-billing-header: no"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_only_a_first_line_for_attribution_is_left_out(text: str, left: str) -> None:
    """Everything else is the prompt."""
    assert without_attribution(text) == left


def test_what_was_sent_is_found_as_far_as_it_is_the_same() -> None:
    """At the engine that got it, and nowhere else."""
    index = PrefixIndex()
    taught(index, talk("a", "b"))

    longer, other = talk("a", "b", "c"), talk("a", "x")

    assert index.longest(HERE, "1", longer) == len(talk("a", "b").blocks)
    assert 0 < index.longest(HERE, "1", other) < len(other.blocks)
    assert index.longest(HERE, "1", prompt_of([("system", "something else " * 400)])) == 0
    assert index.longest(THERE, "1", longer) == 0


def test_an_engine_that_started_anew_has_forgotten_all() -> None:
    """Its life is another."""
    index = PrefixIndex()
    taught(index, talk("a"))

    assert index.longest(HERE, "2", talk("a")) == 0
    taught(index, talk("b"), life="2")

    assert 0 < index.longest(HERE, "2", talk("a")) < len(talk("a").blocks)
    assert len(index) == len(talk("b").blocks)


def test_an_engine_that_lacks_what_it_should_have_lacks_all_that_is_older() -> None:
    """Caches forget what was used least lately, so one miss tells about many prompts."""
    index = PrefixIndex()
    prompts = [prompt_of([("user", letter * 3000)]) for letter in "abcd"]
    for prompt in prompts:
        taught(index, prompt)

    expected = index.sent(HERE, "1", prompts[1])
    index.answered(HERE, "1", expected, 0.0)

    assert [index.longest(HERE, "1", prompt) > 0 for prompt in prompts] == [False, True, True, True]


def test_a_prompt_that_is_still_being_read_teaches_nothing_when_it_is_missed() -> None:
    """Two requests with one prompt at the same time: the second finds nothing, and nothing was forgotten."""
    index = PrefixIndex()
    old, hot = prompt_of([("user", "o" * 3000)]), prompt_of([("user", "h" * 3000)])
    taught(index, old)
    first = index.sent(HERE, "1", hot)

    second = index.sent(HERE, "1", hot)
    index.answered(HERE, "1", second, 0.0)
    index.answered(HERE, "1", first, 0.0)

    assert second.size_bytes == 0
    assert index.longest(HERE, "1", old) == len(old.blocks)


def test_a_miss_teaches_how_much_an_engine_keeps() -> None:
    """What it is thought to have stays near what it has; hits let the estimate grow again."""
    index = PrefixIndex()
    prompts = [prompt_of([("user", f"{number:04}" * 16_000)]) for number in range(40)]
    for prompt in prompts[:20]:
        taught(index, prompt)
    before = len(index)

    index.answered(HERE, "1", index.sent(HERE, "1", prompts[15]), 0.0)
    for prompt in prompts[20:]:
        taught(index, prompt)

    assert len(index) < before / 2
    assert [index.longest(HERE, "1", prompt) > 0 for prompt in prompts[30:35]] == [False] * 5
    assert index.longest(HERE, "1", prompts[39]) > 0


def test_an_answer_that_says_nothing_or_comes_late_teaches_nothing() -> None:
    """Engines may leave the numbers out; a node may be gone meanwhile."""
    index = PrefixIndex()
    taught(index, talk("a"))

    index.answered(HERE, "1", index.sent(HERE, "1", talk("a")), None)
    late = index.sent(HERE, "1", talk("a"))
    index.keep([THERE])
    index.answered(HERE, "1", late, 0.0)

    assert len(index) == 0


def test_memory_is_bounded_over_all_engines() -> None:
    """Who has most gives some up, the oldest first."""
    index = PrefixIndex(most_blocks=400)
    rng = random.Random(1)

    for number in range(200):
        key = (NodeId(f"n{rng.randrange(5)}"), ModelId("m"))
        prompt = prompt_of([("user", f"{number:08}" * 1000)])
        index.answered(key, "1", index.sent(key, "1", prompt), None)
        assert len(index) <= 400
        assert index.longest(key, "1", prompt) == len(prompt.blocks)

    index.keep(())
    assert len(index) == 0


def test_hashing_a_long_prompt_is_cheap() -> None:
    """A hundred kilobytes, well below a millisecond; the least of several, so that others' work does not count."""
    parts = [("system", "s" * 50_000), ("user", "u" * 50_000)]
    took_s = []
    for _ in range(50):
        began = time.thread_time_ns()
        prompt_of(parts)
        took_s.append((time.thread_time_ns() - began) / 1e9)

    assert min(took_s) < 0.001
