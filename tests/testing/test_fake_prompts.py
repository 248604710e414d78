"""An engine double that remembers prompts."""

from typing import Any

import pytest

from meshllm.testing.fake_prompts import SeenPrompts, words_of


def a_chat(*texts: str) -> dict[str, Any]:
    """Return a conversation of user and assistant."""
    return {"messages": [{"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(texts)]}


def test_a_conversation_that_goes_on_is_cached_up_to_where_it_went_on() -> None:
    """Another one is not; the same again is, but for its last word."""
    seen = SeenPrompts()

    assert seen.read(a_chat("a b c")) == (4, 0)
    assert seen.read(a_chat("a b c", "d", "e f")) == (9, 4)
    assert seen.read(a_chat("x y")) == (3, 1)
    assert seen.read(a_chat("x y")) == (3, 2)


def test_the_oldest_prompt_is_forgotten_first() -> None:
    """There is room for one."""
    seen = SeenPrompts(most=1)
    for text in ("a b", "x y"):
        seen.read(a_chat(text))

    assert seen.read(a_chat("a b")) == (3, 1)


@pytest.mark.parametrize("body", [{"prompt": "a b"}, {"input": "a b"}])
def test_a_prompt_without_messages_is_its_words(body: dict[str, Any]) -> None:
    """As a completion has it."""
    assert words_of(body) == ["a", "b"]
    assert SeenPrompts().read({}) == (1, 0)
