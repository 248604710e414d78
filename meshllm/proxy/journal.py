"""What a client has of a stream so far: kept while it passes, read when its engine is lost.

Owns the pieces of one stream and the story that they tell: text, end, what cannot be told again. Decides nothing
but when it is too much to keep. Doesn't know connections nor where a stream goes on; pure.

Invariant: a piece is kept by reference and read later, many at a time, so that a stream which nothing happens to
costs one append for each piece.
"""

import msgspec

from meshllm.core import limits
from meshllm.proxy.framing import payload_of

DONE = b"[DONE]"
_UNREAD_BYTES = limits.STREAM_JOURNAL_UNREAD_BYTES


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: object = None
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


_SAID = msgspec.json.Decoder(Said)


class Story:
    """What one stream has said."""

    __slots__ = ("_parts", "first", "has_usage", "is_done", "is_odd", "reason", "text_bytes")

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._parts: list[str] = []
        self.text_bytes = 0
        self.first: dict[str, object] | None = None
        """The first event: id, time, model and whatever else all of them say."""
        self.reason: str | None = None
        """Why the text ended, where that was said."""
        self.has_usage = False
        self.is_done = False
        """`[DONE]` was said: nothing is missing."""
        self.is_odd = False
        """It said something else than one plain text, or more than is kept."""

    @property
    def text(self) -> str:
        """Return the text."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def take(self, event: bytes) -> None:
        """Read the data of one event."""
        if event == DONE:
            self.is_done = True
            return
        try:
            said = _SAID.decode(event)
            if self.first is None:
                self.first = msgspec.json.decode(event, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.is_odd = True
            return
        if said.usage is not None:
            self.has_usage = True
        choices = said.choices
        if choices is None or said.error is not None:
            self.is_odd = True
            return
        for choice in choices:
            delta = choice.delta
            if delta is None:
                text = choice.text
            else:
                text = delta.content
                if (
                    delta.reasoning_content or delta.tool_calls or delta.function_call or delta.refusal or delta.audio
                ):  # fmt: skip
                    self.is_odd = True
            if choice.index or choice.logprobs:
                self.is_odd = True
            if text:
                self.add(text)
            if choice.finish_reason is not None:
                self.reason = choice.finish_reason

    def add(self, text: str) -> None:
        """Add text that was said."""
        self.text_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if self.text_bytes > limits.STREAM_JOURNAL_BYTES:
            self.is_odd, self._parts = True, []
        else:
            self._parts.append(text)


class Journal:
    """The pieces of one stream that its client was sent."""

    __slots__ = ("_pieces", "_raw_bytes", "_story")

    def __init__(self) -> None:
        """Begin with nothing."""
        self._pieces: list[bytes] = []
        self._raw_bytes = 0
        self._story: Story | None = None

    def keep(self, piece: bytes) -> None:
        """Keep whole chunks of the answer, as they came."""
        self._pieces.append(piece)
        size_bytes = self._raw_bytes = self._raw_bytes + len(piece)
        if size_bytes > _UNREAD_BYTES:
            self.story()

    def story(self) -> Story:
        """Return what all pieces say; they end with an event."""
        story = self._story = self._story or Story()
        if self._pieces:
            pieces, self._pieces, self._raw_bytes = b"".join(self._pieces), [], 0
            if not story.is_odd:
                for event in events_of(payload_of(pieces)):
                    story.take(event)
        return story


def events_of(payload: bytes) -> list[bytes]:
    """Return the data of the events in a payload."""
    return [line[5:].strip() for line in payload.split(b"\n") if line.startswith(b"data:")]
