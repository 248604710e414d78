"""How many bytes the other side may still send.

Owns a small sum that aioquic does not keep: a window that moves when its reader has consumed. Decides when a peer gets
more. Doesn't know streams or messages.
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
