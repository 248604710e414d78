"""Streams of chats and text completions: what their events say, and how more is said in the same way.

Owns OpenAI's grammar of both: chunks of one id, a reason, an amount where it is wanted, `[DONE]`. Decides what in them
cannot be told again. Doesn't know engines, connections, nor why a stream goes on; pure.
"""

import msgspec

from meshllm.proxy.journal import Amount, Story

DONE = b"[DONE]"
_DONE_EVENT = b"data: [DONE]\n\n"
_OF_ONE_EVENT = frozenset({"choices", "timings", "usage"})
_OPENING = frozenset({"content", "role"})


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: object = None
    function_call: object = None
    refusal: object = None
    audio: object = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: object = None


class Said(msgspec.Struct, gc=False):
    """One event of a stream of chat or text completions."""

    choices: list[_Choice] | None = None
    usage: dict[str, object] | None = None
    error: object = None
    created: object = 0


_SAID = msgspec.json.Decoder(Said)


def read(event: bytes) -> Said | None:
    """Return what an event says; None for what is none of these streams, or an error."""
    try:
        said = _SAID.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return said if said.error is None and said.choices is not None else None


class ChatStory(Story):
    """What a stream of a chat or a text completion has said."""

    __slots__ = ("_is_chat", "first")

    def __init__(self, *, is_chat: bool = True) -> None:
        """Begin with nothing said."""
        super().__init__()
        self._is_chat = is_chat
        self.first: dict[str, object] | None = None
        """The first event."""

    def take(self, event: bytes) -> None:
        """Read the data of one event."""
        if event == DONE:
            self.is_done = True
            return
        said = read(event)
        if self.first is None and (document := _document(event)) is not None:
            self.first = document
            self.has_opened = True
        if said is None or said.choices is None:
            self.is_odd = True
            return
        if said.usage is not None:
            self.has_usage = True
        for choice in said.choices:
            self._take_choice(choice)

    def _take_choice(self, choice: _Choice) -> None:
        delta = choice.delta
        if delta is None:
            text = choice.text
        else:
            text = delta.content
            if delta.reasoning_content:
                self.ponder(delta.reasoning_content)
            if delta.tool_calls or delta.function_call or delta.refusal or delta.audio:
                self.is_odd = True
        if choice.index or choice.logprobs:
            self.is_odd = True
        if text:
            self.add(text)
        if choice.finish_reason is not None:
            self.reason = choice.finish_reason
            self.is_closed = True

    @property
    def base(self) -> dict[str, object]:
        """Return what every event of the stream says alike."""
        return {key: value for key, value in (self.first or {}).items() if key not in _OF_ONE_EVENT}

    def repeat(self, event: bytes) -> bytes | None:
        """Return one event under the first engine's id."""
        if event == DONE:
            self.take(event)
            return _DONE_EVENT
        document = _document(event)
        if document is None or "error" in document:
            return None
        choices = document.get("choices")
        if self.has_opened and isinstance(choices, list) and choices and all(map(_only_opens, choices)):
            return b""
        base = self.base
        self.take(event)
        return b"data: %b\n\n" % msgspec.json.encode(document | base)

    def think(self, text: str) -> bytes:
        """Return the event of more thoughts, which only chats tell apart."""
        self.ponder(text)
        return self._event([{"finish_reason": None, "index": 0, "delta": {"reasoning_content": text}}])

    def speak(self, text: str) -> bytes:
        """Return the event of more text."""
        self.add(text)
        return self._event([self._choice(text)])

    def end(self, reason: str, amount: Amount, made_at: int) -> bytes:  # noqa: ARG002 - the first event said when
        """Return why the text ends, how much it was, and that this is all."""
        usage = usage_of(amount)
        last = b""
        if self.reason is None:
            last = self._event([self._choice("", reason)], None if self._is_chat else usage)
        if self.wants_usage and usage is not None:
            last += self._event([], usage)
        return last + _DONE_EVENT

    def _choice(self, text: str, reason: str | None = None) -> dict[str, object]:
        if not self._is_chat:
            return {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}
        return {"finish_reason": reason, "index": 0, "delta": {"content": text} if text else {}}

    def _event(self, choices: list[dict[str, object]], usage: dict[str, object] | None = None) -> bytes:
        document = self.base | {"choices": choices}
        if usage is not None:
            document["usage"] = usage
        return b"data: %b\n\n" % msgspec.json.encode(document)


def usage_of(amount: Amount) -> dict[str, object] | None:
    """Return an amount in the words of chats; None where it is not known."""
    if amount.read is None:
        return None
    return {
        "completion_tokens": amount.made, "prompt_tokens": amount.read, "total_tokens": amount.made + amount.read,
        "prompt_tokens_details": {"cached_tokens": amount.cached},
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
