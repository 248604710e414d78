"""The last thousands of events with the effects they led to, so that any decision can be replayed.

Owns the numbering of events and the ring that keeps them. Knows nothing about their meaning.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from meshllm.core.effects import Effect
from meshllm.core.events import Event
from meshllm.core.ids import EventId
from meshllm.core.limits import JOURNAL_EVENTS


@dataclass(frozen=True, slots=True)
class Entry:
    """One event, when it was consumed, and what followed."""

    at_s: float
    event: Event
    effects: tuple[Effect, ...]


class Journal:
    """A ring of entries. One writer: the loop."""

    def __init__(self, entries_max: int = JOURNAL_EVENTS) -> None:
        """Keep at most `entries_max` entries, the newest."""
        self._entries: deque[Entry] = deque(maxlen=entries_max)
        self._count = 0

    def stamp(self, event: Event) -> Event:
        """Return the event with the next id."""
        self._count += 1
        return replace(event, id=EventId(f"e{self._count}"))

    def record(self, event: Event, effects: tuple[Effect, ...], at_s: float) -> None:
        """Remember a consumed event."""
        self._entries.append(Entry(at_s, event, effects))

    def newest(self, count: int) -> Sequence[Entry]:
        """Return up to `count` entries, oldest first."""
        return list(self._entries)[-count:] if count > 0 else []
