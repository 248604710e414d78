"""What an engine double remembers of prompts, so that it can say how much of the next one it has seen.

Owns the prompts that were read. Decides how many words, its tokens, begin a prompt as they began one before. Doesn't
know slots: it forgets whole prompts, the oldest first.
"""

from collections import deque
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

PROMPTS_KEPT = 256


class SeenPrompts:
    """The prompts that an engine double has read."""

    def __init__(self, most: int = PROMPTS_KEPT) -> None:
        """Start with none."""
        self._seen: deque[list[str]] = deque(maxlen=most)

    def read(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """Read the prompt of a request; return how many tokens it has, and how many of them were cached.

        The last one never is: an engine computes at least one to answer.
        """
        words = words_of(body)
        cached = max((_common(words, seen) for seen in self._seen), default=0)
        self._seen.append(words)
        return max(len(words), 1), min(cached, max(len(words) - 1, 0))

    def learn(self, words: list[str]) -> None:
        """Know a prompt that another engine has read."""
        self._seen.append(words)


def last_text(body: Mapping[str, Any]) -> str:
    """Return the text that a request ends with."""
    messages = body.get("messages") or body.get("input") or body.get("prompt") or ""
    last = messages[-1] if isinstance(messages, list) and messages else messages
    content = last.get("content", "") if isinstance(last, dict) else last
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def words_of(body: Mapping[str, Any]) -> list[str]:
    """Return the words of a whole conversation, or of a prompt."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return str(body.get("prompt") or body.get("input") or "").split()
    return [word for message in messages for word in (f"<{message['role']}>", *str(message.get("content")).split())]


def _common(one: list[str], other: list[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
