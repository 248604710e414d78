"""The daemon's one loop: events go into the core in one order, effects come out and are carried out.

Owns the inbox, the clock reading that each event is handled with, and the one wake-up timer. Decides
nothing. Never awaits an effect: slow work is bracketed by events of its own.

Invariant: `MeshCore.handle` runs nowhere else, so the core needs no lock.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from meshllm.core.effects import Effect
from meshllm.core.events import Event, Woke
from meshllm.core.limits import INBOX_EVENTS
from meshllm.core.mesh import MeshCore
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.journal import Journal
from meshllm.daemon.profile import Profile

log = logging.getLogger(__name__)


class Loop:
    """Consumes events one by one."""

    def __init__(self, core: MeshCore, views: CurrentView, journal: Journal, profile: Profile | None = None) -> None:
        """Feed `core`, publish to `views`, write to `journal`; measure for `profile`, where there is one."""
        self._profile = profile
        self._core = core
        self._views = views
        self._journal = journal
        self._inbox: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._carry_out: Callable[[Effect], None] | None = None
        self.dropped_events = 0

    def post(self, event: Event) -> None:
        """Put an event into the inbox. From the loop's own thread only; never blocks.

        A full inbox drops the event and counts it: shells that outrun the core by ten thousand events
        are broken, and a bounded loss that is logged beats memory that grows.
        """
        if len(self._inbox) >= INBOX_EVENTS:
            self.dropped_events += 1
            if self.dropped_events & (self.dropped_events - 1) == 0:  # at 1, 2, 4, 8 …: never a flood of lines
                log.error("inbox=full dropped=%d event=%s", self.dropped_events, type(event).__name__)
            return
        self._inbox.append(event)
        self._arrived.set()

    async def run(self, carry_out: Callable[[Effect], None]) -> None:
        """Consume events until cancelled; `carry_out` must not block."""
        self._carry_out = carry_out
        while True:
            await self._wait()
            self.catch_up()

    def catch_up(self) -> None:
        """Consume what waits, at once: whoever says the last word may not wait for a task that was cancelled."""
        while self._inbox and self._carry_out is not None:
            self._consume(self._inbox.popleft(), self._carry_out)

    async def _wait(self) -> None:
        """Return when there is an event; make a `Woke` when the core asked to be woken."""
        self._arrived.clear()
        if self._inbox:
            return
        due_s = self._core.next_wakeup_s()
        try:
            async with asyncio.timeout_at(due_s):
                await self._arrived.wait()
        except TimeoutError:
            self._inbox.append(Woke())

    def _consume(self, event: Event, carry_out: Callable[[Effect], None]) -> None:
        event = self._journal.stamp(event)
        now_s = self._clock()
        effects = self._core.handle(event, now_s)
        self._journal.record(event, effects, now_s)
        self._views.publish(self._core.view)
        decided_s = self._clock() if self._profile is not None else 0.0
        for effect in effects:
            carry_out(effect)
        if self._profile is not None:
            self._profile.consumed(event, decided_s - now_s, self._clock() - decided_s)
