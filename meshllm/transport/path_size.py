"""How large a datagram the path to a peer carries: found by trying, upward, one size at a time.

Owns the sizes worth a try and what is known of one path. Decides what to try next and when to fall back. Doesn't send:
a connection does, and tells what became of it.

Every path carries 1200 bytes; most carry 1452, which saves a fifth of the work; a wired network with jumbo frames, and
two nodes on one machine, 8952, which saves four fifths.
"""

from meshllm.core import limits

_PROBE, _ANSWER = b"?", b"!"
_HEADER_BYTES = 3
SIZES = (1452, 8952)
_FRAME_ROOM_BYTES = 60
"""What a packet with one DATAGRAM frame needs besides its payload, at most."""


class PathSize:
    """What is known of one path."""

    __slots__ = ("_tries", "_untried", "size_bytes")

    def __init__(self) -> None:
        """Know what is true of every path."""
        self.size_bytes = limits.QUIC_DATAGRAM_BYTES
        self._untried = list(SIZES)
        self._tries = 0

    def next_try(self) -> int | None:
        """Return the size to try now, in bytes; None when there is nothing more to find out."""
        if self._tries >= limits.PATH_SIZE_TRIES:
            self._untried.clear()
        return self._untried[0] if self._untried else None

    def on_tried(self) -> None:
        """Count a try: a datagram of that size went out."""
        self._tries += 1

    def on_answer(self, size_bytes: int) -> bool:
        """Learn that the peer got a datagram of a size. Return whether that is news."""
        if not self._untried or size_bytes != self._untried[0]:
            return False
        self.size_bytes = self._untried.pop(0)
        self._tries = 0
        return True

    def on_trouble(self) -> bool:
        """Learn that nothing is acknowledged any more. Return whether the size falls back to what every path carries.

        The peer may be gone, or it has moved to where less is carried: one cannot tell, and small is always right.
        """
        self._untried.clear()
        if self.size_bytes == limits.QUIC_DATAGRAM_BYTES:
            return False
        self.size_bytes = limits.QUIC_DATAGRAM_BYTES
        return True


def probe(size_bytes: int) -> bytes:
    """Return what to put into a datagram so that it has this size."""
    return _PROBE + size_bytes.to_bytes(2, "big") + bytes(size_bytes - _FRAME_ROOM_BYTES - _HEADER_BYTES)


def answer_to(data: bytes) -> bytes | None:
    """Return what to answer to the content of a datagram; None when it is no probe."""
    return _ANSWER + data[1:_HEADER_BYTES] if data[:1] == _PROBE and len(data) >= _HEADER_BYTES else None


def answered_size(data: bytes) -> int | None:
    """Return which size an answer speaks of; None when it is none."""
    return int.from_bytes(data[1:], "big") if data[:1] == _ANSWER and len(data) == _HEADER_BYTES else None
