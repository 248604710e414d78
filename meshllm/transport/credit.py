"""How much the other side may still do: bytes to send, and messages in a while.

Owns two small sums that aioquic does not keep: a window that moves when its reader has consumed, and an allowance that
fills with time. Decides when a peer gets more. Doesn't know streams, messages or clocks.
"""


class Window:
    """Receive credit of a stream or a connection, in bytes from its beginning.

    aioquic raises limits as bytes arrive; here they rise as bytes are consumed, in steps of half a window, so that a
    reader that stops is a sender that stops.
    """

    __slots__ = ("consumed_bytes", "limit_bytes", "window_bytes")

    def __init__(self, window_bytes: int) -> None:
        """Begin with one window granted and nothing consumed."""
        self.window_bytes = window_bytes
        self.consumed_bytes = 0
        self.limit_bytes = window_bytes

    def take(self, size_bytes: int) -> bool:
        """Count bytes as consumed. Return whether the limit rose: the peer has to be told."""
        self.consumed_bytes += size_bytes
        return self._raise(self.window_bytes // 2)

    def widen(self, window_bytes: int) -> bool:
        """Grant a larger window from here on. Return whether the limit rose."""
        self.window_bytes = max(window_bytes, self.window_bytes)
        return self._raise(self.window_bytes - 1)

    def _raise(self, when_left_bytes: int) -> bool:
        if self.limit_bytes - self.consumed_bytes > when_left_bytes:
            return False
        self.limit_bytes = self.consumed_bytes + self.window_bytes
        return True


class Allowance:
    """So many in a burst, and so many a second after that."""

    __slots__ = ("_burst", "_left", "_per_s", "_seen_s")

    def __init__(self, per_s: float, burst: float) -> None:
        """Begin with the whole burst."""
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._seen_s = 0.0

    def take(self, now_s: float, amount: float = 1.0) -> bool:
        """Return whether `amount` is within the allowance at this moment, and count it if it is."""
        self._left = min(self._burst, self._left + (now_s - self._seen_s) * self._per_s)
        self._seen_s = now_s
        if self._left < amount:
            return False
        self._left -= amount
        return True
