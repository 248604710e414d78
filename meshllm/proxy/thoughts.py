"""Thoughts and text, told apart in what an engine says as one: `<think>` before the ones, `</think>` behind them.

Owns the marks and the blanks around them, which belong to neither. Decides where thoughts end. Doesn't know engines,
nor models that mark their thoughts in another way: those are not continued; pure.
"""

OPENS, CLOSES = "<think>", "</think>"


def behind_prompt(prompt: str, thoughts: str, text: str) -> str:
    """Return what a model has said behind a prompt, marks and all, from what was told of it."""
    if not thoughts:
        return text
    end = prompt.rstrip()
    opening = f"{OPENS}\n" if not opens_thoughts(prompt) else "\n" if end == prompt else ""
    if not text:
        return opening + thoughts
    return f"{opening}{thoughts.rstrip()}\n{CLOSES}\n\n{text}"


def opens_thoughts(prompt: str) -> bool:
    """Tell whether a prompt ends with the mark behind which thoughts begin."""
    return prompt.rstrip().endswith(OPENS)


class Mind:
    """What comes behind the seam, until text is there; from then on there are no more thoughts."""

    __slots__ = ("_held", "_is_between", "is_thinking")

    def __init__(self, *, is_thinking: bool) -> None:
        """Begin in the thoughts or in the text."""
        self.is_thinking = is_thinking
        self._is_between = False
        self._held = ""

    def feed(self, text: str, *, is_last: bool = False) -> tuple[str, str]:
        """Return the thoughts and the text in the next words. What may be a mark, or a blank before it, is held."""
        if not self.is_thinking:
            return "", self._spoken(text)
        held = self._held + text
        thoughts, mark, rest = held.partition(CLOSES)
        if mark:
            self.is_thinking, self._is_between, self._held = False, True, ""
            return thoughts.rstrip(), self._spoken(rest)
        size = len(held) if is_last else _size_without_mark(held)
        told = held[:size].rstrip()
        self._held = held[len(told) :]
        return told, ""

    def _spoken(self, text: str) -> str:
        if self._is_between:
            text = text.lstrip()
            self._is_between = not text
        return text


def _size_without_mark(text: str) -> int:
    """Return how much of a text cannot be the beginning of the mark."""
    for size in range(min(len(CLOSES) - 1, len(text)), 0, -1):
        if text.endswith(CLOSES[:size]):
            return len(text) - size
    return len(text)
