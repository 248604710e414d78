"""Tokens of each slot, by the lines that llama.cpp's server writes of it."""

from meshllm.core.cache_use import SlotUse
from meshllm.engine.slot_log import SlotLog

TASK = """\
0.04.769.040 I slot get_availabl: id  {slot} | task -1 | selected slot by LRU, t_last = 61956711049
0.04.779.490 I slot launch_slot_: id  {slot} | task {task} | processing task, is_child = 0
0.11.117.149 I slot print_timing: id  {slot} | task {task} | prompt processing, n_tokens = 256, progress = 0.85
0.12.939.695 I slot print_timing: id  {slot} | task {task} | prompt eval time = 7997.71 ms /   {new} tokens (x)
0.12.939.948 I slot print_timing: id  {slot} | task {task} |        eval time = 162.44 ms /     {made} tokens (x)
0.12.939.959 I slot print_timing: id  {slot} | task {task} |       total time =    8160.15 ms /   311 tokens
0.12.954.600 I slot      release: id  {slot} | task {task} | stop processing: n_tokens = {kept}, truncated = 0
"""


def said(slot: int, task: int, *, new: int, made: int, kept: int) -> list[str]:
    """Return the lines of one task, as the wheel of 2026.10 writes them."""
    return TASK.format(slot=slot, task=task, new=new, made=made, kept=kept).splitlines()


def test_what_was_found_is_what_was_neither_computed_nor_made() -> None:
    """A prompt of 331 tokens twice, the second time with 24 of another one before it; each answer has four tokens."""
    log = SlotLog()

    log.feed(said(0, 0, new=331, made=4, kept=334))
    log.feed(said(0, 7, new=307, made=4, kept=334))
    log.feed(said(2, 9, new=1, made=1, kept=331))

    assert log.uses == (
        SlotUse(slot=0, kept_tokens=334, hit_tokens=24, miss_tokens=638),
        SlotUse(slot=2, kept_tokens=331, hit_tokens=330, miss_tokens=1),
    )


def test_lines_may_come_in_parts_and_may_be_lost() -> None:
    """A task of which a part is missing is not counted; what its slot holds is."""
    log, lines = SlotLog(), said(0, 5, new=10, made=2, kept=11)

    log.feed(lines[:4])
    log.feed(lines[4:])
    log.feed(said(0, 6, new=10, made=2, kept=50)[6:])
    log.feed(["anything else", "I slot x: id 0 | task 8 | another line"])

    assert log.uses == (SlotUse(slot=0, kept_tokens=50, hit_tokens=0, miss_tokens=10),)
