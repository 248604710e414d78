"""How the fake engine words its answers."""

import json

import pytest

from meshllm.testing.fake_answers import CHAT, MESSAGE, STYLES, TEXT, Counts, error, event

COUNTS = Counts(prompt_tokens=5, cached_tokens=2, made_tokens=3, took_ms=100.0)


@pytest.mark.parametrize(("style", "text"), [(CHAT, ("message", "content")), (TEXT, ("text",))])
def test_openai_answers_carry_usage_and_timings(style: object, text: tuple[str, ...]) -> None:
    """The real hit rate of the prompt cache is read from these."""
    whole = style.whole("m", "0 1 2 ", COUNTS, {})  # type: ignore[attr-defined]

    found = whole["choices"][0]
    for name in text:
        found = found[name]
    assert found == "0 1 2 "
    assert whole["model"] == "m"
    assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert whole["timings"]["prompt_n"] == 3
    assert whole["timings"]["predicted_per_second"] == 30.0


def test_tools_are_called_unless_forbidden() -> None:
    """Enough to test that they pass through."""
    tools = [{"type": "function", "function": {"name": "get_weather"}}]

    called = CHAT.whole("m", "", COUNTS, {"tools": tools})["choices"][0]
    forbidden = CHAT.whole("m", "", COUNTS, {"tools": tools, "tool_choice": "none"})["choices"][0]

    assert called["message"]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert called["finish_reason"] == "tool_calls"
    assert "tool_calls" not in forbidden["message"]


def test_stream_tells_usage_only_when_asked() -> None:
    """Clients that didn't ask stumble over an event without choices."""
    asked = CHAT.ending("m", COUNTS, {"stream_options": {"include_usage": True}})
    unasked = CHAT.ending("m", COUNTS, {})

    assert [last for last in asked if isinstance(last, dict) and "usage" in last]
    assert not [last for last in unasked if isinstance(last, dict) and "usage" in last]
    assert asked[-1] == unasked[-1] == "[DONE]"


def test_messages_open_and_close_their_block() -> None:
    """Anthropic's SDK counts on the order of these."""
    stream = [*MESSAGE.opening("m"), MESSAGE.piece("m", "0 "), *MESSAGE.ending("m", COUNTS, {})]

    assert [one["type"] for one in stream if isinstance(one, dict)] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip


def test_events_carry_the_name_of_a_type() -> None:
    """OpenAI's have none."""
    assert event("[DONE]") == b"data: [DONE]\n\n"
    assert event({"type": "message_stop"}).startswith(b"event: message_stop\ndata: ")
    assert json.loads(event({"a": 1}).removeprefix(b"data: ")) == {"a": 1}


def test_errors_look_like_those_of_llama_cpp() -> None:
    """The front door translates that shape."""
    assert error("Loading model", 503)["error"]["code"] == 503
    assert set(STYLES) >= {"/v1/chat/completions", "/v1/completions", "/v1/messages"}
