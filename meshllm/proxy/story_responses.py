"""Streams of OpenAI's responses: what their events say, and how more is said in the same way.

Owns the grammar: a response of items that are added, filled and done, and its completion, which says everything once
more. Decides what in them cannot be told again. Doesn't know engines, connections, nor why a stream goes on; pure.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from meshllm.proxy.journal import Amount, Story

_MESSAGE, _THOUGHTS = "message", "reasoning"
_PREFIXES = {_MESSAGE: "msg_", _THOUGHTS: "rs_"}
_BEGINNINGS = frozenset({"response.created", "response.in_progress"})
_ITEM_ADDED, _ITEM_DONE = "response.output_item.added", "response.output_item.done"
_PART_ADDED, _PART_DONE = "response.content_part.added", "response.content_part.done"
_TEXT_DELTA, _TEXT_DONE = "response.output_text.delta", "response.output_text.done"
_THOUGHT_DELTA, _THOUGHT_DONE = "response.reasoning_text.delta", "response.reasoning_text.done"
_COMPLETED = "response.completed"
_KNOWN = {_ITEM_ADDED, _ITEM_DONE, _PART_ADDED, _PART_DONE, _TEXT_DELTA, _TEXT_DONE, _THOUGHT_DELTA, _THOUGHT_DONE}
_NAMES = msgspec.json.Decoder(dict[str, Any])


@dataclass(slots=True)
class _Item:
    """One item of the output."""

    kind: str
    id: str
    has_part: bool = False
    is_numbered: bool = False
    """Its events say which item of the output it is."""
    said: tuple[str, ...] = ()
    """Its closing events that were said."""


class ResponseStory(Story):
    """What a stream of a response has said."""

    __slots__ = ("_began", "_id", "_items", "_made_at", "_model", "_number", "_renamed")

    def __init__(self, model: str) -> None:
        """Begin with nothing said by a model, which some engines name at the end alone."""
        super().__init__()
        self._model = model
        self._id = ""
        self._made_at: int | None = None
        self._items: list[_Item] = []
        self._began: set[str] = set()
        """The first events of the response that were said."""
        self._number: int | None = None
        """The number of the last event, where they have one."""
        self._renamed: dict[str, str] = {}
        """Names that an engine gave anew, and those that they have here."""

    # -- what is said ---------------------------------------------------------------------------------

    def take(self, event: bytes) -> None:
        """Read the data of one event."""
        document = _read(event)
        if document is None:
            self.is_odd = True
        else:
            self._take(document)

    def _take(self, document: dict[str, Any]) -> None:
        kind, number = document.get("type"), document.get("sequence_number")
        if isinstance(number, int):
            self._number = number
        if kind in _BEGINNINGS:
            self._take_beginning(kind, document.get("response"))
        elif kind == _ITEM_ADDED:
            self._take_item(document)
        elif kind == _COMPLETED:
            self.is_done = self.is_closed = self.has_usage = True
        elif kind not in _KNOWN or (item := self._find(document)) is None:
            self.is_odd = True
        else:
            self._fill_item(item, str(kind), document)

    def _take_beginning(self, kind: str, response: object) -> None:
        self._began.add(kind)
        if isinstance(response, dict):
            self.has_opened = True
            self._id = str(response.get("id") or self._id)
            made_at = response.get("created_at")
            self._made_at = made_at if isinstance(made_at, int) else self._made_at

    def _take_item(self, document: dict[str, Any]) -> None:
        item = document.get("item")
        kind = str(item.get("type")) if isinstance(item, dict) else ""
        if not isinstance(item, dict) or kind not in _PREFIXES or any(known.kind == kind for known in self._items):
            self.is_odd = True
            return
        self._items.append(_Item(kind, str(item.get("id")), is_numbered="output_index" in document))

    def _find(self, document: dict[str, Any]) -> _Item | None:
        item = document.get("item")
        name = item.get("id") if isinstance(item, dict) else document.get("item_id")
        return next((known for known in self._items if known.id == name), None)

    def _fill_item(self, item: _Item, kind: str, document: dict[str, Any]) -> None:
        delta = document.get("delta")
        if kind == _PART_ADDED:
            item.has_part = True
        elif kind not in {_TEXT_DELTA, _THOUGHT_DELTA}:
            item.said = (*item.said, kind)
            self.is_closed = self.is_closed or item.kind == _MESSAGE
        elif not isinstance(delta, str) or document.get("logprobs"):
            self.is_odd = True
        elif kind == _TEXT_DELTA:
            self.add(delta)
        else:
            self.ponder(delta)

    # -- said anew ------------------------------------------------------------------------------------

    def repeat(self, event: bytes) -> bytes | None:
        """Return an event under the names that the client knows; what was opened is not opened again."""
        document = _read(event)
        if document is None or "error" in document or not isinstance(kind := document.get("type"), str):
            return None
        if kind in {"error", "response.failed"}:
            return None
        if kind in self._began:
            self._rename(document.get("response"), self._id)
            return b""
        item = document.get("item")
        if kind == _ITEM_ADDED and isinstance(item, dict):
            known = next((known for known in self._items if known.kind == item.get("type")), None)
            if known is not None:
                self._rename(item, known.id)
                return b""
            if self._items and not self.has_begun:
                return None  # something else was opened, and is empty
        document = self._with_names(document)
        if kind == _PART_ADDED and (opened := self._find(document)) is not None and opened.has_part:
            return b""
        return self._event(document)

    def _rename(self, named: object, name: str) -> None:
        if isinstance(named, dict) and isinstance(other := named.get("id"), str):
            self._renamed[other] = name

    def _with_names(self, value: Any) -> Any:  # noqa: ANN401 - JSON, as deep as it is
        if isinstance(value, dict):
            return {key: self._with_names(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._with_names(one) for one in value]
        return self._renamed.get(value, value) if isinstance(value, str) else value

    # -- said more ------------------------------------------------------------------------------------

    def think(self, text: str) -> bytes:
        """Return the events of more thoughts."""
        opening, item = self._opened(_THOUGHTS)
        return opening + self._of(item, _THOUGHT_DELTA, delta=text)

    def speak(self, text: str) -> bytes:
        """Return the events of more text."""
        opening, item = self._opened(_MESSAGE)
        if not item.has_part:
            opening += self._of(item, _PART_ADDED, part={"type": "output_text", "text": "", "annotations": []})
        return opening + self._of(item, _TEXT_DELTA, delta=text)

    def end(self, reason: str, amount: Amount, made_at: int) -> bytes:  # noqa: ARG002 - engines do not say why
        """Say that every item is done, and then everything once more."""
        out = b"".join(map(self._closing, self._items))
        usage = None
        if amount.read is not None:
            usage = {
                "input_tokens": amount.read, "output_tokens": amount.made, "total_tokens": amount.read + amount.made,
                "input_tokens_details": {"cached_tokens": amount.cached},
                "output_tokens_details": {"reasoning_tokens": 0},
            }  # fmt: skip
        response = {
            "id": self._id, "object": "response", "created_at": made_at if self._made_at is None else self._made_at,
            "status": "completed", "model": self._model, "output": [self._whole(item) for item in self._items],
            "usage": usage,
        }  # fmt: skip
        return out + self._event({"type": _COMPLETED, "response": response})

    def _closing(self, item: _Item) -> bytes:
        out = b""
        if item.kind == _MESSAGE and item.has_part:
            if _TEXT_DONE not in item.said:
                out += self._of(item, _TEXT_DONE, text=self.text)
            if _PART_DONE not in item.said:
                out += self._of(item, _PART_DONE, part=self._part())
        if _ITEM_DONE not in item.said:
            out += self._of(item, _ITEM_DONE, item=self._whole(item))
        return out

    def _part(self) -> dict[str, object]:
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": self.text}

    def _whole(self, item: _Item) -> dict[str, object]:
        if item.kind == _THOUGHTS:
            thoughts = [{"type": "reasoning_text", "text": self.thoughts}]
            return {"type": _THOUGHTS, "id": item.id, "summary": [], "content": thoughts, "encrypted_content": ""}
        parts = [self._part()] if item.has_part else []
        return {"type": _MESSAGE, "status": "completed", "id": item.id, "content": parts, "role": "assistant"}

    def _opened(self, kind: str) -> tuple[bytes, _Item]:
        """Return the item of a kind, and the event that adds it, where it was not."""
        item = next((item for item in self._items if item.kind == kind), None)
        if item is not None:
            return b"", item
        name = _PREFIXES[kind] + self._id.removeprefix("resp_")
        what: dict[str, object] = {"type": kind, "id": name, "status": "in_progress", "content": []}
        what |= {"role": "assistant"} if kind == _MESSAGE else {"summary": [], "encrypted_content": ""}
        document: dict[str, object] = {"type": _ITEM_ADDED, "item": what}
        if self._items and self._items[0].is_numbered:
            document["output_index"] = len(self._items)
        event = self._event(document)
        return event, self._items[-1]

    def _of(self, about: _Item, kind: str, **fields: object) -> bytes:
        """Say an event about an item."""
        place: dict[str, object] = {} if kind == _ITEM_DONE else {"item_id": about.id}
        if about.is_numbered:
            place["output_index"] = self._items.index(about)
            if kind != _ITEM_DONE:
                place["content_index"] = 0
        return self._event({"type": kind, **place, **fields})

    def _event(self, document: dict[str, Any]) -> bytes:
        """Say an event, and so take it."""
        if self._number is not None:
            document = document | {"sequence_number": self._number + 1}
        self._take(document)
        return b"event: %b\ndata: %b\n\n" % (str(document["type"]).encode(), msgspec.json.encode(document))


def _read(event: bytes) -> dict[str, Any] | None:
    try:
        return _NAMES.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
