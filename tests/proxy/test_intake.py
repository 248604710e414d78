"""A head alone decides the door, and what of it goes on."""

import pytest

from meshllm.core import limits
from meshllm.core.routing.priorities import Priority
from meshllm.proxy.access import AccessRules
from meshllm.proxy.http1 import parse_head
from meshllm.proxy.intake import Door, Intake, take_in

RULES = AccessRules(bound_host="127.0.0.1", allowed_origins=frozenset({"https://a.example"}))


def taken(first: str, *lines: str, is_leaving: bool = False) -> Intake:
    """Return the verdict on a head for localhost."""
    head = parse_head("\r\n".join((f"{first} HTTP/1.1", "Host: localhost", *lines, "", "")).encode())
    return take_in(head, RULES, "127.0.0.1", is_leaving=is_leaving)


def status_of(intake: Intake) -> int:
    """Return the status of the refusal, or 200."""
    return intake.refusal.status if intake.refusal is not None else 200


@pytest.mark.parametrize(
    ("first", "lines", "door"),
    [
        ("POST /v1/chat/completions", [], Door.INFERENCE),
        ("GET /v1/models", [], Door.MODELS),
        ("HEAD /v1/models/x", [], Door.MODELS),
        ("POST /v1/models/unload", [], Door.MANAGEMENT),
        ("POST /v1/models/default", [], Door.MANAGEMENT),
        ("GET /api/status", [], Door.MANAGEMENT),
        ("GET /slots", [], Door.MANAGEMENT),
        ("GET /props", [], Door.MANAGEMENT),
        ("OPTIONS /v1/chat/completions", ["Origin: https://a.example"], Door.PREFLIGHT),
        ("GET /v1/models", ["Origin: https://b.example"], Door.REFUSED),
    ],
)
def test_the_door_follows_from_method_and_path(first: str, lines: list[str], door: Door) -> None:
    """What engines know of prompts (`/slots`, `/props`) has no door at all."""
    assert taken(first, *lines).door is door


@pytest.mark.parametrize(
    ("first", "lines", "status"),
    [
        ("GET /v1/chat/completions", [], 405),
        ("OPTIONS /v1/chat/completions", [], 405),
        ("POST /v1/models", [], 405),
        ("POST /v1/embeddings", ["Content-Type: application/json; charset=utf-16"], 415),
        ("POST /v1/embeddings", ['Content-Type: application/json; charset="UTF-8"'], 200),
        ("POST /v1/embeddings", ["Content-Type: APPLICATION/JSON"], 200),
        ("POST /v1/embeddings", ["Content-Type: application/x-www-form-urlencoded"], 200),
        ("POST /v1/embeddings", ["Content-Encoding: gzip"], 415),
        ("POST /v1/embeddings", ["Content-Encoding: identity"], 200),
    ],
)  # fmt: skip
def test_method_and_encodings_are_decided_before_the_body(first: str, lines: list[str], status: int) -> None:
    """No body can make these good."""
    assert status_of(taken(first, *lines)) == status


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("application/json", ""), ("APPLICATION/JSON ; charset=utf-8", ""), ("text/plain", ""), ("", ""),
        ("application/x-www-form-urlencoded", ""), ("application/ld+json", ""),
        ("Multipart/Form-Data; boundary=x", "multipart/form-data"), ("application/jsonp", "application/jsonp"),
    ],
)  # fmt: skip
def test_a_type_that_is_not_json_is_kept_for_when_the_body_is_none_either(kind: str, other: str) -> None:
    """Until then it is only a word."""
    assert taken("POST /v1/embeddings", f"Content-Type: {kind}").other_type == other


def test_a_wrong_method_is_told_the_right_one() -> None:
    """RFC 9110 15.5.6."""
    refusal = taken("DELETE /v1/completions").refusal

    assert refusal is not None
    assert refusal.allow == "POST"


def test_an_engine_gets_a_small_head_of_our_own() -> None:
    """Nothing that identifies the client, and nothing that could be read as framing."""
    lines = ("Authorization: Bearer client", "Cookie: a=b", "X-API-Key: k", "User-Agent: u",
             "Accept: text/event-stream", "Connection: keep-alive, X-Foo", "X-Foo: 1", "Content-Length: 5")  # fmt: skip

    intake = taken("POST /chat/completions?debug=1", *lines)

    assert intake.engine_lines == (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
        b"Accept: text/event-stream\r\n"
    )


def test_the_management_app_gets_what_the_client_sent_except_credentials_and_framing() -> None:
    """It answers browsers: ETags, ranges and last event ids have to arrive."""
    lines = ("Authorization: Bearer c", "Cookie: a=b", "If-None-Match: x", "Connection: close", "Upgrade: websocket",
             "Transfer-Encoding: chunked")  # fmt: skip

    intake = taken("POST /api/pull?x=1", *lines)

    assert intake.engine_lines == b"POST /api/pull?x=1 HTTP/1.1\r\nhost: localhost\r\nif-none-match: x\r\n"
    assert intake.body_limit_bytes == limits.MANAGEMENT_BODY_BYTES


def test_answers_say_what_becomes_of_the_connection() -> None:
    """A node that leaves keeps no connection."""
    assert taken("GET /v1/models").answer_end == b"\r\n"
    assert taken("GET /v1/models", is_leaving=True).answer_end == b"Connection: close\r\n\r\n"
    assert not taken("GET /v1/models", is_leaving=True).keeps_alive


@pytest.mark.parametrize(
    ("lines", "priority"),
    [
        ([], Priority.NORMAL), (["X-Priority: high"], Priority.HIGH), (["x-priority: LOW "], Priority.LOW),
        (["X-Priority: normal"], Priority.NORMAL),
    ],
)  # fmt: skip
def test_a_priority_is_one_of_three_words(lines: list[str], priority: Priority) -> None:
    """In any case."""
    assert taken("POST /v1/embeddings", *lines).priority is priority


@pytest.mark.parametrize("value", ["urgent", "1", "high, low"])
def test_another_priority_is_refused_where_it_would_count(value: str) -> None:
    """The management app has none."""
    refusal = taken("POST /v1/embeddings", f"X-Priority: {value}").refusal

    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_priority", "X-Priority")
    assert taken("GET /api/status", f"X-Priority: {value}").refusal is None


@pytest.mark.parametrize(
    ("lines", "may"),
    [([], True), (["X-Mesh-Resume: on"], True), (["X-Mesh-Resume: OFF"], False), (["x-mesh-resume: false"], False)],
)
def test_a_client_may_not_want_its_stream_resumed(lines: list[str], *, may: bool) -> None:
    """It would rather ask again itself."""
    assert taken("POST /v1/chat/completions", *lines).may_resume is may
