"""Where an engine's answer ends: its head, and the boundaries of its chunks. Nothing else is read of it.

Owns the reading of response heads and of chunked bodies that are passed on as they are. Decides which
bytes may be passed on now so that the stream can still be ended properly later. Doesn't know what the
bytes mean, nor to whom they go.
"""

import re
from dataclasses import dataclass

from meshllm.core import limits
from meshllm.proxy.http1 import HOP_BY_HOP

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n"
    rb"((?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n"
)  # fmt: skip
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_LAST_CHUNK = re.compile(rb"0+(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n")
_NOT_PASSED_ON = HOP_BY_HOP | {"content-length", "server", "x-request-id"}
_BODILESS = frozenset({204, 304})
_EVENT_ENDS = frozenset({b"\n\n", b"\r\n"})
"""How a chunk ends that ends an event, with either kind of line end."""
_ERROR = b"error"
_E, _R = b"er"
_KNOWN_BYTES = 8
"""Chunks shorter than this have no remembered size: so many bytes of the others can be looked at unchecked."""
LAST_CHUNK = b"0\r\n\r\n"
_BEFORE_LAST = b"\r\n" + LAST_CHUNK


class AnswerError(Exception):
    """An engine's answer is not HTTP as RFC 9112 has it."""


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """The head of an answer. Exactly one of `length` known, `is_chunked`, or neither: then EOF ends it."""

    status: int
    length: int | None
    is_chunked: bool
    keeps_alive: bool
    is_event_stream: bool
    lines: bytes
    """Status line and the fields to pass on, each with CR LF; neither framing nor the empty line."""
    sized_lines: bytes
    """The same with `Content-Length`, where that is known and may be told."""
    answer_start: bytes = b""
    """The same up to the value of the request's id, which follows."""
    block: bytes = b""
    """As it came, with the empty line."""


def parse_answer_head(block: bytes) -> AnswerHead:
    """Read a head, from the status line to the empty line. Raises AnswerError."""
    found = _HEAD.fullmatch(block)
    if found is None:
        msg = "the head of the answer is malformed"
        raise AnswerError(msg)
    status, length, coding, keeps_alive, kind = int(found[2]), None, None, found[1] == b"1", ""
    passed_on = [block[: found.start(3)].replace(b"HTTP/1.0", b"HTTP/1.1", 1)]
    for line in found[3].split(b"\r\n")[:-1]:
        name = line[: line.index(b":")].decode().lower()
        value = line[len(name) + 1 :].strip().decode("latin-1")
        if name == "content-length":
            length = _length(value, length)
        elif name == "transfer-encoding":
            coding = value.lower() if coding is None else "twice"
        elif name == "connection" and "close" in value.lower():
            keeps_alive = False
        if name == "content-type":
            kind = value.lower()
        if name not in _NOT_PASSED_ON and not name.startswith(("access-control-", "x-mesh-")):
            passed_on.append(line + b"\r\n")
    if coding not in {None, "chunked"} or (coding and length is not None):
        msg = "the framing of the answer is ambiguous"
        raise AnswerError(msg)
    lines = b"".join(passed_on)
    sized_lines = lines + b"Content-Length: %d\r\n" % length if length is not None else lines
    if status < 200 or status in _BODILESS:
        length, coding, sized_lines = (None if status < 200 else 0), None, lines
    return AnswerHead(
        status=status, length=length, is_chunked=coding is not None,
        keeps_alive=keeps_alive and (length is not None or coding is not None),
        is_event_stream=kind.startswith("text/event-stream"), lines=lines, sized_lines=sized_lines,
        answer_start=sized_lines + b"X-Request-ID: ", block=block,
    )  # fmt: skip


def _length(value: str, before: int | None) -> int:
    if before is not None or not (value.isascii() and value.isdigit() and len(value) <= 18):
        msg = "the length of the answer is malformed"
        raise AnswerError(msg)
    return int(value)


_sizes: dict[bytes, int] = {}
"""Sizes by the exact bytes of their lines, without CR LF: an engine repeats a few hundred. Emptied when full.

Never holds the last chunk's.
"""


def _remember_size(line: bytes) -> None:
    """Keep the size that a line means, if it is a proper line."""
    found = _CHUNK.fullmatch(line + b"\r\n") if len(line) < limits.HTTP_CHUNK_HEADER_BYTES else None
    if found is not None and int(found[1], 16) >= _KNOWN_BYTES:
        if len(_sizes) >= limits.ENGINE_HEADS_REMEMBERED:
            _sizes.clear()
        _sizes[line] = int(found[1], 16)


class ChunkRelay:
    """Follows the chunks of one answer and hands out what may be passed on.

    What `take` returns ends on a boundary between chunks, so that more can follow at any time, for an event
    stream also between events. A chunk above the limit goes out in parts, as chunks of our own, and so does
    an event in several chunks: behind those `is_between` is false, and half an event has to be ended first.
    """

    __slots__ = (
        "_at", "_by_event", "_held", "_left", "_safe_end", "chunks", "is_between", "is_complete", "may_have_error",
    )  # fmt: skip

    def __init__(self, *, by_event: bool) -> None:
        """Start before the first chunk."""
        self._by_event = by_event
        self._safe_end = b"\n\n\r\n" if by_event else b"\r\n"
        self._held = b""
        self._at = 0
        """The first byte of what is held that was not looked at: the beginning of a chunk."""
        self._left = 0
        """Bytes of an oversized chunk, CR LF included, that are missing. Nothing is held then."""
        self.chunks = 0
        self.is_between = True
        """What was handed out ends where a chunk of the engine ends, for an event stream also an event."""
        self.is_complete = False
        self.may_have_error = False
        """An event of what was handed out last looks like an engine's error. Whoever reads this resets it."""

    def take(self, data: bytes) -> bytes:
        """Return the bytes to pass on; the last ones with the last chunk included. Raises AnswerError."""
        if self._held or not self.is_between:
            return self._search(self._take_slowly(data))
        end = data.find(b"\r\n")
        # `data: {"error"`, `event: error`, `error: {`: an engine writes its error as a chunk of its own.
        if (
            _sizes.get(data[:end]) == len(data) - end - 4 and data.endswith(self._safe_end)
            and data[end + 10] != _E and data[end + 9] != _E and data[end + 3] != _R
        ):  # fmt: skip
            self.chunks += 1  # exactly one chunk, as most engines write their events, and surely no error
            return data
        return data if self._is_whole(data) else self._search(self._take_slowly(data))

    def _is_whole(self, data: bytes) -> bool:
        """Count what is exactly some chunks of known sizes, perhaps the last of all with them; False for anything else.

        A payload with CR LF in it is something else, too. Lists of lines and of sizes are made by a few calls for all
        chunks together, which is what makes it fast.
        """
        body = data[:-5] if data.endswith(_BEFORE_LAST) else data
        if not body.endswith(self._safe_end):
            return False
        parts = body.split(b"\r\n")
        lines, payloads = parts[:-1:2], parts[1::2]
        sizes = [*map(_sizes.get, lines)]
        if sizes != [*map(len, payloads)]:
            for line, size in zip(lines, sizes, strict=True):
                if size is None:
                    _remember_size(line)
            return False
        self.chunks += len(lines)
        self.is_complete = body is not data
        if self._by_event and _ERROR in body:
            self.may_have_error = any(load[8] == _E or load[7] == _E or load[1] == _R for load in payloads)
        return True

    def _search(self, piece: bytes) -> bytes:
        """Return the piece, having looked for an error anywhere in it."""
        if self._by_event and _ERROR in piece:
            self.may_have_error = True
        return piece

    def _take_slowly(self, data: bytes) -> bytes:
        """Do what `take` does, for bytes that are not exactly some chunks of whole events."""
        if self._left:
            return self._take_part(data)
        if self._held:
            data = self._held + data
        at, safe, size, by_event = self._at, 0, len(data), self._by_event
        while at < size:
            found = _CHUNK.match(data, at)
            if found is None:
                _check_partial_size(data, at)
                break
            chunk_bytes = int(found[1], 16)
            if chunk_bytes == 0:
                safe = self._last(data, at) or safe
                break
            end = found.end() + chunk_bytes + 2
            if end > size:
                if end - at > limits.ENGINE_CHUNK_HELD_BYTES:
                    return data[:at] + self._begin_part(data[found.end() :], chunk_bytes)
                break
            if data[end - 2 : end] != b"\r\n":
                msg = "a chunk of the answer does not end with CR LF"
                raise AnswerError(msg)
            self.chunks += 1
            at = end
            if not by_event or data[end - 4 : end - 2] in _EVENT_ENDS:
                safe = end
        if safe == size:
            self._held, self._at, self.is_between = b"", 0, True
            return data
        return self._hold(data, at, safe)

    def _hold(self, data: bytes, at: int, safe: int) -> bytes:
        """Hand out up to `safe`, or up to `at` where an event is too long to be held."""
        if safe:
            self.is_between = True
        if at - safe > limits.ENGINE_CHUNK_HELD_BYTES:
            safe, self.is_between = at, False
        self._held, self._at = data[safe:], at - safe
        return data[:safe]

    def _begin_part(self, data: bytes, chunk_bytes: int) -> bytes:
        """Hand out the beginning of an oversized chunk."""
        self._held, self._at, self._left, self.is_between = b"", 0, chunk_bytes + 2, False
        return self._take_part(data)

    def _take_part(self, data: bytes) -> bytes:
        """Hand out more of an oversized chunk as a chunk of our own, and what may follow it."""
        left, size = self._left, min(self._left, len(data))
        payload_bytes = max(min(left - 2, size), 0)
        end = data[payload_bytes:size]
        if end and not b"\r\n".startswith(end, 2 - (left - payload_bytes)):
            msg = "a chunk of the answer does not end with CR LF"
            raise AnswerError(msg)
        self._left = left - size
        part = chunk(data[:payload_bytes]) if payload_bytes else b""
        if self._left:
            return part
        self.chunks += 1
        self.is_between = not self._by_event or data[max(payload_bytes - 2, 0) : payload_bytes] in _EVENT_ENDS
        return part + self._take_slowly(data[size:]) if len(data) > size else part

    def _last(self, data: bytes, at: int) -> int:
        """Return the end of the last chunk, or 0 while it is incomplete. Trailer fields are passed on."""
        found = _LAST_CHUNK.match(data, at)
        if found is None:
            if len(data) - at > limits.HTTP_TRAILER_BYTES or data.endswith(b"\r\n\r\n"):
                msg = "the trailer of the answer is malformed"
                raise AnswerError(msg)
            return 0
        if found.end() != len(data):
            msg = "the answer goes on after its end"
            raise AnswerError(msg)
        self.is_complete = True
        return found.end()


def _check_partial_size(data: bytes, at: int) -> None:
    """Accept an incomplete size line at the end of the data, or raise AnswerError."""
    if len(data) - at > limits.HTTP_CHUNK_HEADER_BYTES or data.find(b"\n", at) >= 0:
        msg = "a chunk of the answer has a malformed size"
        raise AnswerError(msg)


def chunk(payload: bytes) -> bytes:
    """Return a payload as one chunk. Must not be empty: an empty chunk is the last."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def payload_of(chunks: bytes) -> bytes:
    """Return the payload of whole chunks, for clients that do not know chunks."""
    at, parts = 0, []
    while (found := _CHUNK.match(chunks, at)) is not None and (size := int(found[1], 16)):
        parts.append(chunks[found.end() : found.end() + size])
        at = found.end() + size + 2
    return b"".join(parts)
