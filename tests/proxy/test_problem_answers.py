"""An error as it goes out when nothing of an answer is out yet."""

import json

import pytest

from meshllm.proxy.http1 import parse_head
from meshllm.proxy.intake import Intake, take_in
from meshllm.proxy.openai import Problem
from meshllm.proxy.problem_answers import problem_answer


def an_intake(line: str) -> Intake:
    """Return the verdict on a head."""
    return take_in(parse_head(f"{line} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()), None, "")


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem(status=503, code="c", message="m", retry_after_s=3), b"Retry-After: 3\r\n"),
        (Problem(status=405, code="c", message="m", allow="POST"), b"Allow: POST\r\n"),
        (Problem(status=401, code="c", message="m"), b"WWW-Authenticate: Bearer\r\n"),
    ],
)
def test_an_error_brings_the_fields_that_help(problem: Problem, line: bytes) -> None:
    """When to come back, what is allowed, how to say who one is."""
    head, _, body = problem_answer(problem, None, b"X-Own: 1\r\n").partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % problem.status)
    assert line in head + b"\r\n"
    assert b"X-Own: 1" in head
    assert b"Content-Length: %d\r\n" % len(body) in head
    assert json.loads(body)["error"]["code"] == "c"


def test_the_answer_to_head_has_no_body_and_anthropics_has_its_own_shape() -> None:
    """Its length is told all the same."""
    problem = Problem(status=404, code="not_found", message="m")

    assert problem_answer(problem, an_intake("HEAD /v1/models/x"), b"").endswith(b"\r\n\r\n")
    anthropic = problem_answer(problem, an_intake("POST /v1/messages"), b"").partition(b"\r\n\r\n")[2]
    assert json.loads(anthropic)["type"] == "error"
