"""HTTP/1.1 requests from bytes, strictly: what RFC 9112 leaves open is refused, not guessed.

Owns the grammar of a request head, the rules that keep two readers from seeing two messages in the
same bytes, and chunked request bodies. Decides what is malformed and with which status. Doesn't know
sockets, paths or models: bytes and values only.

Invariant: one regular expression is the whole grammar of a head. Nothing that it does not match is
ever looked at, so there is no lenient corner to smuggle a second request through.
"""

import re
from dataclasses import dataclass

from meshllm.core import limits

CRLF = b"\r\n"
HEAD_END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/(\d)\.(\d)\r\n"
    rb"((?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n"
)  # fmt: skip
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/(\d)\.(\d)\r\n")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_PLAUSIBLE_START = re.compile(_TOKEN[:-1] + rb"{1,24}(?: |$)")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
_DOTS = re.compile(r"(?:/|%2f)(?:\.|%2e){1,2}(?:/|%2f|$)|\\|%5c", re.IGNORECASE)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ONCE_ONLY = frozenset({
    "authorization", "content-encoding", "content-length", "content-type", "expect", "host", "origin",
    "sec-fetch-site", "transfer-encoding", "x-api-key", "x-request-id",
})  # fmt: skip
"""Fields on which a decision hangs: twice is two answers to one question."""
HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""Fields of one connection. A fixed list: `Connection: Authorization` takes nothing else away."""


class ProtocolError(Exception):
    """A client broke the rules of HTTP; the connection ends after the answer.

    `status` and `code` say how to answer.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        """Remember the answer."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head, checked. Field names are lower case, values stripped, both decoded as Latin-1."""

    method: str
    path: str
    """As sent, percent-escapes and all; always begins with a slash."""
    query: str
    minor: int
    """0 or 1, of HTTP/1.x."""
    fields: tuple[tuple[str, str], ...]
    length: int
    """Bytes of the body; 0 if there is none, and for a chunked one."""
    is_chunked: bool
    keeps_alive: bool
    expects_continue: bool

    def get(self, name: str) -> str | None:
        """Return the value of a field, the first if there are several."""
        for known, value in self.fields:
            if known == name:
                return value
        return None


def parse_head(block: bytes) -> Head:
    """Read a head, from the request line to the empty line. Raises ProtocolError."""
    found = _HEAD.fullmatch(block)
    if found is None:
        raise _why_malformed(block)
    if found[3] != b"1" or found[4] not in {b"0", b"1"}:
        raise ProtocolError(505, "http_version_not_supported", "this server speaks HTTP/1.1 and HTTP/1.0")
    method, minor = found[1].decode(), int(found[4])
    if method not in METHODS:
        raise ProtocolError(501, "method_not_implemented", f"the method {method[:20]} is not implemented")
    fields = _fields(found[5])
    named = dict(fields)
    length, is_chunked = _framing(named, minor)
    path, query = _target(found[2].decode(), named.get("host"), method)
    if minor == 1 and "host" not in named:
        raise _malformed("an HTTP/1.1 request needs a Host field")
    return Head(
        method=method, path=path, query=query, minor=minor, fields=fields, length=length, is_chunked=is_chunked,
        keeps_alive=_keeps_alive(named.get("connection", ""), minor),
        expects_continue=_expects_continue(named.get("expect"), minor),
    )  # fmt: skip


def is_well_formed(block: bytes) -> bool:
    """Tell whether a block matches the grammar of a head; its meaning is another matter."""
    return _HEAD.fullmatch(block) is not None


def check_partial(start: bytes | bytearray, seen_bytes: int) -> None:
    """Refuse the beginning of a head that no more bytes could make good. Raises ProtocolError.

    `seen_bytes` were checked before. Without this a client that speaks another protocol, or ends its
    lines with LF alone, would wait for the header timeout.
    """
    if not _PLAUSIBLE_START.match(start[:25]):
        raise _malformed("this is not an HTTP request")
    if _BARE_LINE_FEED.search(start, seen_bytes):
        raise _malformed("lines of a head end with CR LF")
    if len(start) > limits.HTTP_HEADER_BLOCK_BYTES:
        raise _too_large()
    line_end = start.find(b"\n")
    if len(start if line_end < 0 else start[:line_end]) > limits.HTTP_TARGET_BYTES + 64:
        raise ProtocolError(414, "uri_too_long", f"a target has at most {limits.HTTP_TARGET_BYTES} bytes")


def _malformed(message: str) -> ProtocolError:
    return ProtocolError(400, "malformed_request", message)


def _too_large() -> ProtocolError:
    bytes_max, fields_max = limits.HTTP_HEADER_BLOCK_BYTES, limits.HTTP_HEADER_FIELDS
    message = f"a request head has at most {bytes_max} bytes and {fields_max} fields"
    return ProtocolError(431, "request_header_fields_too_large", message)


def _why_malformed(block: bytes) -> ProtocolError:
    """Say what is wrong with a head that the grammar does not match."""
    line = _REQUEST_LINE.match(block)
    if line is None:
        return _malformed("the request line is malformed")
    for number, field in enumerate(block[line.end() : -4].split(CRLF), start=1):
        if field[:1] in {b" ", b"\t"}:
            return _malformed(f"header line {number} is folded")
        if not re.fullmatch(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*", field):
            return _malformed(f"header line {number} is malformed")
    return _malformed("the request head is malformed")


def _fields(lines: bytes) -> tuple[tuple[str, str], ...]:
    """Split header lines that the grammar has passed, and refuse what must not come twice."""
    fields = []
    seen = set()
    for line in lines.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name = name.lower()
        if name in ONCE_ONLY:
            if name in seen:
                raise _malformed(f"the field {name} is there twice")
            seen.add(name)
        fields.append((name, value.strip(" \t")))
    if len(fields) > limits.HTTP_HEADER_FIELDS:
        raise _too_large()
    return tuple(fields)


def _framing(named: dict[str, str], minor: int) -> tuple[int, bool]:
    """Return (length, chunked). RFC 9112 6.3, with every ambiguity refused."""
    coding, length = named.get("transfer-encoding"), named.get("content-length")
    if coding is not None:
        if length is not None:
            raise _malformed("Content-Length and Transfer-Encoding exclude each other")
        if minor == 0:
            raise _malformed("HTTP/1.0 has no Transfer-Encoding")
        if coding.lower() != "chunked":
            raise _malformed("the only Transfer-Encoding is chunked")
        return 0, True
    if length is None:
        return 0, False
    if not _LENGTH.fullmatch(length):
        raise _malformed("Content-Length is not a number of bytes")
    return int(length), False


def _target(target: str, host: str | None, method: str) -> tuple[str, str]:
    """Return (path, query) of a target in origin form, or in absolute form for the same host."""
    if len(target) > limits.HTTP_TARGET_BYTES:
        raise ProtocolError(414, "uri_too_long", f"a target has at most {limits.HTTP_TARGET_BYTES} bytes")
    if target == "*" and method == "OPTIONS":
        return "/", ""
    if host is not None and target.lower().startswith(f"http://{host.lower()}"):
        target = target[len("http://") + len(host) :] or "/"
    path, _, query = target.partition("?")
    if not path.startswith("/") or "#" in target:
        raise _malformed("the target is not a path")
    if _BAD_ESCAPE.search(path) or _DOTS.search(path):
        raise _malformed("the path is not clean: no dot segments, backslashes, NULs or broken escapes")
    return path, query


def _keeps_alive(connection: str, minor: int) -> bool:
    options = {option.strip().lower() for option in connection.split(",")}
    return "close" not in options and (minor == 1 or "keep-alive" in options)


def _expects_continue(expect: str | None, minor: int) -> bool:
    if expect is None:
        return False
    if expect.lower() != "100-continue":
        raise ProtocolError(417, "expectation_failed", "the only expectation is 100-continue")
    return minor == 1  # RFC 9110 10.1.1: from HTTP/1.0 it is ignored


class ChunkedBody:
    """Decodes one chunked request body of at most `limit` bytes. Extensions and trailers are dropped."""

    __slots__ = ("_body", "_in_trailer", "_left", "_limit", "_trailer_bytes")

    def __init__(self, limit: int) -> None:
        """Start before the first chunk."""
        self._limit = limit
        self._body = bytearray()
        self._left = -1
        """Bytes of the current chunk and its CR LF that are missing; -1 between chunks."""
        self._in_trailer = False
        self._trailer_bytes = 0

    def feed(self, data: bytearray) -> bytes | None:
        """Consume from the front of `data`; return the body when it is complete. Raises ProtocolError."""
        while data:
            if self._in_trailer:
                if not self._take_trailer_line(data):
                    return None
                if self._trailer_bytes == 0:
                    return bytes(self._body)
            elif self._left >= 0:
                if not self._take_chunk(data):
                    return None
            elif not self._take_size(data):
                return None
        return None

    def _take_size(self, data: bytearray) -> bool:
        found = _CHUNK.match(data)
        if found is None or found.end() > limits.HTTP_CHUNK_HEADER_BYTES:
            line_end = data.find(b"\n", 0, limits.HTTP_CHUNK_HEADER_BYTES)
            if line_end < 0 and len(data) < limits.HTTP_CHUNK_HEADER_BYTES:
                return False
            raise _malformed("a chunk's size line is malformed or too long")
        size = int(found[1], 16)
        if len(self._body) + size > self._limit:
            raise body_too_large(self._limit)
        del data[: found.end()]
        self._in_trailer = size == 0
        self._left = size + 2 if size else -1
        return True

    def _take_chunk(self, data: bytearray) -> bool:
        if self._left > 2:
            part = data[: self._left - 2]
            self._body += part
            del data[: len(part)]
            self._left -= len(part)
        if self._left > 2 or len(data) < 2:
            return False
        if data[:2] != CRLF:
            raise _malformed("a chunk does not end with CR LF")
        del data[:2]
        self._left = -1
        return True

    def _take_trailer_line(self, data: bytearray) -> bool:
        end = data.find(b"\n")
        if end < 0 and self._trailer_bytes + len(data) < limits.HTTP_TRAILER_BYTES:
            return False
        self._trailer_bytes += end + 1
        if end < 1 or data[end - 1] != 0x0D or self._trailer_bytes > limits.HTTP_TRAILER_BYTES:
            raise _malformed("the trailer is malformed or too long")
        if end == 1:
            self._trailer_bytes = 0
        del data[: end + 1]
        return True


def body_too_large(limit: int) -> ProtocolError:
    """Return the refusal of a body over `limit` bytes."""
    return ProtocolError(413, "request_too_large", f"a body has at most {limit} bytes here")
