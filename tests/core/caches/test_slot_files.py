"""Slots on the disk: which are saved, under which key, and which files go."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.cache_limits import SLOT_LEAST_TOKENS
from meshllm.core.caches.slot_files import HeldSlot, SlotFile, going, slots_key, token_bytes, worth_saving
from meshllm.core.engines import EngineBuild, EngineOptions, MemoryNeed, SplitRun
from tests.core.builders import a_spec
from tests.core.caches.test_completions import BUILD, a_plan

PLAN = a_plan(a_spec("tiny"))
LONG = SLOT_LEAST_TOKENS * 2


def held(slot: int, tokens: int = LONG, task: int = 1, **more: Any) -> HeldSlot:
    """Return a slot with a conversation."""
    return HeldSlot(slot=slot, tokens=tokens, task=task, **more)


def test_what_was_used_last_is_saved_first() -> None:
    """As many as fit; nothing short, nothing that computes now."""
    slots = [
        held(0, task=1), held(1, task=9), held(2, task=5), held(3, SLOT_LEAST_TOKENS - 1, task=99),
        held(4, task=50, is_busy=True), held(5, SLOT_LEAST_TOKENS, task=3),
    ]  # fmt: skip

    everything = worth_saving(slots, 10.0, 10**9)
    some = worth_saving(slots, 10.0, 10 * (2 * LONG + SLOT_LEAST_TOKENS))

    assert [one.slot for one in everything] == [1, 2, 5, 0]
    assert [one.slot for one in some] == [1, 2, 5]
    assert worth_saving(slots, 10.0, 0) == []


@given(
    slots=st.lists(st.tuples(st.integers(0, 5000), st.integers(-1, 50), st.booleans()), max_size=8),
    most_bytes=st.integers(0, 10**6), bytes_per_token=st.floats(0.0, 1000.0),
)  # fmt: skip
def test_what_is_chosen_fits(
    slots: list[tuple[int, int, bool]], most_bytes: int, bytes_per_token: float
) -> None:  # fmt: skip
    """By the estimate; each slot once."""
    found = worth_saving(
        (held(number, *one[:2], is_busy=one[2]) for number, one in enumerate(slots)), bytes_per_token, most_bytes
    )

    assert sum(one.tokens * bytes_per_token for one in found) <= most_bytes * (1 + 1e-9)
    assert len({one.slot for one in found}) == len(found)


@given(
    sizes=st.lists(st.integers(0, 1000), max_size=8), need_bytes=st.integers(0, 2000), most_bytes=st.integers(0, 4000)
)
def test_the_oldest_files_go_until_the_others_fit(sizes: list[int], need_bytes: int, most_bytes: int) -> None:
    """And not one more than that."""
    files = [SlotFile(name=f"f{number}", size_bytes=size, saved_s=number) for number, size in enumerate(sizes)]
    gone = going(reversed(files), need_bytes, most_bytes)
    left = sum(sizes[len(gone) :])

    assert gone == files[: len(gone)]
    assert left + need_bytes <= most_bytes or not left
    if gone:
        assert left + gone[-1].size_bytes + need_bytes > most_bytes


@pytest.mark.parametrize(
    "other",
    [
        slots_key(replace(PLAN, context_tokens=4096), BUILD),
        slots_key(replace(PLAN, options=EngineOptions(arguments=(("cache-type-k", "q8_0"),))), BUILD),
        slots_key(replace(PLAN, model=replace(PLAN.model, modified_s=2.0)), BUILD),
        slots_key(replace(PLAN, model=replace(PLAN.model, size_bytes=7)), BUILD),
        slots_key(replace(PLAN, model=replace(PLAN.model, path="/models/other.gguf")), BUILD),
        slots_key(PLAN, EngineBuild(kind="fake", version="b2", uses_gpu=False)),
    ],
)
def test_another_file_build_or_context_is_another_key(other: str) -> None:
    """What does not matter to a slot makes none: digests that are not known yet, numbers of slots, threads, memory."""
    key = slots_key(PLAN, BUILD)
    same = replace(PLAN, slots=7, threads=3, attempt=2, model=replace(PLAN.model, digest=""))

    assert key
    assert slots_key(same, BUILD) == key
    assert other != key


def test_a_split_saves_nothing() -> None:
    """Its state lies on several machines."""
    assert slots_key(replace(PLAN, split=SplitRun(epoch=1, home_layers=1, workers=())), BUILD) == ""


def test_a_token_takes_its_part_of_the_cache() -> None:
    """Of all slots together."""
    memory = MemoryNeed(weights_bytes=1, kv_bytes=4096 * 100, overhead_bytes=1)

    assert token_bytes(replace(PLAN, context_tokens=2048, slots=2, memory=memory)) == 100.0
