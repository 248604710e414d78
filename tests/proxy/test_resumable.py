"""What of a request decides whether its stream can be resumed, and what is asked then."""

import json
from typing import Any

import pytest

from meshllm.proxy.http1 import parse_head
from meshllm.proxy.intake import take_in
from meshllm.proxy.resumable import Wanted, read_wanted


def wanted(path: str = "/v1/chat/completions", *lines: str, **fields: Any) -> Wanted | None:
    """Return what is read of a request."""
    body: dict[str, Any] = {"model": "m"} | fields
    if path.startswith("/v1/chat"):
        body = {"messages": [{"role": "user", "content": "hi"}]} | body
    head = "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""))
    return read_wanted(take_in(parse_head(head.encode()), None, ""), json.dumps(body).encode())


def test_a_plain_chat_is_asked_for_its_rest_with_what_shapes_the_text() -> None:
    """Sampling stays, everything about the chat goes."""
    found = wanted(temperature=0, seed=7, stop="END", max_tokens=9, stream_options={"include_usage": True}, tools=[])

    assert found is not None
    assert (found.is_plain, found.most_tokens, found.stops, found.has_usage) == (True, 9, ("END",), True)
    assert found.for_rest("m2", "p", 4) == {
        "model": "m2", "prompt": "p", "temperature": 0, "seed": 7, "stop": "END", "max_tokens": 4, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert "max_tokens" not in found.for_rest("m2", "p", None)
    assert found.for_template("m2")["messages"] == [{"role": "user", "content": "hi"}]
    assert "stream_options" not in found.for_template("m2")


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{}]}, {"functions": [{}]}, {"grammar": "x"}, {"json_schema": {}, "logprobs": True}, {"n": 2},
        {"response_format": {"type": "json_schema"}}, {"audio": {"voice": "a"}}, {"modalities": ["text", "audio"]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ],
)  # fmt: skip
def test_what_asks_for_more_than_one_text_is_not_plain(fields: dict[str, Any]) -> None:
    """Nothing of it could be said behind a text."""
    found = wanted(**fields)

    assert found is not None
    assert not found.is_plain


@pytest.mark.parametrize(
    ("prompt", "is_plain"), [("a", True), ([1, 2], True), (["a", "b"], False), ([1] * 4096, False)]
)
def test_a_text_completion_has_one_prompt(prompt: object, *, is_plain: bool) -> None:
    """Several prompts are several texts."""
    found = wanted("/v1/completions", prompt=prompt)

    assert found is not None
    assert (found.is_plain, found.prompt) == (is_plain, prompt)
