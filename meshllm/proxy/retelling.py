"""The words of the engine that goes on with a stream, told as if the first one had said them.

Owns the way from one engine's events to a story that goes on: the same names, the same shape, and the sum of what both
took. Decides where the text ends at the seam. Doesn't know connections nor the grammar of any door (`story_…`); pure.
"""

from typing import Protocol

from meshllm.proxy.journal import Amount, Story
from meshllm.proxy.resumable import Wanted
from meshllm.proxy.seam import Seam
from meshllm.proxy.story_chat import DONE, read
from meshllm.proxy.thoughts import Mind


class Retelling(Protocol):
    """What becomes of an engine's events."""

    error: bytes
    """What the engine said went wrong, or what is wrong with what it said."""

    @property
    def has_stopped(self) -> bool:
        """Tell whether the text has ended at the seam; the engine does not know."""

    def tell(self, event: bytes) -> bytes:
        """Return one event as the client is told it; empty where it is told nothing."""

    def ending(self) -> bytes | None:
        """Return the last events, when the engine has said everything; None if it broke off."""


class Repeat:
    """A whole answer, of which the client has the beginning at most."""

    has_stopped = False

    def __init__(self, story: Story) -> None:
        """Leave out what the story has."""
        self.error = b""
        self._story = story

    def tell(self, event: bytes) -> bytes:
        """Return one event under the first engine's id."""
        if self.error:
            return b""
        told = self._story.repeat(event)
        if told is None:
            self.error = event
        return told or b""

    def ending(self) -> bytes | None:
        """Return nothing: the engine has said it."""
        return b""


class Rest:
    """What comes behind a text, from a text completion."""

    def __init__(self, wanted: Wanted, story: Story, counted: int, reason: str | None) -> None:
        """Go on behind a story of so many tokens, whose end is known already if there is a reason for it."""
        self.error = b""
        self._story = story
        self._seam = Seam(wanted.stops, story.text or story.thoughts)
        self._mind = Mind(is_thinking=bool(story.thoughts) and not story.text)
        self._counted = counted
        self._known = reason
        self._reason: str | None = None
        self._usage: dict[str, object] | None = None
        self._made_at = 0

    @property
    def has_stopped(self) -> bool:
        """Tell whether the text has ended at the seam."""
        return self._seam.has_stopped

    def tell(self, event: bytes) -> bytes:
        """Return one event in the words of the client's door; of an end that is known, none."""
        if event == DONE:
            return b""
        said = read(event)
        if said is None or said.choices is None:
            self.error = event
            return b""
        self._usage = said.usage or self._usage
        self._made_at = _count(said.created)
        for choice in said.choices:
            self._reason = self._reason or choice.finish_reason
        if self._known is not None:
            return b""
        is_last = self._reason is not None
        text = self._seam.feed("".join(choice.text or "" for choice in said.choices), is_last=is_last)
        thoughts, text = self._mind.feed(text, is_last=is_last)
        told = self._story.think(thoughts) if thoughts else b""
        return told + self._story.speak(text) if text else told

    def ending(self) -> bytes | None:
        """Return why the text ends, how much it was, and that this is all."""
        reason = self._known or self._reason
        if reason is None:
            return None
        return self._story.end(reason, self._sum(), self._made_at)

    def _sum(self) -> Amount:
        """Return what both engines took: the text of the first one was part of the prompt of the second."""
        usage = self._usage
        if usage is None:
            return Amount(read=None, cached=0, made=self._counted)
        read, made = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        made = self._counted + (0 if self._known is not None else made)
        read = max(read - self._counted, 0)
        details = usage.get("prompt_tokens_details")
        cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
        return Amount(read=read, cached=min(cached, read), made=made)


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
