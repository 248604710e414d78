"""Answers of engines are passed on byte for byte, in pieces after which a stream can still end properly."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core import limits
from meshllm.proxy.framing import AnswerError, ChunkRelay, chunk, parse_answer_head, payload_of

EVENTS = b"".join(chunk(b"data: %d\n\n" % number) for number in range(40))
LAST = b"0\r\n\r\n"


def a_head(*lines: str, first: str = "HTTP/1.1 200 OK") -> bytes:
    """Return the head of an answer."""
    return "\r\n".join((first, *lines, "", "")).encode("latin-1")


def relayed(wire: bytes, step: int, *, by_event: bool) -> list[bytes]:
    """Return what is handed out of a body that comes in steps."""
    relay = ChunkRelay(by_event=by_event)
    pieces = [relay.take(wire[at : at + step]) for at in range(0, len(wire), step)]
    assert relay.is_complete
    return pieces


def test_a_head_keeps_the_fields_that_belong_to_the_answer() -> None:
    """Framing is ours, and neither the engine's name nor its idea of CORS is anybody's business."""
    lines = ("Server: e", "Content-Type: a/b", "Content-Length: 3", "Keep-Alive: timeout=5", "X-A: 1",
             "Access-Control-Allow-Origin: *", "Connection: close", "X-Request-ID: theirs")  # fmt: skip

    head = parse_answer_head(a_head(*lines))

    assert head.lines == b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX-A: 1\r\n"
    assert head.sized_lines == head.lines + b"Content-Length: 3\r\n"
    assert (head.status, head.length, head.is_chunked, head.keeps_alive) == (200, 3, False, False)


@pytest.mark.parametrize(
    ("block", "length", "is_chunked", "keeps_alive"),
    [
        (a_head("Content-Length: 0"), 0, False, True),
        (a_head("Transfer-Encoding: chunked"), None, True, True),
        (a_head(), None, False, False),
        (a_head(first="HTTP/1.1 204 No Content"), 0, False, True),
        (a_head("Content-Length: 7", first="HTTP/1.1 304 Not Modified"), 0, False, True),
        (a_head(first="HTTP/1.1 100 Continue"), None, False, False),
        (a_head("Content-Length: 3", first="HTTP/1.0 200 OK"), 3, False, False),
    ],
)
def test_the_end_of_an_answer_is_found(
    block: bytes, length: int | None, *, is_chunked: bool, keeps_alive: bool
) -> None:
    """By its length, its chunks, its status or the end of the connection."""
    head = parse_answer_head(block)

    assert (head.length, head.is_chunked, head.keeps_alive) == (length, is_chunked, keeps_alive)


@pytest.mark.parametrize(
    "block",
    [
        a_head(first="HTTP/1.1 99 Low"),
        a_head(first="HTTP/1.1 1000 High"),
        a_head(first="HTTP/2 200 OK"),
        a_head("X-A: a\rSet-Cookie: b"),
        a_head("Content-Length: 1", "Content-Length: 2"),
        a_head("Content-Length: +1"),
        a_head("Content-Length: 1", "Transfer-Encoding: chunked"),
        a_head("Transfer-Encoding: gzip"),
        a_head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        b"SSH-2.0-x\r\n\r\n",
    ],
)
def test_an_answer_that_is_not_http_is_an_error(block: bytes) -> None:
    """An engine is a neighbour, not a part of the front door."""
    with pytest.raises(AnswerError):
        parse_answer_head(block)


@given(step=st.integers(1, 400), by_event=st.booleans())
def test_pieces_together_are_what_came(step: int, *, by_event: bool) -> None:
    """No byte is added, lost or reordered, wherever the network cuts."""
    assert b"".join(relayed(EVENTS + LAST, step, by_event=by_event)) == EVENTS + LAST


@given(step=st.integers(1, 100))
def test_every_piece_ends_between_events(step: int) -> None:
    """After any piece an error event and the last chunk make a proper end."""
    for piece in relayed(EVENTS + LAST, step, by_event=True):
        assert piece == b"" or piece.endswith((b"\n\n\r\n", LAST))


def test_an_event_in_several_chunks_is_handed_out_whole() -> None:
    """A client that gets half an event and then an error would parse half an event."""
    relay = ChunkRelay(by_event=True)

    pieces = [relay.take(chunk(b"data: a")), relay.take(chunk(b"b\n")), relay.take(chunk(b"\n") + chunk(b"data"))]

    assert pieces == [b"", b"", chunk(b"data: a") + chunk(b"b\n") + chunk(b"\n")]
    assert relay.is_between


BIG = b"data: " + b"x" * limits.ENGINE_CHUNK_HELD_BYTES + b"\n\n"


def test_a_chunk_above_the_limit_is_passed_on_as_smaller_ones() -> None:
    """Buffers are bounded, and after any piece the body can still be ended; only the event cannot."""
    relay = ChunkRelay(by_event=True)
    big = chunk(BIG)

    first = relay.take(big[:-100])
    middle = relay.is_between
    rest = relay.take(big[-100:])

    assert payload_of(first + rest) == BIG
    assert payload_of(first) == BIG[:-98]
    assert (middle, relay.is_between, relay.chunks) == (False, True, 1)


@given(
    cuts=st.lists(st.integers(0, 2 * len(BIG) + 300), max_size=8),
    by_event=st.booleans(),
    near_ends=st.lists(st.integers(-8, 8), max_size=4),
)
def test_big_chunks_keep_every_byte_wherever_they_are_cut(
    cuts: list[int], near_ends: list[int], *, by_event: bool
) -> None:
    """What goes out is whole chunks after every piece, and together what came in."""
    wire = EVENTS + chunk(BIG) + chunk(BIG) + EVENTS + LAST
    edges = [len(EVENTS) + len(chunk(BIG)) * number + near for number in (0, 1, 2) for near in near_ends]
    at = sorted({0, len(wire), *(cut for cut in (*cuts, *edges) if 0 < cut < len(wire))})
    relay, out = ChunkRelay(by_event=by_event), b""

    for start, end in pairwise(at):
        out += (piece := relay.take(wire[start:end]))
        assert framed_bytes(piece.removesuffix(LAST)) == len(piece.removesuffix(LAST))

    assert payload_of(out) == payload_of(wire)
    assert out.endswith(LAST)
    assert (relay.is_complete, relay.is_between) == (True, True)


@pytest.mark.parametrize("end", [b"XX", b"\rX", b"\n\n", b"\n\r"])
@pytest.mark.parametrize("split", [0, 1, 2])
def test_a_big_chunk_has_to_end_as_any_other(end: bytes, split: int) -> None:
    """Its parts are counted."""
    wire = chunk(BIG)[:-2] + end
    relay = ChunkRelay(by_event=True)

    pieces = (wire[:70000], wire[70000 : len(wire) - split], wire[len(wire) - split :], LAST)

    with pytest.raises(AnswerError):
        b"".join(map(relay.take, pieces))


def framed_bytes(wire: bytes) -> int:
    """Return how many bytes of it are whole chunks."""
    at = 0
    while at < len(wire):
        size_end = wire.index(b"\r\n", at)
        at = size_end + 2 + int(wire[at:size_end], 16) + 2
    return at


def test_an_endless_event_is_passed_on_in_parts() -> None:
    """A gigabyte without a blank line must not become a gigabyte of memory."""
    relay = ChunkRelay(by_event=True)
    line = chunk(b"x" * 9000)

    out = sum(len(relay.take(line)) for _ in range(100))

    assert out > 80 * len(line)
    assert not relay.is_between


@pytest.mark.parametrize(
    "wire",
    [
        b"zz\r\n",
        b"5\nhello",
        b"5\r\nhelloXX",
        b"123456789\r\n",
        b"5;" + b"a" * 400,
        LAST + b"HTTP/1.1 200 OK\r\n",
        b"0\r\nbad trailer\r\n\r\n",
    ],
)
def test_bad_chunks_are_an_error(wire: bytes) -> None:
    """What cannot be followed cannot be passed on."""
    with pytest.raises(AnswerError):
        ChunkRelay(by_event=False).take(wire)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"m"}}\n\n',
        b'data:{"error":{"message":"m"}}\n\n',
        b'event: error\ndata: {"message":"m"}\n\n',
        b'error: {"message":"m"}\n\n',
    ],
)
def test_what_looks_like_an_error_is_marked(event: bytes) -> None:
    """By a chunk of any size, seen before or not, alone or behind others."""
    good = chunk(b"data: {}" + b" " * len(event) + b"\n\n")
    for wire in (chunk(event), chunk(event), good + chunk(event), good + chunk(event) + good):
        relay = ChunkRelay(by_event=True)

        assert relay.take(wire) == wire
        assert relay.may_have_error


@pytest.mark.parametrize("times", [1, 3])
def test_a_text_about_errors_is_hardly_ever_marked(times: int) -> None:
    """Models write about errors; looking closer costs time."""
    wire = chunk(b'data: {"choices":[{"delta":{"content":"an error"}}]}\n\n') * times
    ChunkRelay(by_event=True).take(wire)
    stream, other = ChunkRelay(by_event=True), ChunkRelay(by_event=False)

    assert stream.take(wire) == wire
    assert not stream.may_have_error
    other.take(chunk(b'data: {"error":{}}\n\n'))
    assert not other.may_have_error


@given(
    payloads=st.lists(
        st.sampled_from([b"data: 1234\n\n", b"data: a\n", b"\n", b"a\r\nb", b"\r\n0\r\n\r\n", b"c\r\n\n\n"]), min_size=1
    ),
    ending=st.sampled_from([b"", LAST, LAST[:2], b"0;x\r\n\r\n", b"c\r\ndata", b"zz\r\n"]),
    cut=st.integers(0, 60),
    by_event=st.booleans(),
)
def test_chunks_of_known_sizes_are_taken_as_those_of_unknown_ones(
    payloads: list[bytes], ending: bytes, cut: int, *, by_event: bool
) -> None:
    """The short way for what was seen before hands out the same, counts the same and fails the same."""
    wire = b"".join(map(chunk, payloads)) + ending
    for payload in payloads:
        ChunkRelay(by_event=False).take(chunk(payload) * 2)

    assert taken(wire, cut, by_event=by_event) == taken(wire, cut, by_event=by_event, is_slow=True)


def taken(wire: bytes, cut: int, *, by_event: bool, is_slow: bool = False) -> list[object]:
    """Return all that is to be seen of a relay that gets a body in two pieces."""
    relay, seen = ChunkRelay(by_event=by_event), list[object]()
    for piece in (wire[:cut], wire[cut:]) if cut else (wire,):
        try:
            seen.append(relay._take_slowly(piece) if is_slow else relay.take(piece))
        except AnswerError as error:
            return [*seen, str(error)]
        seen += [relay.chunks, relay.is_between, relay.is_complete]
    return seen


def test_a_size_line_is_only_remembered_if_it_is_one() -> None:
    """The memory of size lines must not make a bad one good the second time."""
    for _ in range(2):
        with pytest.raises(AnswerError):
            ChunkRelay(by_event=True).take(b"+7\r\nabc\n\n\r\n")


def test_payload_is_what_the_chunks_hold() -> None:
    """HTTP/1.0 has no chunks."""
    assert payload_of(chunk(b"ab") + chunk(b"c\r\n") + LAST) == b"abc\r\n"
