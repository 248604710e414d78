"""In which order requests of different priorities come to one engine: each priority gets its share of the places.

Owns how much each priority had of late (start-time fair queueing: P. Goyal, H. Vin, H. Cheng, 1996). Decides whose turn
it is among those that wait, and how many of them are before a newcomer. Doesn't know how long an answer takes: a
request is a request. Pure.

Invariant: whoever waits is served after a bounded number of others, whatever comes behind it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from meshllm.core.routing.priorities import WEIGHTS, Priority

Waiting = tuple[Priority, float]
"""A request that waits: its priority, and since when."""


class FairTurns:
    """The turns at one engine."""

    __slots__ = ("_ends", "_now", "_present")

    def __init__(self) -> None:
        """Begin with nobody ahead of anybody."""
        self._now = 0.0
        """How far the engine is, in places of weight 1: where the request began that came in last."""
        self._ends = dict.fromkeys(Priority, 0.0)
        """Where each priority has had its places up to."""
        self._present: frozenset[Priority] = frozenset()
        """Priorities of which some wait: what they did not get is not lost to them."""

    def order(self, waiting: Sequence[Waiting]) -> list[int]:
        """Return the numbers of those that wait in the order of their turns; in a priority, whoever came first."""
        present = frozenset(priority for priority, _ in waiting)
        for priority in present - self._present:
            self._ends[priority] = max(self._ends[priority], self._now)
        self._present = present
        places: Counter[Priority] = Counter()
        turns: list[tuple[float, int, int]] = []
        for number in sorted(range(len(waiting)), key=lambda number: waiting[number][1]):
            priority = waiting[number][0]
            places[priority] += 1
            turns.append((self._ends[priority] + places[priority] / WEIGHTS[priority], -WEIGHTS[priority], number))
        return [number for _, _, number in sorted(turns)]

    def served(self, priority: Priority) -> None:
        """Note that a request came in."""
        begins = self._ends[priority]
        if priority not in self._present:
            begins = max(begins, self._now)
        self._now = max(self._now, begins)
        self._ends[priority] = begins + 1.0 / WEIGHTS[priority]


def before(priority: Priority, waiting: Iterable[Waiting]) -> int:
    """Return how many of those that wait take room from a newcomer: as urgent ones and more urgent ones."""
    return sum(WEIGHTS[other] >= WEIGHTS[priority] for other, _ in waiting)
