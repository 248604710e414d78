"""Feels how late the daemon's own loop is, and whether the machine was asleep: what its verdicts on others are worth.

Owns one look a second. Decides nothing: what it feels becomes `LoopLagged` or `Slept`.
"""

import asyncio
import time
from collections.abc import Callable

from meshllm.core.events import Event, LoopLagged, Slept

INTERVAL_S = 1.0
LAG_WORTH_TELLING_S = 0.1
SLEEP_WORTH_TELLING_S = 2.0

Clock = Callable[[], float]


def _with_sleep() -> float:
    """Return a clock that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


async def feel(
    post: Callable[[Event], None], *, interval_s: float = INTERVAL_S, awake: Clock = time.monotonic,
    always: Clock = _with_sleep,
) -> None:  # fmt: skip
    """Look again and again, until cancelled. `awake` stands still while the machine sleeps, `always` does not."""
    while True:
        awake_s, always_s = awake(), always()
        await asyncio.sleep(interval_s)
        passed_s = awake() - awake_s
        slept_s = (always() - always_s) - passed_s
        if slept_s > SLEEP_WORTH_TELLING_S:
            post(Slept(gap_s=slept_s))
        if (lag_s := passed_s - interval_s) > LAG_WORTH_TELLING_S:
            post(LoopLagged(lag_s=lag_s))
