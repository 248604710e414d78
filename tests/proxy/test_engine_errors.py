"""What an engine says went wrong, as clients are told: their own mistakes are theirs, whatever it calls them."""

import json

import pytest

from meshllm.proxy.engine_errors import Asked, engine_problem, error_in_stream

CHAT = Asked(context_tokens=2048)


def an_error(message: str, **more: object) -> bytes:
    """Return an engine's error document."""
    return json.dumps({"error": {"code": 500, "message": message, "type": "server_error"} | more}).encode()


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
    problem = engine_problem(status, body if isinstance(body, bytes) else json.dumps(body).encode(), CHAT)

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

    problem = engine_problem(400, json.dumps(body).encode(), CHAT)

    assert (problem.status, problem.code, problem.param) == (400, "context_length_exceeded", "messages")
    assert "5031" in problem.message
    assert "1024" in problem.message


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("request (5031 tokens) exceeds the available context size (1024 tokens), try increasing it", {"5031", "1024"}),
        ("input (5031 tokens) is larger than the max context size (1024 tokens). skipping", {"5031", "1024"}),
        ("Context size has been exceeded.", {"2048"}),
    ],
)
def test_a_full_context_is_the_clients_to_mend(words: str, numbers: set[str]) -> None:
    """Also where the engine takes the blame with a 500, and gives its numbers in words or not at all."""
    problem = engine_problem(500, an_error(words), Asked(prompt_field="prompt", context_tokens=2048))

    assert (problem.status, problem.code, problem.param) == (400, "context_length_exceeded", "prompt")
    assert {number for number in ("5031", "1024", "2048") if number in problem.message} == numbers


def test_a_full_context_of_unknown_size_keeps_the_engines_words() -> None:
    """Better than a wrong number."""
    problem = engine_problem(500, an_error("Context size has been exceeded."), Asked())

    assert (problem.code, problem.message) == ("context_length_exceeded", "Context size has been exceeded.")


@pytest.mark.parametrize(
    ("words", "code", "param"),
    [
        ("image input is not supported - hint: you may need the mmproj", "capability_not_supported", "messages"),
        ("audio input is not supported - hint: you may need the mmproj", "capability_not_supported", "messages"),
        ("Failed to load image or audio file", "invalid_request", "messages"),
        ("Failed to parse tools: Missing tool type: {}; tools = [\n  {}\n]", "invalid_request", "tools"),
        ("Failed to parse messages: Missing tool call type: {}", "invalid_request", "messages"),
        ("Unknown reasoning format: bogus", "invalid_request", "reasoning_format"),
        ("Cannot use both json_schema and grammar", "invalid_request", "grammar"),
        ("Invalid tool_choice: bogus", "invalid_request", "tool_choice"),
        ("Field 'top_k': [json.exception.type_error.302] type must be number", "invalid_request", "top_k"),
        ("[json.exception.out_of_range.403] key 'x' not found", "invalid_request", "messages"),
        ("Jinja Exception: Conversation roles must alternate", "invalid_request", "messages"),
    ],
)
@pytest.mark.parametrize("status", [400, 500])
def test_a_clients_mistake_is_400_and_names_the_field(status: int, words: str, code: str, param: str) -> None:
    """llama.cpp answers several of them with 500, which clients repeat and people count as an outage."""
    problem = engine_problem(status, an_error(words), CHAT)

    assert (problem.status, problem.code, problem.param) == (400, code, param)
    assert problem.message == words.partition("; tools = ")[0]


@pytest.mark.parametrize("words", ["vector::_M_range_check: __n (which is 18446744073709551615)", "vector"])
def test_a_token_out_of_range_is_named(words: str) -> None:
    """The engine says what its library says."""
    detokenize = Asked(prompt_field="tokens")

    assert engine_problem(500, an_error(words), detokenize).param == "tokens"
    assert "vocabulary" in engine_problem(500, an_error(words), detokenize).message
    assert engine_problem(500, an_error(words), CHAT).status == 500


def test_what_a_model_cannot_do_is_not_an_outage() -> None:
    """501 is a method that nobody implements; another model would do."""
    words = "Infill is not supported by this model"

    problem = engine_problem(501, an_error(words, type="not_supported_error"), CHAT)

    assert (problem.status, problem.code, problem.param) == (400, "capability_not_supported", "model")


@pytest.mark.parametrize("words", ["Compute error.", "failed to decode the batch", "Loading model"])
def test_an_engines_own_failures_stay_its_own(words: str) -> None:
    """A retry may help there."""
    assert engine_problem(503, an_error(words), CHAT).status == 503
    assert engine_problem(500, an_error(words), CHAT).code == "engine_error"


# -- in streams ------------------------------------------------------------------------------------------

GOOD = b'data: {"choices":[{"delta":{"content":"an \\"error\\":{ \\n"}}]}\n\n'


@pytest.mark.parametrize(
    "event",
    [
        b"data: " + an_error("Context size has been exceeded."),
        b"data:" + an_error("Context size has been exceeded."),
        b"error: " + json.dumps({"code": 500, "message": "Context size has been exceeded."}).encode(),
        b"event: error\ndata: " + an_error("Context size has been exceeded.", type="error"),
        b"data: " + an_error("Context size has been exceeded.") + b"\r",
    ],
    ids=["data", "no blank", "a field of its own", "Anthropic's", "CR LF"],
)
def test_an_error_event_is_found_behind_good_ones(event: bytes) -> None:
    """In every form that llama.cpp has had."""
    found = error_in_stream(GOOD + GOOD + event + b"\n\n", CHAT)

    assert found is not None
    start, problem = found
    assert start == 2 * len(GOOD)
    assert (problem.status, problem.code) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    "event",
    [
        GOOD,
        b'data: {"error":null,"choices":[]}\n\n',
        b'data: {"response":{"error":{"message":"m"}}}\n\n',
        b'data: "error"\n\n',
        b"data: {error\n\n",
        b": error\n\n",
        b"event: error\n\n",
        b"data: [DONE]\n\n",
    ],
)
def test_a_text_about_errors_is_no_error(event: bytes) -> None:
    """Models write about them all day."""
    assert error_in_stream(GOOD + event, CHAT) is None


def test_an_error_event_keeps_its_status_where_that_is_one() -> None:
    """It decides about the type."""
    for code, status in ((400, 400), (503, 503), (7, 500), ("x", 500)):
        found = error_in_stream(b"data: " + an_error("Compute error.", code=code) + b"\n\n", CHAT)
        assert found is not None
        assert found[1].status == status
