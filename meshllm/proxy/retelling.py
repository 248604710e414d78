"""The words of the engine that goes on with a stream, told as if the first one had said them.

Owns the translation of one engine's events into those that the client expects: same id, same time, same shape, and
the sum of what both took. Decides where the text ends at the seam. Doesn't know connections; pure.
"""

from typing import Protocol

import msgspec

from meshllm.proxy.journal import DONE, Said, Story
from meshllm.proxy.resumable import CHAT, Wanted
from meshllm.proxy.seam import Seam

_DONE_EVENT = b"data: [DONE]\n\n"
_SAID = msgspec.json.Decoder(Said)
_BY_ENGINE = frozenset({"choices", "timings", "usage"})
_OPENING = frozenset({"content", "role"})


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


def base_of(story: Story) -> dict[str, object]:
    """Return what every event of a stream says alike."""
    return {key: value for key, value in (story.first or {}).items() if key not in _BY_ENGINE}


class Repeat:
    """A whole answer, of which the client has the beginning at most."""

    has_stopped = False

    def __init__(self, story: Story) -> None:
        """Leave out what the story has."""
        self.error = b""
        self._story = story
        self._base = base_of(story)
        self._is_open = story.first is not None

    def tell(self, event: bytes) -> bytes:
        """Return one event under the first engine's id."""
        if event == DONE:
            self._story.take(event)
            return _DONE_EVENT
        document = _document(event)
        if document is None or "error" in document:
            self.error = event
            return b""
        choices = document.get("choices")
        if self._is_open and isinstance(choices, list) and choices and all(map(_only_opens, choices)):
            return b""
        self._story.take(event)
        return b"data: %b\n\n" % msgspec.json.encode(document | self._base)

    def ending(self) -> bytes | None:
        """Return nothing: the engine has said it."""
        return b""


class Rest:
    """What comes behind a text, from a text completion."""

    def __init__(self, wanted: Wanted, story: Story, counted: int, reason: str | None) -> None:
        """Go on behind a story of so many tokens, whose end is known already if there is a reason for it."""
        self.error = b""
        self._story = story
        self._is_chat = wanted.path == CHAT
        self._has_usage = wanted.has_usage
        self._base = base_of(story)
        self._seam = Seam(wanted.stops, story.text)
        self._counted = counted
        self._known = reason
        self._reason: str | None = None
        self._usage: dict[str, object] | None = None

    @property
    def has_stopped(self) -> bool:
        """Tell whether the text has ended at the seam."""
        return self._seam.has_stopped

    def tell(self, event: bytes) -> bytes:
        """Return one event in the words of the client's door; of an end that is known, none."""
        if event == DONE:
            return b""
        try:
            said = _SAID.decode(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.error = event
            return b""
        if said.error is not None or said.choices is None:
            self.error = event
            return b""
        self._usage = said.usage or self._usage
        for choice in said.choices:
            self._reason = self._reason or choice.finish_reason
        if self._known is not None:
            return b""
        text = self._seam.feed("".join(choice.text or "" for choice in said.choices), is_last=self._reason is not None)
        if not text:
            return b""
        self._story.add(text)
        return self._event([self._choice(text)])

    def ending(self) -> bytes | None:
        """Return why the text ends, how much it was, and that this is all."""
        reason = self._known or self._reason
        if reason is None:
            return None
        usage = self._sum(self._usage) if self._usage is not None else None
        last = b""
        if self._story.reason is None:
            last = self._event([self._choice("", reason)], None if self._is_chat else usage)
        if self._has_usage and usage is not None:
            last += self._event([], usage)
        return last + _DONE_EVENT

    def _choice(self, text: str, reason: str | None = None) -> dict[str, object]:
        if not self._is_chat:
            return {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}
        return {"finish_reason": reason, "index": 0, "delta": {"content": text} if text else {}}

    def _event(self, choices: list[dict[str, object]], usage: dict[str, object] | None = None) -> bytes:
        document = self._base | {"choices": choices}
        if usage is not None:
            document["usage"] = usage
        return b"data: %b\n\n" % msgspec.json.encode(document)

    def _sum(self, usage: dict[str, object]) -> dict[str, object]:
        """Return what both engines took: the text of the first one was part of the prompt of the second."""
        read, made = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        made = self._counted + (0 if self._known is not None else made)
        read = max(read - self._counted, 0)
        details = usage.get("prompt_tokens_details")
        cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
        return {
            "completion_tokens": made, "prompt_tokens": read, "total_tokens": made + read,
            "prompt_tokens_details": {"cached_tokens": min(cached, read)},
        }  # fmt: skip


def _document(event: bytes) -> dict[str, object] | None:
    try:
        return msgspec.json.decode(event, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _only_opens(choice: object) -> bool:
    """Tell whether a choice says nothing but whose turn it is."""
    if not isinstance(choice, dict) or choice.get("finish_reason") is not None:
        return False
    delta = choice.get("delta")
    return isinstance(delta, dict) and _OPENING.issuperset(delta) and "role" in delta and not delta.get("content")


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
