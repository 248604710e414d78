"""How soon a request would have its turn in an engine's queue, from how quickly that moved lately.

Owns the count of what a full engine ends in a second. Decides when too little was seen to say anything. Doesn't know
engines nor requests; pure, with the time as an argument.
"""

from dataclasses import dataclass, field
from math import inf

from meshllm.core import limits
from meshllm.core.routing.decay import Decayed


@dataclass(slots=True)
class Pace:
    """What one engine ends while all its slots are taken: an idle one says nothing about its queue."""

    _ended: Decayed = field(default_factory=Decayed)
    """Requests over seconds."""
    _seen_s: float = 0.0
    _was_full: bool = False

    def observe(self, ended: int, now_s: float, *, is_full: bool) -> None:
        """Take how many requests have ended since the last look, and whether all slots are taken now."""
        if is_full and self._was_full and now_s > self._seen_s:
            self._ended.add(ended, now_s - self._seen_s, now_s)
        self._seen_s, self._was_full = now_s, is_full

    def wait_s(self, ahead: int, now_s: float) -> float:
        """Return how long a request waits behind so many in the queue; 0 when that is not known."""
        if self._ended.weight_at(now_s) < limits.QUEUE_SEEN_S:
            return 0.0
        rate = self._ended.mean()
        return (ahead + 1) / rate if rate else inf
