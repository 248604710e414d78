"""The shapes know every inference path's own fields."""

from typing import Any

import msgspec
import pytest

from meshllm.proxy import shapes

MESSAGES = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("shape", "good", "bad"),
    [
        (shapes.Completion, {"prompt": "x"}, {"prompt": 5}),
        (shapes.Completion, {"prompt": [1, 2]}, {"prompt": []}),
        (shapes.Responses, {"input": [{"role": "user"}]}, {}),
        (shapes.Embeddings, {"input": ["a", "b"]}, {"input": {}}),
        (shapes.Rerank, {"query": "q", "documents": ["a"]}, {"documents": ["a"]}),
        (shapes.Infill, {}, {"input_prefix": 5}),
        (shapes.Tokenize, {"content": ""}, {"content": None}),
        (shapes.Detokenize, {"tokens": []}, {"tokens": ["x"]}),
        (shapes.AnthropicCount, {"messages": MESSAGES, "system": "s"}, {"system": "s"}),
        (shapes.AnthropicMessages, {"messages": MESSAGES, "max_tokens": 1}, {"messages": MESSAGES}),
    ],
)
def test_a_good_body_passes_and_a_bad_one_does_not(
    shape: type[shapes.Common], good: dict[str, Any], bad: dict[str, Any]
) -> None:
    """What an engine would stumble over is refused before it."""
    msgspec.convert(good | {"unknown": 1}, shape)

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, shape)


A_CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("said", [{"tool_calls": [A_CALL]}, {"refusal": "no"}, {"reasoning_content": "hm"}])
def test_an_assistant_may_say_something_else_than_text(said: dict[str, Any]) -> None:
    """Then its content is null, legally."""
    assert msgspec.convert({"role": "assistant"} | said, shapes.Message).may_be_empty
    assert not msgspec.convert({"role": "user"} | said, shapes.Message).may_be_empty
