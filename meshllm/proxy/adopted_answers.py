"""What an adopted server answers, made to read as an answer of an engine of ours.

Owns what stands between such a server's connection and whoever waits: the model is called what it was asked for, only
fields that concern the answer come through, and the server's quarrels with this node (its key, its redirects) are not
shown as the client's. Decides when an answer that only the connection's end ends is complete. Doesn't know sockets.

Invariant: whoever waits gets whole events, in chunks, or one whole answer.
"""

import re
from collections.abc import Callable
from dataclasses import replace

import msgspec

from meshllm.core import limits
from meshllm.core.ids import ModelId
from meshllm.proxy.framing import LAST_CHUNK, AnswerHead, chunk, payload_of
from meshllm.proxy.peek import with_member
from meshllm.proxy.pool import Relay

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder()
_DATA = re.compile(rb"^(data: ?)(\{.*\})", re.MULTILINE)
_PASSED_ON = re.compile(
    rb"^(?:content-type|cache-control|content-encoding|retry-after):[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE
)
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_ENDS = (b"[DONE]", b"message_stop", b"response.completed", b"response.incomplete", b"response.failed")
"""What the last event of a stream says, in the dialects that there are."""
_HOLDERS = ("response", "message")
"""Members that hold a document with a model of its own, in events of the newer dialects."""
_KEY_REFUSED = frozenset({401, 403, 407})


class AdoptedAnswer:
    """One answer of an adopted server on its way: the relay of its connection."""

    def __init__(self, relay: Relay, model: ModelId, doubt: Callable[[], None]) -> None:
        """Pass on to `relay`, under the mesh's name for the model; `doubt` hears of an answer that breaks off."""
        self._doubt = doubt
        self.is_head = relay.is_head
        self.is_between = True
        """What was passed on ends between events."""
        self._relay = relay
        self._name = msgspec.json.encode(model)
        self._model = model
        self._head: AnswerHead | None = None
        self._held = bytearray()
        self._is_stream = False
        self._is_open = False
        """The body goes out as it comes: too long to be held."""
        self._has_ended = False
        """An event said that it is the last."""
        self._events = 0

    # -- Relay: from the server -----------------------------------------------------------------------

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        """Pass a complete answer on."""
        if head.status >= 300:
            status, body = told(head.status, body, self._model)
            self._relay.on_whole(_own_head(head, status, len(body)), body)
            return
        body = self._renamed_events(body) if head.is_event_stream else renamed(body, self._name)
        self._relay.on_whole(_own_head(head, head.status, len(body)), body)

    def on_head(self, head: AnswerHead) -> Relay:
        """Begin: a stream goes on event by event, anything else is held until it is whole."""
        self._head = head
        self._is_stream = head.is_event_stream and head.status == 200
        if self._is_stream:
            self._relay = self._relay.on_head(_own_head(head, 200, None))
        return self

    def on_piece(self, data: bytes) -> None:
        """Take a piece of the body."""
        head = self._head
        payload = payload_of(data) if head is not None and head.is_chunked else data
        if self._is_open:
            self._emit(payload)
            return
        self._held += payload
        if self._is_stream:
            self._pass_events()
        elif len(self._held) > limits.REMOTE_ANSWER_HELD_BYTES and head is not None:
            self._open(head)

    def on_suspect_piece(self, data: bytes) -> None:
        """Take a piece of a stream; what is suspect in it is looked for again when it goes on."""
        self.on_piece(data)

    def on_end(self) -> None:
        """Finish, unless the connection's end is all that says so and the answer does not."""
        head, held = self._head, bytes(self._held)
        if self._is_stream:
            self._emit(self._renamed_events(held))
        if head is not None and head.length is None and not head.is_chunked and not self._is_complete(held):
            self.on_lost(was_stale=False, is_between=self.is_between, chunks=self._events)
        elif self._is_stream or self._is_open:
            self._relay.on_piece(LAST_CHUNK)
            self._relay.on_end()
        elif head is not None:
            self.on_whole(head, held)

    def on_lost(self, *, was_stale: bool, is_between: bool, chunks: int) -> None:  # noqa: ARG002 - of the server's chunks
        """Tell that the server is gone; half an event is dropped."""
        if not was_stale:
            self._doubt()
        self._relay.on_lost(was_stale=was_stale, is_between=self.is_between, chunks=self._events)

    # -- parts ----------------------------------------------------------------------------------------

    def _pass_events(self) -> None:
        """Pass on what is held up to the end of its last event; an event that is too long as it is."""
        ends = [found.end() for found in _EVENT_END.finditer(self._held)]
        end = ends[-1] if ends else 0
        if len(self._held) - end > limits.ENGINE_CHUNK_HELD_BYTES:
            end = len(self._held)
        if end:
            part = bytes(self._held[:end])
            del self._held[:end]
            self._events += len(ends)
            self._emit(self._renamed_events(part))

    def _emit(self, payload: bytes) -> None:
        if not payload:
            return
        self.is_between = not self._is_stream or payload.endswith((b"\n\n", b"\n\r\n"))
        self._has_ended = self._has_ended or any(end in payload for end in _ENDS)
        if self._is_stream and b"error" in payload:
            self._relay.on_suspect_piece(chunk(payload))
        else:
            self._relay.on_piece(chunk(payload))

    def _open(self, head: AnswerHead) -> None:
        """Pass on what is too long to be held, under the server's own name for the model."""
        self._is_open = True
        held = bytes(self._held)
        self._held.clear()
        status = head.status if head.status < 300 else told(head.status, b"", self._model)[0]
        self._relay = self._relay.on_head(_own_head(head, status, None))
        self._emit(held)

    def _renamed_events(self, payload: bytes) -> bytes:
        if b'"model"' not in payload:
            return payload
        return _DATA.sub(lambda found: found[1] + renamed(found[2], self._name), payload)

    def _is_complete(self, held: bytes) -> bool:
        """Tell whether an answer that only the connection's end ends has come to its end."""
        if self._is_stream:
            return self._has_ended
        try:
            _ANY.decode(held)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return True


def renamed(document: bytes, name: bytes) -> bytes:
    """Return a JSON document whose model is called `name` (JSON, with quotes), every other byte as it was.

    What is not an object, or names no model, comes back as it is.
    """
    if b'"model"' not in document:
        return document
    try:
        members = _MEMBERS.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return document
    for holder in _HOLDERS:
        inner = bytes(members.get(holder, b""))
        if inner.startswith(b"{") and (outer := renamed(inner, name)) != inner:
            members[holder] = msgspec.Raw(outer)
            document = msgspec.json.encode(members)
    old = bytes(members.get("model", b""))
    return with_member(document, members, "model", name) if old.startswith(b'"') and old != name else document


def told(status: int, body: bytes, model: ModelId) -> tuple[int, bytes]:
    """Return (status, document) of an error: in the shape that engines have, and as ours where the client has no part.

    A redirect is not followed: where requests go is for the configuration to say.
    """
    if status in _KEY_REFUSED:
        return 502, _document(f"the server that has {model!r} does not take this node's key")
    if status < 400:
        return 502, _document(
            f"the server that has {model!r} sends requests elsewhere ({status}), which is not followed"
        )
    message = _message(body)
    return status, _document(message) if message else body


def _document(message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message[: limits.REMOTE_ERROR_CHARS]}})


def _message(body: bytes) -> str:
    """Return what an error of another shape than ours says; empty for one of ours, and for no JSON."""
    try:
        document = _ANY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if not isinstance(document, dict) or isinstance(document.get("error"), dict):
        return ""
    texts = (document.get("error"), document.get("message"), document.get("detail"))
    return next((text for text in texts if isinstance(text, str) and text), "")


def _own_head(head: AnswerHead, status: int, length: int | None) -> AnswerHead:
    """Return the head of an answer with the few fields that concern it; without a length the body comes in chunks."""
    first, _, fields = head.lines.partition(b"\r\n")
    if status != head.status:
        first, fields = b"HTTP/1.1 %d Error" % status, b"Content-Type: application/json\r\n"
    lines = first + b"\r\n" + b"".join(_PASSED_ON.findall(fields))
    sized = lines if length is None else lines + b"Content-Length: %d\r\n" % length
    return replace(
        head, status=status, length=length, is_chunked=length is None, lines=lines, sized_lines=sized,
        answer_start=sized + b"X-Request-ID: ", is_event_stream=head.is_event_stream and status == 200,
    )  # fmt: skip
