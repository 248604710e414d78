"""Frames of control streams, handshakes and lines: four bytes of length, most significant first, then a payload.

Owns the cutting of a byte stream into payloads and back. Decides when a frame is too large, before it is
held. Doesn't know what payloads say.

An empty frame is allowed and skipped, since it carries nothing and harms nobody; on lines it ends a direction.
"""

import struct

from meshllm.core.limits import CONTROL_FRAME_BYTES
from meshllm.wire.errors import WireCode, WireError

_LENGTH = struct.Struct(">I")
LENGTH_BYTES = _LENGTH.size


def frame(payload: bytes) -> bytes:
    """Return a payload with its length before it. Raises WireError when no receiver would take it."""
    if len(payload) > CONTROL_FRAME_BYTES:
        raise WireError(WireCode.FRAME_TOO_LARGE, f"{len(payload)} bytes in one frame")
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Cuts what arrives on one stream into payloads. Holds at most one incomplete frame."""

    __slots__ = ("_held", "_keeps_empty", "_limit_bytes")

    def __init__(self, limit_bytes: int = CONTROL_FRAME_BYTES, *, keeps_empty: bool = False) -> None:
        """Refuse frames with more than `limit_bytes` of payload; skip empty ones, unless they mean something."""
        self._limit_bytes = limit_bytes
        self._keeps_empty = keeps_empty
        self._held = bytearray()

    @property
    def held_bytes(self) -> int:
        """Return how much of an incomplete frame has arrived: what a deadline for its rest is set by."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that are complete now, in order. Raises WireError; the stream is useless after that."""
        held = self._held
        held += data
        payloads = []
        start = 0
        while len(held) - start >= LENGTH_BYTES:
            (length,) = _LENGTH.unpack_from(held, start)
            if length > self._limit_bytes:
                raise WireError(WireCode.FRAME_TOO_LARGE, f"a frame of {length} bytes; {self._limit_bytes} are allowed")
            end = start + LENGTH_BYTES + length
            if len(held) < end:
                break
            if length or self._keeps_empty:
                payloads.append(bytes(held[start + LENGTH_BYTES : end]))
            start = end
        del held[:start]
        return payloads

    def finish(self) -> None:
        """Take the end of the stream. Raises WireError when it comes within a frame."""
        if self._held:
            raise WireError(WireCode.TRUNCATED, f"the stream ended {len(self._held)} bytes into a frame")
