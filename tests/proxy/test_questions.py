"""What is asked at each door, as a chat."""

from typing import Any

import pytest

from meshllm.proxy.questions import chat_of_messages, chat_of_response


def parts(*texts: str) -> list[dict[str, str]]:
    """Return a turn's texts."""
    return [{"type": "text", "text": text} for text in texts]


def test_a_message_becomes_a_chat_with_its_system_first() -> None:
    """Blocks keep their texts and lose what caches them; thoughts stand beside."""
    cached = {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, cached]},
        {"role": "user", "content": [cached]},
    ]

    chat = chat_of_messages(
        {"system": parts("S", "T"), "messages": turns, "chat_template_kwargs": {"k": 1}, "top_k": 1}
    )

    assert chat == {
        "chat_template_kwargs": {"k": 1},
        "messages": [
            {"role": "system", "content": "ST"}, {"role": "user", "content": "a"},
            {"role": "assistant", "content": parts("b"), "reasoning_content": "hm"},
            {"role": "user", "content": parts("b")},
        ],
    }  # fmt: skip


def test_a_response_becomes_a_chat_with_its_instructions_first() -> None:
    """What the assistant said in two items is one turn."""
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]}
    asked = {"role": "user", "content": [{"type": "input_text", "text": "c"}]}

    chat = chat_of_response({"instructions": "I", "input": [{"role": "user", "content": "a"}, said, said, asked]})
    plain = chat_of_response({"input": "a", "reasoning": {"effort": "low"}})

    assert chat == {
        "messages": [
            {"role": "system", "content": "I"}, {"role": "user", "content": parts("a")},
            {"role": "assistant", "content": parts("b", "b")}, {"role": "user", "content": parts("c")},
        ]
    }  # fmt: skip
    assert plain == {"messages": [{"role": "user", "content": "a"}], "reasoning_effort": "low"}


@pytest.mark.parametrize(
    "content", [[{"type": "image", "source": {}}], [{"type": "tool_use", "id": "a"}], [{"type": "text"}], ["a"]]
)
def test_a_message_that_is_more_than_text_has_no_chat(content: Any) -> None:
    """Nobody asks it again."""
    assert chat_of_messages({"messages": [{"role": "user", "content": content}]}) is None


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "name": "f"}, {"type": "reasoning", "content": []}, "a", {"role": "user"},
        {"role": "user", "content": [{"type": "input_image"}]}, {"role": "tool", "content": "a"},
    ],
)  # fmt: skip
def test_a_response_that_is_more_than_text_has_no_chat(item: Any) -> None:
    """Nobody asks it again."""
    assert chat_of_response({"input": [item]}) is None
