"""Takes values off a stream through a window of bounded size.

Owns the budgets of one reading: bytes of header, bytes of memory, items, processor time. Decides when a file
asks for too much. Doesn't know the format of what it reads, only its primitive: little-endian numbers and
strings with a 64-bit length.
"""

import struct
import time
from typing import BinaryIO, Final

from meshllm.core import limits
from meshllm.inventory.invalid import InvalidModel, InvalidModelError

_WINDOW_BYTES: Final = 1 * limits.MIB
OBJECT_BYTES: Final = 128
"""What a kept string or number costs in Python besides its own bytes."""
_LENGTH: Final = struct.Struct("<Q")


class BoundedReader:
    """Takes values off a stream through a window of bounded size, and accounts for memory and work."""

    __slots__ = (
        "_at",
        "_base",
        "_items_left",
        "_memory_left",
        "_size",
        "_started_s",
        "_stream",
        "_window",
    )

    def __init__(self, stream: BinaryIO, size_bytes: int) -> None:
        self._stream = stream
        self._size = size_bytes
        self._window = b""
        self._base = 0
        self._at = 0
        self._items_left = limits.GGUF_ARRAY_ITEMS
        self._memory_left = limits.GGUF_READ_MEMORY_BYTES
        self._started_s = time.thread_time()

    @property
    def position(self) -> int:
        """Return how many bytes were taken."""
        return self._base + self._at

    def take(self, count: int) -> bytes:
        """Take bytes, at most one kept value's worth."""
        start = self._ensure(count)
        self._at = start + count
        return self._window[start : self._at]

    def number(self, form: struct.Struct) -> int:
        """Take one number."""
        start = self._ensure(form.size)
        self._at = start + form.size
        value: int = form.unpack_from(self._window, start)[0]
        return value

    def skip(self, count: int) -> None:
        """Pass over bytes without reading them."""
        self._check_end(count)
        inside = len(self._window) - self._at
        if count <= inside:
            self._at += count
            return
        self._base = self.position + count
        self._window, self._at = b"", 0
        self._stream.seek(self._base)

    def string_length(self) -> int:
        """Take a string's length, checked against what is left of the file."""
        length = self.number(_LENGTH)
        self._check_end(length)
        return length

    def name(self, what: str) -> str:
        """Take a string that has to be valid: a key or a tensor's name."""
        length = self.string_length()
        if length > limits.GGUF_STRING_BYTES:
            raise InvalidModelError(InvalidModel.TOO_LARGE, f"a {what} is {length} bytes long")
        if not self.has_memory_for(length):
            raise InvalidModelError(InvalidModel.TOO_LARGE, "the header is too large")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise InvalidModelError(InvalidModel.BAD_VALUE, f"a {what} is not valid UTF-8") from None

    def skip_strings(self, count: int) -> None:
        """Pass over an array of strings: a vocabulary. Fast, because it can have a million."""
        unpack = _LENGTH.unpack_from
        while count:
            window, at = self._window, self._at
            last = len(window) - 8
            while count and at <= last:
                after = at + 8 + unpack(window, at)[0]
                if after > last + 8:
                    break
                at = after
                count -= 1
            self._at = at
            if count:
                self.skip(self.string_length())
                count -= 1

    def has_memory_for(self, count: int) -> bool:
        """Account for a value that would be kept; False where that would be too much."""
        cost = count + OBJECT_BYTES
        if cost > self._memory_left:
            return False
        self._memory_left -= cost
        return True

    def charge_items(self, count: int) -> None:
        """Account for the items of an array."""
        if count > self._items_left:
            raise InvalidModelError(InvalidModel.TOO_LARGE, f"an array of {count} items is too long")
        self._items_left -= count

    def _ensure(self, count: int) -> int:
        """Return where in the window the next bytes lie, after reading them if needed."""
        if self._at + count <= len(self._window):
            return self._at
        self._check_end(count)
        if time.thread_time() - self._started_s > limits.GGUF_READ_S:
            raise InvalidModelError(InvalidModel.TOO_LARGE, "the header takes too long to read")
        parts = [self._window[self._at :]]
        self._base, self._at = self.position, 0
        have, wanted = len(parts[0]), max(count, _WINDOW_BYTES)
        while have < wanted and (part := self._stream.read(wanted - have)):
            parts.append(part)
            have += len(part)
        self._window = b"".join(parts)
        if have < count:  # it shrank while it was read
            raise _ends_early()
        return 0

    def _check_end(self, count: int) -> None:
        end = self.position + count
        if end > self._size:
            raise _ends_early()
        if end > limits.GGUF_HEADER_BYTES:
            raise InvalidModelError(InvalidModel.TOO_LARGE, "the header is too large")


def _ends_early() -> InvalidModelError:
    return InvalidModelError(InvalidModel.INCOMPLETE, "the file ends inside its header")
