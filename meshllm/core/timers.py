"""Deadlines by key, for a core that has no clock: set, cancelled, and asked which are due.

Owns the order of deadlines. Decides nothing, and doesn't know what a key means. Deadlines that are due
together come in the order in which they were set, so that a replay sees them in the same one.
"""

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
_SPARE = 64
"""Cancelled deadlines are swept out of the heap when they outnumber the others, and these."""


class Timers(Generic[K]):
    """One deadline for each key."""

    def __init__(self) -> None:
        """Start with none."""
        self._live: dict[K, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0

    def __contains__(self, key: K) -> bool:
        return key in self._live

    def __len__(self) -> int:
        return len(self._live)

    def set(self, key: K, due_s: float) -> None:
        """Set a key's deadline; the one that it had is forgotten."""
        self._count += 1
        self._live[key] = (due_s, self._count)
        heapq.heappush(self._heap, (due_s, self._count, key))
        if len(self._heap) > _SPARE + 2 * len(self._live):
            self._heap = [(due, order, key) for key, (due, order) in self._live.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: K) -> None:
        """Forget a key's deadline, if it has one."""
        self._live.pop(key, None)

    def clear(self) -> None:
        """Forget all deadlines."""
        self._live.clear()
        self._heap.clear()

    def due_s(self, key: K) -> float | None:
        """Return a key's deadline."""
        found = self._live.get(key)
        return found[0] if found is not None else None

    def next_s(self) -> float | None:
        """Return the earliest deadline."""
        heap = self._heap
        while heap:
            due_s, order, key = heap[0]
            if self._live.get(key) == (due_s, order):
                return due_s
            heapq.heappop(heap)
        return None

    def pop_due(self, now_s: float) -> K | None:
        """Take out the earliest deadline that has passed and return its key; None when none has."""
        due_s = self.next_s()
        if due_s is None or due_s > now_s:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._live[key]
        return key
