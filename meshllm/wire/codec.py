"""Messages of the control stream as payloads of frames: a map `{"k": kind, ...fields}`.

Owns the form of every kind in `core.messages`. Decides which values a kind may have. Doesn't know signatures: records
are sealed and opened by the functions that are handed in, and travel as the bytes that their owners signed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from meshllm.core import messages as said
from meshllm.core.announcement import Announcement, Record
from meshllm.core.credentials import Revocation
from meshllm.core.ids import NodeId
from meshllm.core.intents import Verb
from meshllm.core.limits import ORDER_MESSAGE_CHARS
from meshllm.core.messages import KINDS, Message
from meshllm.core.split_limits import SPLIT_LAYERS
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.names import (
    check_digest,
    check_epoch,
    check_id,
    check_model,
    check_text,
    check_word,
    fit_error,
    fit_text,
)
from meshllm.wire.packing import convert, malformed, pack, plain, unpack_map
from meshllm.wire.trust import check_token

Seal = Callable[[Announcement], bytes]
"""Signs one's own announcement."""
OpenSealed = Callable[[bytes], Announcement]
"""Reads a signed record, and raises WireError when it is not what its owner signed."""
OpenRevocation = Callable[[bytes], Revocation]
"""Reads a signed revocation, and raises WireError when no admin signed it."""
OnRefused = Callable[[WireError], None]
"""Is told of each record that was left out of a message."""

KIND = "k"
CRITICAL = "critical"
"""A field by which the sender of a kind that is newer than the receiver says that it must not be ignored."""

HASH_BYTES = 32
Item = TypeVar("Item")
_NAMES = {kind: name for name, kind in KINDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Records:
    """Delta and Push with their records still closed."""

    records: tuple[bytes, ...] = ()
    wanted: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaving:
    record: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Revocations:
    entries: tuple[bytes, ...]


def encode_message(message: Message, seal: Seal) -> bytes:
    """Return a message as a payload. Records without signed bytes are one's own and are sealed here."""
    return pack({KIND: _NAMES[type(message)], **_map(message, seal)})


def decode_message(
    payload: bytes, open_sealed: OpenSealed, on_refused: OnRefused | None = None,
    open_revocation: OpenRevocation | None = None,
) -> Message:  # fmt: skip
    """Return what a payload says. Raises WireError.

    A record that cannot be opened makes the whole message refused, or, with `on_refused`, is left out of a Delta, Push
    or Revocations and told there: who carries others' records is not at fault for all of them.
    """
    content = unpack_map(payload)
    name = content.pop(KIND, None)
    if not isinstance(name, str):
        raise malformed("a message without its kind")
    if (kind := KINDS.get(name)) is None:
        is_critical = content.get(CRITICAL) == 1
        raise WireError(WireCode.UNSUPPORTED if is_critical else WireCode.UNKNOWN_KIND, "a kind that is not known here")
    message = _message(kind, content, _Openers(open_sealed, open_revocation or _nobody, on_refused))
    _check(message)
    return message


@dataclass(frozen=True, slots=True)
class _Openers:
    """What checks signatures, and what happens when one is wrong."""

    open_sealed: OpenSealed
    open_revocation: OpenRevocation
    on_refused: OnRefused | None

    def record(self, data: bytes) -> Record:
        """Return a record with its bytes. Raises WireError."""
        return Record(announcement=self.open_sealed(data), sealed=data)

    def each(self, items: tuple[bytes, ...], opened: Callable[[bytes], Item]) -> tuple[Item, ...]:
        """Return the items that can be opened. Raises WireError for one that cannot, unless somebody is to be told."""
        found = []
        for item in items:
            try:
                found.append(opened(item))
            except WireError as error:
                if self.on_refused is None:
                    raise
                self.on_refused(error)
        return tuple(found)


def _nobody(_: bytes) -> Revocation:
    raise WireError(WireCode.UNAUTHORIZED, "revocations are not taken here")


def _map(message: Message, seal: Seal) -> dict[str, Any]:
    match message:
        case said.Delta() | said.Push():
            found: dict[str, Any] = {"records": [_sealed(record, seal) for record in message.records]}
            if isinstance(message, said.Delta) and message.wanted:
                found["wanted"] = list(message.wanted)
            return found
        case said.Leaving():
            return {"record": _sealed(message.record, seal), "reason": fit_text(message.reason)}
        case said.Revocations():
            return {"entries": [entry.sealed for entry in message.entries]}
        case said.OrderResult():
            outcome = replace(message.outcome, message=fit_text(message.outcome.message, ORDER_MESSAGE_CHARS))
            return dict(plain(replace(message, outcome=outcome)))
        case said.SplitAnswer():
            return dict(plain(replace(message, refusal=fit_text(message.refusal))))
        case said.SplitEnded():
            return dict(plain(replace(message, reason=fit_text(message.reason))))
        case said.ErrorReport():
            return {"code": message.code, "message": fit_error(message.message)}
        case _:
            return dict(plain(message))


def _sealed(record: Record, seal: Seal) -> bytes:
    return record.sealed or seal(record.announcement)


def _message(kind: type[Message], content: dict[str, Any], openers: _Openers) -> Message:
    if kind is said.Delta or kind is said.Push:
        closed = convert(content, _Records)
        records = openers.each(closed.records, openers.record)
        return said.Delta(records=records, wanted=closed.wanted) if kind is said.Delta else said.Push(records=records)
    if kind is said.Leaving:
        leaving = convert(content, _Leaving)
        return said.Leaving(record=openers.record(leaving.record), reason=leaving.reason)
    if kind is said.Revocations:
        revocations = convert(content, _Revocations)
        return said.Revocations(entries=openers.each(revocations.entries, openers.open_revocation))
    return convert(content, kind)


def _check(message: Message) -> None:  # noqa: C901 - one arm for each kind
    """Refuse values that have the right type and mean nothing."""
    match message:
        case said.PingRequest() | said.PingReply():
            check_id(message.target)
        case said.Digest():
            check_id(*(entry.node for entry in message.entries))
            if any(len(part) > HASH_BYTES for part in (message.summary, *message.buckets)):
                raise malformed("a hash is too long")
        case said.Delta():
            check_id(*message.wanted)
        case said.Verdict():
            check_id(message.node)
        case said.Leaving():
            check_text(message.reason)
        case said.TrustDigest():
            if max(len(message.revocations), len(message.tokens)) > HASH_BYTES:
                raise malformed("a hash is too long")
        case said.Tokens():
            for record in message.records:
                check_token(record)
        case said.Order():
            intent = message.intent
            if intent.model or intent.verb is not Verb.DEFAULT:  # none: this node's own choice ends
                check_model(intent.model)
            check_text(intent.request_id, intent.scope)
            if intent.author is not None:
                check_id(intent.author)
        case said.OrderResult():
            check_text(message.request_id, message.outcome.model)
            if len(message.outcome.message) > ORDER_MESSAGE_CHARS:
                raise malformed("an answer is too long")
        case said.HealthQuestion():
            if message.model:
                check_model(message.model)
        case said.SplitOffer() | said.SplitAnswer() | said.SplitRelease() | said.SplitEnded():
            _check_split(message)
        case said.ErrorReport():
            check_word(message.code)
            check_text(message.message)
        case _:
            pass


def _check_split(message: said.SplitOffer | said.SplitAnswer | said.SplitRelease | said.SplitEnded) -> None:
    check_model(message.model)
    check_epoch(message.epoch)
    match message:
        case said.SplitOffer():
            check_digest(message.digest)
            if not 0 < message.layers <= SPLIT_LAYERS or message.first_layer > SPLIT_LAYERS:
                raise malformed("layers that no model has")
        case said.SplitAnswer():
            check_text(message.refusal)
        case said.SplitEnded():
            check_text(message.reason)
        case said.SplitRelease():
            pass
