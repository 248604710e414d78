"""One grammar for heads, one decoder for chunked bodies, and nothing in between to smuggle through."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core import limits
from meshllm.proxy.http1 import ChunkedBody, ProtocolError, check_partial, parse_head

GOOD = b"POST /v1/chat/completions?a=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nX-A:  b \r\n\r\n"


def a_head(*lines: str, first: str = "GET / HTTP/1.1", host: str | None = "Host: x") -> bytes:
    """Return a head of those header lines."""
    return "\r\n".join((first, *([host] if host else []), *lines, "", "")).encode("latin-1")


def test_a_head_is_read_into_its_parts() -> None:
    """Everything that is decided later is decided from these values."""
    head = parse_head(GOOD)

    assert (head.method, head.path, head.query, head.minor) == ("POST", "/v1/chat/completions", "a=1", 1)
    assert (head.length, head.is_chunked, head.keeps_alive, head.expects_continue) == (3, False, True, False)
    assert head.get("x-a") == "b"
    assert head.get("x-b") is None


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (a_head("Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (a_head("Transfer-Encoding: chunked", "Content-Length: 1"), 400),
        (a_head("Content-Length: 1", "Content-Length: 2"), 400),
        (a_head("Content-Length: 1", "Content-Length: 1"), 400),
        *[(a_head(f"Content-Length: {value}"), 400) for value in ("+5", "-1", "0x10", "7_2", "", "1" * 30, "1, 1", "٣")
          if value.isascii()],
        (a_head("Transfer-Encoding: identity, chunked"), 400),
        (a_head("Transfer-Encoding: gzip"), 400),
        (a_head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
        (a_head("Transfer-Encoding: chunked", first="GET / HTTP/1.0"), 400),
        (a_head(host=None), 400),
        (a_head("Host: y"), 400),
        (a_head(" folded"), 400),
        (a_head("X-A: 1", "\tfolded"), 400),
        (a_head("X A: 1"), 400),
        (a_head("X-A : 1"), 400),
        (a_head("no colon"), 400),
        (a_head(": no name"), 400),
        (a_head("X-A: a\rb"), 400),
        (a_head("X-A: a\nb"), 400),
        (a_head("X-A: a\0b"), 400),
        (a_head(first="GET / HTTP/9.9"), 505),
        (a_head(first="GET / HTTP/2.0"), 505),
        (a_head(first="GET /"), 400),
        (a_head(first="GET  / HTTP/1.1"), 400),
        (a_head(first="GET / http/1.1"), 400),
        (a_head(first="BREW / HTTP/1.1"), 501),
        (a_head(first="CONNECT x:443 HTTP/1.1"), 501),
        (a_head(first="GET relative HTTP/1.1"), 400),
        (a_head(first="GET http://other/ HTTP/1.1"), 400),
        (a_head(first="GET /a%00b HTTP/1.1"), 400),
        (a_head(first="GET /a/%2e%2e%2fb HTTP/1.1"), 400),
        (a_head(first="GET /a/../b HTTP/1.1"), 400),
        (a_head(first="GET /a\\b HTTP/1.1"), 400),
        (a_head(first="GET /a%5cb HTTP/1.1"), 400),
        (a_head(first="GET /%zz HTTP/1.1"), 400),
        (a_head(first="GET /a#b HTTP/1.1"), 400),
        (a_head(first=f"GET /{'a' * limits.HTTP_TARGET_BYTES} HTTP/1.1"), 414),
        (a_head(*[f"X-{number}: 1" for number in range(101)]), 431),
        (a_head("Expect: more"), 417),
        (a_head("Authorization: Bearer a", "Authorization: Bearer b"), 400),
    ],
)  # fmt: skip
def test_what_two_readers_could_read_differently_is_refused(block: bytes, status: int) -> None:
    """Every leniency is a corner for a second request."""
    with pytest.raises(ProtocolError) as caught:
        parse_head(block)

    assert caught.value.status == status


@pytest.mark.parametrize(
    ("first", "path"),
    [
        ("GET http://x/a HTTP/1.1", "/a"),
        ("GET http://X HTTP/1.1", "/"),
        ("GET //a HTTP/1.1", "//a"),
        ("GET /%2F%41 HTTP/1.1", "/%2F%41"),
        ("GET /a..b/... HTTP/1.1", "/a..b/..."),
        ("OPTIONS * HTTP/1.1", "/"),
    ],
)
def test_unusual_targets_that_mean_one_thing_are_accepted(first: str, path: str) -> None:
    """Strict is not the same as picky."""
    assert parse_head(a_head(first=first)).path == path


@pytest.mark.parametrize(
    ("first", "line", "keeps"),
    [
        ("GET / HTTP/1.1", "Connection: keep-alive", True),
        ("GET / HTTP/1.1", "Connection: Authorization, close", False),
        ("GET / HTTP/1.0", "Connection: keep-alive", True),
        ("GET / HTTP/1.0", "X-A: b", False),
    ],
)
def test_the_connection_field_says_whether_it_stays_open(first: str, line: str, *, keeps: bool) -> None:
    """HTTP/1.0 and 1.1 have opposite defaults."""
    assert parse_head(a_head(line, first=first)).keeps_alive is keeps


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\n", 400),
        (b'{"model":', 400),
        (b"GET /" + b"a" * (limits.HTTP_TARGET_BYTES + 100), 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * limits.HTTP_HEADER_BLOCK_BYTES, 431),
    ],
)  # fmt: skip
def test_the_beginning_of_something_hopeless_is_refused_at_once(start: bytes, status: int) -> None:
    """Otherwise a client that speaks another protocol waits for the header timeout."""
    with pytest.raises(ProtocolError) as caught:
        check_partial(start, 0)

    assert caught.value.status == status


def test_no_beginning_of_a_good_head_is_refused() -> None:
    """A head may come in any pieces, a CR and its LF apart."""
    for end in range(1, len(GOOD)):
        check_partial(GOOD[:end], max(end - 2, 0))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_chunked_body_is_the_same_in_any_pieces(step: int) -> None:
    """Networks cut where they like."""
    wire = b"4\r\nWiki\r\n6;ext=1\r\npedia \r\nc\r\nin\r\n\r\nchunks\r\n0\r\nX-Trailer: dropped\r\n\r\n"
    decoder, buffer, body = ChunkedBody(100), bytearray(), None

    for at in range(0, len(wire), step):
        assert body is None
        buffer += wire[at : at + step]
        body = decoder.feed(buffer)

    assert body == b"Wikipedia in\r\n\r\nchunks"
    assert buffer == b""


def test_what_follows_a_chunked_body_is_left_for_the_next_request() -> None:
    """Pipelining begins right behind it."""
    buffer = bytearray(b"1\r\na\r\n0\r\n\r\nGET /")

    assert ChunkedBody(100).feed(buffer) == b"a"
    assert buffer == b"GET /"


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"fffffffffffffffff\r\n", 400),
        (b"5\nhello\n0\n\n", 400),
        (b"5\r\nhelloX\r\n", 400),
        (b"-5\r\n", 400),
        (b"0x5\r\n", 400),
        (b"+5\r\n", 400),
        (b"1_0\r\n", 400),
        (b"\r\n", 400),
        (b"5;" + b"a" * 200_000, 400),
        (b"5;" + b"a" * 400 + b"\r\nhello", 400),
        (b"0\r\nbad\n\r\n", 400),
        (b"0\r\nX: " + b"a" * 10_000, 400),
        (b"65\r\n", 413),
    ],
)
def test_bad_chunks_are_refused(wire: bytes, status: int) -> None:
    """Bare LF, endless extensions, overflowing sizes: each has hung or fooled a server."""
    with pytest.raises(ProtocolError) as caught:
        ChunkedBody(100).feed(bytearray(wire))

    assert caught.value.status == status


class SecondOpinion:
    """What another parser finds in the same bytes."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[str, str]] = []
        self.complete = 0

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field."""
        self.fields.append((name.decode().lower(), value.decode("latin-1").rstrip(" \t")))

    def on_headers_complete(self) -> None:
        """Count heads."""
        self.complete += 1


TEXT = st.text(st.sampled_from("abcXYZ019 :;,=\"'-_/\t\x0b\r\n\x7f\xe9"), max_size=12)
NAME = st.text(st.sampled_from("abcXYZ019-_!~ :"), min_size=1, max_size=8)
LINES = st.lists(st.tuples(NAME, TEXT).map(": ".join), max_size=5)


@given(lines=LINES, target=st.text(st.sampled_from("/abc%2F?&=.;~\\ \t#"), min_size=1, max_size=12))
def test_another_parser_reads_what_is_accepted_in_the_same_way(lines: list[str], target: str) -> None:
    """A request that llhttp would split elsewhere must not be accepted here."""
    block = a_head(*lines, first=f"GET /{target} HTTP/1.1")

    try:
        head = parse_head(block)
    except ProtocolError:
        return

    other = SecondOpinion()
    httptools.HttpRequestParser(other).feed_data(block)
    assert other.complete == 1
    assert other.url.decode() == (f"{head.path}?{head.query}" if "?" in other.url.decode() else head.path)
    assert other.fields == list(head.fields)
