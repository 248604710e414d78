"""What a client has of a stream so far: kept while it passes, read when its engine is lost.

Owns the pieces of one stream and what the stories of all doors have in common. Decides nothing but when it is too much
to keep. Doesn't know any door's grammar (`story_…`), connections, nor where a stream goes on; pure.

Invariant: a piece is kept by reference and read later, many at a time, so that a stream which nothing happens to
costs one append for each piece.
"""

from abc import ABC, abstractmethod

import msgspec

from meshllm.core import limits
from meshllm.proxy.framing import payload_of

_UNREAD_BYTES = limits.STREAM_JOURNAL_UNREAD_BYTES


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole answer took, in tokens."""

    read: int | None
    """Tokens of the prompt; None where no engine said how many."""
    cached: int
    made: int


class Story(ABC):
    """What one stream has said, in the grammar of its door; also how more of it is said there.

    Whatever `speak`, `think` and `end` return belongs to the story from then on.
    """

    __slots__ = ("_parts", "_size_bytes", "_thoughts", "has_opened", "has_usage", "is_closed", "is_done", "is_odd",
                 "reason", "wants_usage")  # fmt: skip

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._parts: list[str] = []
        self._thoughts: list[str] = []
        self._size_bytes = 0
        self.has_opened = False
        """An event was there: id, time, model and whatever else the next ones have to repeat."""
        self.reason: str | None = None
        """Why the text ended, in OpenAI's words for chats, where that was said."""
        self.wants_usage = False
        """How much it was is to be said in an event of its own."""
        self.has_usage = False
        self.is_closed = False
        """The text is over, whether or not it was said why."""
        self.is_done = False
        """The last event was said: nothing is missing."""
        self.is_odd = False
        """It said something else than one plain text behind plain thoughts, or more than is kept."""

    @property
    def text(self) -> str:
        """Return the text."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    @property
    def thoughts(self) -> str:
        """Return what was thought before the text, as far as that was told apart."""
        if len(self._thoughts) > 1:
            self._thoughts = ["".join(self._thoughts)]
        return self._thoughts[0] if self._thoughts else ""

    @property
    def has_begun(self) -> bool:
        """Tell whether a word was said or thought."""
        return bool(self._parts or self._thoughts)

    def add(self, text: str) -> None:
        """Add text that was said."""
        self._keep(text, self._parts)

    def ponder(self, text: str) -> None:
        """Add a thought; behind text there is no place for one."""
        self._keep(text, self._thoughts)
        if self._parts:
            self.is_odd = True

    def _keep(self, text: str, parts: list[str]) -> None:
        self._size_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if self._size_bytes > limits.STREAM_JOURNAL_BYTES:
            self.is_odd, self._parts, self._thoughts = True, [], []
        else:
            parts.append(text)

    @abstractmethod
    def take(self, event: bytes) -> None:
        """Read the data of one event."""

    @abstractmethod
    def repeat(self, event: bytes) -> bytes | None:
        """Return an event of an engine that says everything anew, as the next one; empty for what was said already.

        None means that it does not fit behind what was said.
        """

    @abstractmethod
    def think(self, text: str) -> bytes:
        """Return the events that tell more thoughts."""

    @abstractmethod
    def speak(self, text: str) -> bytes:
        """Return the events that tell more text."""

    @abstractmethod
    def end(self, reason: str, amount: Amount, made_at: int) -> bytes:
        """Return the last events: why the text ends, how much it was, and, where doors say so, when it was made."""


class Journal:
    """The pieces of one stream that its client was sent."""

    __slots__ = ("_pieces", "_raw_bytes", "_story")

    def __init__(self, story: Story) -> None:
        """Begin with nothing; tell what is kept to a story."""
        self._pieces: list[bytes] = []
        self._raw_bytes = 0
        self._story = story

    def keep(self, piece: bytes) -> None:
        """Keep whole chunks of the answer, as they came."""
        self._pieces.append(piece)
        size_bytes = self._raw_bytes = self._raw_bytes + len(piece)
        if size_bytes > _UNREAD_BYTES:
            self.story()

    def story(self) -> Story:
        """Return what all pieces say; they end with an event."""
        story = self._story
        if self._pieces:
            pieces, self._pieces, self._raw_bytes = b"".join(self._pieces), [], 0
            if not story.is_odd:
                for event in events_of(payload_of(pieces)):
                    story.take(event)
        return story


def events_of(payload: bytes) -> list[bytes]:
    """Return the data of the events in a payload."""
    return [line[5:].strip() for line in payload.split(b"\n") if line.startswith(b"data:")]
