"""Answers of adopted servers on their way to a client: renamed, tidied, and never taken for whole when they are not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core import limits
from meshllm.core.ids import ModelId
from meshllm.proxy.adopted_answers import AdoptedAnswer, renamed, told
from meshllm.proxy.framing import LAST_CHUNK, AnswerHead, chunk, parse_answer_head, payload_of

OURS = b'"ours"'


class RelayDouble:
    """Writes down what it is told."""

    is_head = False

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.doubts = 0

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        """Take a whole answer."""
        self.told.append(("whole", head, body))

    def on_head(self, head: AnswerHead) -> "RelayDouble":
        """Take a head."""
        self.told.append(("head", head))
        return self

    def on_piece(self, data: bytes) -> None:
        """Take a piece."""
        self.told.append(("piece", data))

    def on_suspect_piece(self, data: bytes) -> None:
        """Take a piece with an error, perhaps."""
        self.told.append(("suspect", data))

    def on_end(self) -> None:
        """Take the end."""
        self.told.append(("end",))

    def on_lost(self, *, was_stale: bool, is_between: bool, chunks: int) -> None:
        """Take a loss."""
        self.told.append(("lost", was_stale, is_between, chunks))

    def doubt(self) -> None:
        """Count."""
        self.doubts += 1

    @property
    def names(self) -> list[str]:
        """Return the calls in order."""
        return [call[0] for call in self.told]

    @property
    def payload(self) -> bytes:
        """Return what came as pieces, without chunks."""
        return b"".join(payload_of(call[1]) for call in self.told if call[0] in {"piece", "suspect"})


def a_head(*fields: str, status: int = 200, kind: str = "application/json") -> AnswerHead:
    """Return the head of an answer as a connection reads it."""
    lines = (f"HTTP/1.1 {status} Fine", f"Content-Type: {kind}", *fields, "", "")
    return parse_answer_head("\r\n".join(lines).encode())


def an_answer() -> tuple[RelayDouble, AdoptedAnswer]:
    """Return an answer and who waits for it."""
    relay = RelayDouble()
    return relay, AdoptedAnswer(relay, ModelId("ours"), relay.doubt)


STREAM = a_head("Transfer-Encoding: chunked", kind="text/event-stream")
CLOSED_STREAM = a_head("Connection: close", kind="text/event-stream; charset=utf-8")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (b'{"model":"theirs","a": 1}', b'{"model":"ours","a": 1}'),
        (b'{ "a" : [1,2] , "model" : "theirs" }', b'{ "a" : [1,2] , "model" : "ours" }'),
        (b'{"model":"ours"}', b'{"model":"ours"}'),
        (b'{"model":null}', b'{"model":null}'),
        (b'{"choices":[{"model":"theirs"}]}', b'{"choices":[{"model":"theirs"}]}'),
        (b'{"x":"{\\"model\\":1}","model":"theirs"}', b'{"x":"{\\"model\\":1}","model":"ours"}'),
        (b'{"type":"x","message":{"model":"theirs"}}', b'{"type":"x","message":{"model":"ours"}}'),
        (b'{"response":{"id":1,"model":"theirs"},"n":1}', b'{"response":{"id":1,"model":"ours"},"n":1}'),
        (b'["model"]', b'["model"]'), (b'{"model":"theirs"', b'{"model":"theirs"'),
        (b'\xff"model"', b'\xff"model"'),
    ],
)  # fmt: skip
def test_the_model_is_called_what_the_mesh_calls_it(theirs: bytes, ours: bytes) -> None:
    """Every other byte stays as it was; what a text says of models is nobody's business."""
    assert renamed(theirs, OURS) == ours


@given(
    st.dictionaries(st.sampled_from(["model", "message", "a"]), st.text() | st.lists(st.text(max_size=3), max_size=2))
)
def test_renaming_changes_nothing_but_the_name(document: dict[str, Any]) -> None:
    """Whatever a server answers."""
    found = json.loads(renamed(json.dumps(document).encode(), OURS))

    if isinstance(document.get("model"), str):
        document["model"] = "ours"
    assert found == document


def test_only_fields_that_concern_the_answer_come_through() -> None:
    """A cookie or a redirect of a stranger would be ours to the client's browser."""
    relay, answer = an_answer()
    fields = (
        "Set-Cookie: a=b",
        "Location: http://elsewhere",
        "Strict-Transport-Security: 1",
        "Cache-Control: no-store",
    )

    answer.on_whole(a_head(*fields, "Content-Length: 18"), b'{"model":"theirs"}')

    _, head, body = relay.told[0]
    assert body == b'{"model":"ours"}'
    assert head.sized_lines == (
        b"HTTP/1.1 200 Fine\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: 16\r\n"
    )
    assert head.answer_start == head.sized_lines + b"X-Request-ID: "


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_stream_goes_on_event_by_event(step: int, end: bytes) -> None:
    """However the bytes come."""
    relay, answer = an_answer()
    events = [b'data: {"model":"theirs","n":%d}' % number + end for number in range(3)]
    sent = b": ping" + end + b"".join(events) + b"data: [DONE]" + end
    answer.on_head(STREAM)

    for at in range(0, len(sent), step):
        answer.on_piece(chunk(sent[at : at + step]))
        assert relay.payload == b"" or relay.payload.endswith(end)
    answer.on_end()

    assert relay.payload == sent.replace(b"theirs", b"ours")
    assert (relay.names[0], relay.names[-1]) == ("head", "end")
    assert relay.told[0][1].is_chunked
    assert relay.told[0][1].is_event_stream


def test_a_stream_that_only_the_connection_ends_is_whole_when_it_says_so() -> None:
    """A server that dies ends its connection just the same."""
    whole_relay, whole = an_answer()
    whole.on_head(CLOSED_STREAM)
    whole.on_piece(b'data: {"n":1}\n\ndata: [DONE]\n\n')
    whole.on_end()
    cut_relay, cut = an_answer()
    cut.on_head(CLOSED_STREAM)
    cut.on_piece(b'data: {"n":1}\n\ndata: {"n"')
    cut.on_end()

    assert whole_relay.names == ["head", "piece", "piece", "end"]
    assert whole_relay.told[2] == ("piece", LAST_CHUNK)
    assert cut_relay.names[-1] == "lost"
    assert cut_relay.payload.startswith(b'data: {"n":1}\n\n')


def test_half_an_event_is_dropped_with_its_server() -> None:
    """What went on before ends between events, so an error can follow."""
    relay, answer = an_answer()
    answer.on_head(STREAM)
    answer.on_piece(chunk(b'data: {"n":1}\n\ndata: {"n"'))

    answer.on_lost(was_stale=False, is_between=False, chunks=1)

    assert relay.payload == b'data: {"n":1}\n\n'
    assert relay.told[-1] == ("lost", False, True, 1)
    assert relay.doubts == 1


def test_a_resting_connection_that_was_closed_is_no_reason_for_doubt() -> None:
    """Every server does that after a while."""
    relay, answer = an_answer()

    answer.on_lost(was_stale=True, is_between=False, chunks=0)

    assert (relay.told, relay.doubts) == ([("lost", True, True, 0)], 0)


def test_an_event_that_is_too_long_goes_on_as_it_is() -> None:
    """Memory is bounded; what follows is renamed again."""
    relay, answer = an_answer()
    answer.on_head(STREAM)
    long = b'data: {"model":"theirs","text":"' + b"x" * limits.ENGINE_CHUNK_HELD_BYTES
    answer.on_piece(chunk(long))
    went = relay.payload
    is_between = answer.is_between

    answer.on_piece(chunk(b'"}\n\ndata: {"model":"theirs"}\n\n'))

    assert (went, is_between) == (long, False)
    assert relay.payload.endswith(b'"}\n\ndata: {"model":"ours"}\n\n')
    assert answer.is_between


def test_an_error_in_a_stream_is_looked_at() -> None:
    """Whoever waits knows what an error looks like."""
    relay, answer = an_answer()
    answer.on_head(STREAM)

    answer.on_suspect_piece(chunk(b'data: {"error":{"message":"no"}}\n\n'))

    assert relay.names == ["head", "suspect"]


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Connection: close", "Content-Length: 18"])
def test_an_answer_in_pieces_becomes_whole(framing: str) -> None:
    """So that it can be renamed, and tried again while it is not."""
    relay, answer = an_answer()
    head = a_head(framing)
    pieces = [b'{"model"', b':"theirs"}']
    answer.on_head(head)

    for piece in pieces:
        answer.on_piece(chunk(piece) if head.is_chunked else piece)
    before = list(relay.names)
    answer.on_end()

    assert before == []
    assert relay.names == ["whole"]
    assert relay.told[0][2] == b'{"model":"ours"}'


def test_an_answer_that_breaks_off_is_not_taken_for_whole() -> None:
    """Without a length only its own end tells."""
    relay, answer = an_answer()
    answer.on_head(a_head("Connection: close"))
    answer.on_piece(b'{"model":"the')

    answer.on_end()

    assert relay.told == [("lost", False, True, 0)]


def test_an_answer_too_long_to_be_held_goes_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of many texts; the name is the server's then."""
    monkeypatch.setattr(limits, "REMOTE_ANSWER_HELD_BYTES", 10)
    relay, answer = an_answer()
    answer.on_head(a_head("Content-Length: 44"))

    answer.on_piece(b'{"model":"theirs",')
    answer.on_piece(b'"data":[0.1,0.2,0.3,0.4]}')
    answer.on_end()

    assert relay.names == ["head", "piece", "piece", "piece", "end"]
    assert relay.payload == b'{"model":"theirs","data":[0.1,0.2,0.3,0.4]}'
    assert (relay.told[0][1].is_chunked, relay.told[0][1].length) == (True, None)


@pytest.mark.parametrize("status", [301, 302, 307, 401, 403, 407])
def test_the_servers_quarrels_with_this_node_are_not_the_clients(status: int) -> None:
    """The client's own key was good, and it must not be sent elsewhere."""
    relay, answer = an_answer()

    answer.on_whole(a_head("Location: http://elsewhere", "Content-Length: 2", status=status), b"{}")

    _, head, body = relay.told[0]
    assert head.status == 502
    assert b"elsewhere\r\n" not in head.lines
    assert b"'ours'" in body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":"model is busy"}', "model is busy"), (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"object":"error","message":"too long","code":400}', "too long"),
    ],
)  # fmt: skip
def test_errors_of_other_shapes_are_put_into_ours(body: bytes, message: str) -> None:
    """Each server family has its own."""
    assert json.loads(told(400, body, ModelId("ours"))[1]) == {"error": {"message": message}}


@pytest.mark.parametrize(
    "body", [b'{"error":{"message":"x","code":7}}', b"<html>", b"[]", b"", b'{"detail":[{"a":1}]}']
)
def test_errors_that_are_read_elsewhere_stay_as_they_are(body: bytes) -> None:
    """Our own shape, and what is none."""
    assert told(500, body, ModelId("ours")) == (500, body)
