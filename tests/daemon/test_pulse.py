"""The daemon feels its own lateness and the machine's sleep."""

import asyncio
from collections.abc import Iterator

from meshllm.core.events import Event, LoopLagged, Slept
from meshllm.daemon import pulse


async def felt(awake: Iterator[float], always: Iterator[float]) -> list[Event]:
    """Return what is posted while the clocks say this, two readings for each look."""
    posted: list[Event] = []
    told = asyncio.Event()

    def post(event: Event) -> None:
        posted.append(event)
        told.set()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        feeling = group.create_task(
            pulse.feel(post, interval_s=0.0, awake=lambda: next(awake), always=lambda: next(always))
        )
        await told.wait()
        feeling.cancel()
    return posted


async def test_a_late_loop_is_told_with_how_late_it_was() -> None:
    """Its verdicts on others are worth less for a while."""
    [event] = await felt(iter([0.0, 0.0, 1.0, 1.75, 0.0, 0.0]), iter([0.0, 0.0, 1.0, 1.75, 0.0, 0.0]))

    assert event == LoopLagged(lag_s=0.75)


async def test_a_sleep_is_told_with_how_long_it_was() -> None:
    """The clock that stands still while the machine sleeps is the other one's witness."""
    [event] = await felt(iter([0.0, 0.0, 0.0, 0.0]), iter([0.0, 3600.0, 3600.0, 3600.0]))

    assert event == Slept(gap_s=3600.0)
