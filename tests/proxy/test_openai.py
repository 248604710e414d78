"""Every error has one shape, and every refusal its status."""

import json

import pytest

from meshllm.core.serving.routing import Refusal, RefusalCode
from meshllm.proxy.openai import Problem, engine_problem, error_document, reason_phrase, refused, unknown_model


def test_an_error_has_the_four_fields_of_openai() -> None:
    """Clients read `error.message` without looking whether it is there."""
    problem = Problem(status=400, code="c", message="m", param="p")

    assert json.loads(error_document(problem)) == {
        "error": {"message": "m", "type": "invalid_request_error", "param": "p", "code": "c"}
    }
    assert json.loads(error_document(problem, anthropic=True))["type"] == "error"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.MODEL_NOT_FOUND, 404), (RefusalCode.AMBIGUOUS_MODEL, 409), (RefusalCode.NO_DEFAULT_MODEL, 503),
        (RefusalCode.CAPABILITY_NOT_SUPPORTED, 400), (RefusalCode.NO_CAPACITY, 503), (RefusalCode.MODEL_HELD, 503),
        (RefusalCode.MODEL_UNLOADED, 503), (RefusalCode.MODEL_FAILED, 503), (RefusalCode.LEAVING, 503),
    ],
)  # fmt: skip
def test_refusals_have_their_status(code: RefusalCode, status: int) -> None:
    """What the client can mend is 4xx, what time can mend is 503."""
    problem = refused(Refusal(code=code, message="m"), 3)

    assert (problem.status, problem.code) == (status, code.value)
    assert reason_phrase(problem.status) != "Error"


def test_every_refusal_of_routing_has_a_status() -> None:
    """A new one must not become a KeyError."""
    for code in RefusalCode:
        assert refused(Refusal(code=code, message="m"), 3).status >= 400


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": {"code": 400, "message": "m", "type": "invalid_request_error"}}, (400, "invalid_request", "m")),
        (500, {"error": {"message": "boom"}}, (500, "engine_error", "boom")),
        (502, b"<html>", (502, "engine_error", "the engine answered 502: <html>")),
        (500, b"", (500, "engine_error", "the engine answered 500")),
        (500, b"\xff" * 900, (500, "engine_error", "the engine answered 500: " + "\ufffd" * 200)),
        (500, {"error": "text"}, (500, "engine_error", 'the engine answered 500: {"error": "text"}')),
    ],
)  # fmt: skip
def test_errors_of_engines_get_our_shape(status: int, body: object, expected: tuple[int, str, str]) -> None:
    """Codes become words, whatever the engine wrote."""
    problem = engine_problem(status, body if isinstance(body, bytes) else json.dumps(body).encode())

    assert (problem.status, problem.code, problem.message) == expected


def test_a_prompt_that_is_too_long_is_told_both_numbers() -> None:
    """llama.cpp has its own word for it; OpenAI's clients look for theirs."""
    body = {
        "error": {
            "code": 400,
            "message": "m",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 5031,
            "n_ctx": 1024,
        }
    }

    problem = engine_problem(400, json.dumps(body).encode())

    assert (problem.status, problem.code, problem.param) == (400, "context_length_exceeded", "messages")
    assert "5031" in problem.message
    assert "1024" in problem.message


def test_a_name_of_ten_kilobytes_is_not_repeated() -> None:
    """An answer is not an amplifier."""
    assert len(unknown_model("x" * 10_000).message) < 200
