"""Streams of Anthropic's messages: what their events say, and how more is said in the same way.

Owns the grammar: a start, numbered blocks that are opened, filled and closed, why and how much, a stop. Decides what in
them cannot be told again. Doesn't know engines, connections, nor why a stream goes on; pure.
"""

import msgspec

from meshllm.proxy.journal import Amount, Story

_TEXT, _THOUGHTS = "text", "thinking"
_DELTAS = {_TEXT: ("text_delta", "text"), _THOUGHTS: ("thinking_delta", "thinking")}
_REASONS = {"length": "max_tokens", "stop": "end_turn"}
_KNOWN_REASONS = {theirs: ours for ours, theirs in _REASONS.items()} | {"stop_sequence": "stop"}


class _Block(msgspec.Struct, gc=False):
    type: str


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str = ""
    thinking: str = ""
    stop_reason: str | None = None


class _Said(msgspec.Struct, gc=False):
    type: str
    index: int = 0
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: object = None


_SAID = msgspec.json.Decoder(_Said)


class MessageStory(Story):
    """What a stream of a message has said."""

    __slots__ = ("_blocks", "_open", "_unsigned")

    def __init__(self) -> None:
        """Begin with nothing said."""
        super().__init__()
        self._blocks: list[str] = []
        """The kinds of the blocks that were opened; each has its place as its number."""
        self._open: list[int] = []
        """Those that were not closed; engines leave thoughts open until the end."""
        self._unsigned: set[int] = set()
        """Thoughts without the signature that belongs to their end."""

    def take(self, event: bytes) -> None:
        """Read the data of one event."""
        try:
            said = _SAID.decode(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.is_odd = True
            return
        if said.type == "message_start":
            self.has_opened = True
        elif said.type == "content_block_start":
            self._take_start(said)
        elif said.type == "content_block_delta":
            self._take_delta(said)
        elif said.type == "content_block_stop":
            self._take_stop(said.index)
        elif said.type == "message_delta":
            reason = said.delta.stop_reason if said.delta is not None else None
            self.reason = _KNOWN_REASONS.get(reason, reason) if reason is not None else None
            self.has_usage, self.is_closed = said.usage is not None, True
        elif said.type == "message_stop":
            self.is_done = True
        elif said.type != "ping":
            self.is_odd = True

    def _take_start(self, said: _Said) -> None:
        kind = said.content_block.type if said.content_block is not None else ""
        if kind not in _DELTAS or kind in self._blocks or said.index != len(self._blocks):
            self.is_odd = True
            return
        self._blocks.append(kind)
        self._open.append(said.index)
        if kind == _THOUGHTS:
            self._unsigned.add(said.index)

    def _take_delta(self, said: _Said) -> None:
        delta = said.delta
        if delta is None or said.index not in self._open:
            self.is_odd = True
        elif delta.type == "signature_delta":
            self._unsigned.discard(said.index)
        elif delta.type != _DELTAS[self._blocks[said.index]][0]:
            self.is_odd = True
        elif delta.text:
            self.add(delta.text)
        elif delta.thinking:
            self.ponder(delta.thinking)

    def _take_stop(self, index: int) -> None:
        if index not in self._open:
            self.is_odd = True
            return
        self._open.remove(index)
        if self._blocks[index] == _TEXT:
            self.is_closed = True

    def repeat(self, event: bytes) -> bytes | None:
        """Return an event; the start and a block that was opened are not said again."""
        try:
            said = _SAID.decode(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if said.type == "error":
            return None
        if said.type == "message_start" and self.has_opened:
            return b""
        kind = said.content_block.type if said.content_block is not None else ""
        if said.type == "content_block_start" and 0 <= said.index < len(self._blocks):
            return b"" if self._blocks[said.index] == kind and said.index in self._open else None
        self.take(event)
        return b"event: %b\ndata: %b\n\n" % (said.type.encode(), event)

    def think(self, text: str) -> bytes:
        """Return the events of more thoughts."""
        return self._fill(_THOUGHTS, text)

    def speak(self, text: str) -> bytes:
        """Return the events of more text; thoughts are over then."""
        return self._close(_THOUGHTS) + self._fill(_TEXT, text)

    def _fill(self, kind: str, text: str) -> bytes:
        name, field = _DELTAS[kind]
        opening = b""
        if kind not in self._blocks:
            block = {"type": kind, field: ""}
            start = {"type": "content_block_start", "index": len(self._blocks), "content_block": block}
            opening = self._event(start)
        index = self._blocks.index(kind)
        delta = {"type": name, field: text}
        return opening + self._event({"type": "content_block_delta", "index": index, "delta": delta})

    def _close(self, *kinds: str) -> bytes:
        out = []
        for index in [index for index in self._open if self._blocks[index] in kinds]:
            if index in self._unsigned:
                delta = {"type": "signature_delta", "signature": ""}
                out.append(self._event({"type": "content_block_delta", "index": index, "delta": delta}))
            out.append(self._event({"type": "content_block_stop", "index": index}))
        return b"".join(out)

    def end(self, reason: str, amount: Amount, made_at: int) -> bytes:  # noqa: ARG002 - no message says when
        """Close what is open, and say why the text ends and how much it was; the start has said what was read."""
        last = self._close(_THOUGHTS, _TEXT)
        if self.reason is None:
            delta = {"stop_reason": _REASONS.get(reason, reason), "stop_sequence": None}
            usage = {"output_tokens": amount.made}
            last += self._event({"type": "message_delta", "delta": delta, "usage": usage})
        return last + self._event({"type": "message_stop"})

    def _event(self, document: dict[str, object]) -> bytes:
        """Say an event, and so take it."""
        data = msgspec.json.encode(document)
        self.take(data)
        return b"event: %b\ndata: %b\n\n" % (str(document["type"]).encode(), data)
