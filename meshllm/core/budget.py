"""How much of something may happen: so much a second, and some more in a burst.

Owns one bucket of tokens. Decides yes or no. Doesn't know what is being counted, nor a clock.
"""


class Budget:
    """A bucket that fills at `rate_per_s` and holds at most `burst`."""

    __slots__ = ("_at_s", "_burst", "_left", "_rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        """Start full."""
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._left = burst
        self._at_s = now_s

    def take(self, now_s: float, count: float = 1.0) -> bool:
        """Take `count` out if it is there; tell whether it was."""
        if now_s > self._at_s:
            self._left = min(self._burst, self._left + (now_s - self._at_s) * self._rate_per_s)
            self._at_s = now_s
        if self._left < count:
            return False
        self._left -= count
        return True
