"""A remembered verdict is the verdict that reading anew would give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core import limits
from meshllm.proxy.access import AccessRules
from meshllm.proxy.heads import Arrival, Heads
from meshllm.proxy.http1 import ProtocolError

RULES = AccessRules(bound_host="127.0.0.1", api_key="k", allowed_origins=frozenset({"https://a.example"}))
GOOD = ("Host: localhost", "Authorization: Bearer k", "Content-Type: application/json", "Content-Length: 10")


def a_block(*lines: str, first: str = "POST /v1/chat/completions HTTP/1.1") -> bytes:
    """Return a head of exactly those lines."""
    return "\r\n".join((first, *lines, "", "")).encode("latin-1")


def some_heads() -> Heads:
    """Return a memory that is empty."""
    return Heads(RULES, "127.0.0.1")


def outcome(heads: Heads, block: bytes) -> object:
    """Return everything about a verdict that anything depends on."""
    try:
        arrival = heads.read(block)
    except ProtocolError as error:
        return error.status
    intake = arrival.intake
    return (
        arrival.length, arrival.plain_length, arrival.request_id, intake.door, intake.refusal, intake.inference,
        intake.cors_lines, intake.engine_lines, intake.keeps_alive, intake.answer_end, intake.body_limit_bytes,
        intake.other_type, intake.is_head, intake.has_body, intake.head.is_chunked, intake.head.expects_continue,
        intake.head.minor, intake.priority, arrival.is_straight, arrival.path, arrival.engine_start,
    )  # fmt: skip


LINE = st.sampled_from([
    "Content-Length: 10", "Content-Length: 11", "Content-Length: 012", "Content-Length: 10 ", "Content-Length: 1_0",
    f"Content-Length: {'1' * 19}", "X-Content-Length: 5", "content-length: 7", "content-length: 8",
    "Content-Length: 0", "Content-Length: +7", "Content-Length : 7",
    f"Content-Length: {limits.HTTP_BODY_BYTES + 1}", "X-Request-ID: abc", "X-Request-ID: efg",
    "X-Request-ID: ", "X-Request-ID:  h", "X-Request-ID: a b", "x-request-id: d",
    "Host: localhost", "Host: evil.example", "Origin: https://a.example", "Origin: https://b.example", "Accept: a/b",
    "Authorization: Bearer k", "Authorization: Bearer x", "X-API-Key: k", "Connection: close", "Connection: Host",
    "Content-Type: application/json", "Content-Type: text/plain", "Content-Encoding: gzip", "Expect: 100-continue",
    "Transfer-Encoding: chunked", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate",
    "Traceparent: 00-1", "Traceparent: 00-2", "X: y", " folded: z", "bad line", "X-A: \x01", "Cookie: a=b",
    "X-Priority: high", "X-Priority: low", "x-priority: odd",
    *[f"X-Many-{number}: {number}" for number in range(3)],
])  # fmt: skip
BLOCK = st.builds(
    lambda lines, first: a_block(*lines, first=first),
    st.lists(LINE, max_size=9),
    st.sampled_from([
        "POST /v1/chat/completions HTTP/1.1", "POST /v1/chat/completions HTTP/1.0", "POST /v1/embeddings?x=y HTTP/1.1",
        "GET /v1/models HTTP/1.1", "POST /v1/models/unload HTTP/1.1", "POST /v1/chat/../completions HTTP/1.1",
    ]),
)  # fmt: skip


@given(blocks=st.lists(BLOCK, min_size=1, max_size=30))
def test_memory_never_changes_a_verdict(blocks: list[bytes]) -> None:
    """Whatever came before: the same bytes mean the same."""
    heads = some_heads()
    heads.read(a_block(*GOOD))

    for block in (*blocks, *blocks):
        assert outcome(heads, block) == outcome(some_heads(), block)


def test_a_head_that_came_before_is_not_read_again() -> None:
    """The same object, thousands of times."""
    heads = some_heads()

    first = heads.read(a_block(*GOOD))

    assert heads.read(a_block(*GOOD)) is first


@pytest.mark.parametrize("line", ["X-Request-ID: other", "Traceparent: 00-7", "User-Agent: x", "Cookie: y"])
def test_what_makes_no_difference_may_vary(line: str) -> None:
    """A length, an id or a trace in each request is what real clients send."""
    heads = some_heads()
    first = heads.read(a_block(*GOOD))

    second = heads.read(a_block(*GOOD[:-1], line, "Content-Length: 77"))

    assert second.intake is first.intake
    assert (second.length, second.plain_length) == (77, 77)


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "CONTENT-LENGTH"])
def test_a_request_id_stays_with_its_head_when_the_length_varies(name: str) -> None:
    """A known head with another length is not read, but nothing of it is lost."""
    heads = some_heads()

    first, second = (heads.read(a_block(*GOOD[:3], f"{name}: {length}", "X-Request-ID: mine")) for length in (10, 77))

    assert second.intake is first.intake
    assert (second.length, second.plain_length, second.request_id) == (77, 77, b"mine")
    assert second.engine_start.endswith(b"Content-Length: 77\r\n")


@pytest.mark.parametrize("name", ["X-Request-ID", "x-request-id", "X-REQUEST-ID"])
def test_every_request_has_its_own_id(name: str) -> None:
    """A known head with another id is not read, but the id is this request's."""
    heads = some_heads()

    first, second = (heads.read(a_block(*GOOD, f"{name}: id-{number}")) for number in (1, 2))

    assert second.intake is first.intake
    assert (first.request_id, second.request_id) == (b"id-1", b"id-2")
    assert heads.read(a_block(*GOOD, f"{name}: ")).request_id is None
    assert heads.read(a_block(*GOOD, f"{name}: id-3")).request_id == b"id-3"


def came(first: str, *lines: str) -> Arrival:
    """Return the verdict on a head for localhost, with the key."""
    return some_heads().read(a_block("Host: localhost", "X-API-Key: k", *lines, first=f"{first} HTTP/1.1"))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-1_2.3:4", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("a\tb", False),
        ("é", False),
        ("", False),
    ],
)
def test_only_a_sane_request_id_is_kept(given: str, *, kept: bool) -> None:
    """It is repeated in the answer and in logs."""
    assert (came("GET /v1/models", f"X-Request-ID: {given}").request_id is not None) is kept


def test_a_body_that_has_to_be_watched_is_not_plain() -> None:
    """The fast path is for requests that are complete as soon as their length is there."""
    post = "POST /v1/completions"

    assert came(post, "Content-Length: 5").plain_length == 5
    assert came(post, "Content-Length: 5", "Expect: 100-continue").plain_length == -1
    assert came(post, "Transfer-Encoding: chunked").plain_length == -1
    assert came(post, f"Content-Length: {limits.HTTP_BODY_BYTES + 1}").plain_length == -1
    assert came("GET /v1/completions", "Content-Length: 5").plain_length == -1


def test_memory_is_bounded() -> None:
    """A client that varies everything fills it, and it is emptied."""
    heads = some_heads()

    for number in range(3 * limits.HEADS_REMEMBERED):
        heads.read(a_block(*GOOD, f"Accept: a/{number}"))
    heads.read(a_block(*GOOD, f"X-A: {'a' * limits.HEAD_REMEMBERED_BYTES}"))

    assert len(heads.known) <= limits.HEADS_REMEMBERED
    assert len(heads._intakes) <= limits.HEADS_REMEMBERED
    assert len(heads._by_rest) <= limits.HEADS_REMEMBERED


def test_a_node_that_leaves_keeps_no_promise_of_open_connections() -> None:
    """What is remembered says `keep-alive`."""
    heads = some_heads()
    known = heads.known
    before = heads.read(a_block(*GOOD))

    heads.forget()
    after: Arrival = heads.read(a_block(*GOOD))

    assert before.intake.keeps_alive
    assert not after.intake.keeps_alive
    assert heads.known is known


TRACES = [f"00-{n:032x}-{n:016x}-01" for n in (1, 2)]


def test_every_request_keeps_its_own_trace() -> None:
    """Also where the rest of its head was met before: a trace that another request gets is worse than none."""
    heads = some_heads()

    found = [heads.read(a_block(*GOOD, f"traceparent: {trace}")).trace.decode() for trace in TRACES * 2]

    assert found == TRACES * 2
    again = heads.read(a_block(*GOOD[:-1], f"traceparent: {TRACES[0]}", "Content-Length: 78"))
    assert again.trace.decode() == TRACES[0]
    assert heads.read(a_block(*GOOD)).trace == b""


@pytest.mark.parametrize("value", ["00-7", "x" * 55, TRACES[0] + "-more", TRACES[0].replace("1", "G")])
def test_what_is_no_trace_is_left_out(value: str) -> None:
    """It goes on to other nodes."""
    assert some_heads().read(a_block(*GOOD, f"traceparent: {value}")).trace == b""
