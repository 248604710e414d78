"""Frames of a tunnel: one byte of kind, three bytes of length, then a payload of at most 64 KiB.

Owns the form of one exchange between two nodes and the order that its frames have in each direction: HTTP, or one kept
answer. Decides what ends a tunnel as a mistake of the other side. Doesn't know HTTP, and names a model, never a host.

Forth: HEAD, DATA..., END. Back: PROGRESS..., then REFUSED, or DATA..., END. CANCEL may come instead of anything
that is left forth, ERROR back. Nothing comes after REFUSED, END, CANCEL or ERROR.
"""

import struct
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import assert_never

from meshllm.core.ids import ModelId
from meshllm.core.limits import TUNNEL_FRAME_BYTES
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.kept_asks import KeptAsk, check_kept
from meshllm.wire.names import check_digest, check_model, check_text, check_word, fit_error, fit_text
from meshllm.wire.packing import malformed, pack, read

HEADER_BYTES = 4
_HEADER = struct.Struct(">I")
_LENGTH_MASK = 0xFF_FFFF


class FrameKind(IntEnum):
    """What a frame of a tunnel is."""

    HEAD = 1
    DATA = 2
    PROGRESS = 3
    REFUSED = 4
    END = 5
    CANCEL = 6
    ERROR = 7


LAST = frozenset({FrameKind.REFUSED, FrameKind.END, FrameKind.CANCEL, FrameKind.ERROR})
"""Nothing comes after these."""


class RefusalCode(StrEnum):
    """Why a node does not take a request. Newer nodes may know more; a code is any word."""

    BUSY = "busy"
    NOT_HOSTING = "not_hosting"
    DRAINING = "draining"
    NOT_ADMITTED = "not_admitted"
    CONTEXT_TOO_LONG = "context_too_long"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelHead:
    """What a tunnel is for."""

    request_id: str
    model: ModelId
    digest: str = ""
    """SHA-256 of the model's file: the far end serves this file or refuses. Empty: any of that name."""
    deadline_s: float
    """What is left of the request's time."""
    attempt: int = 1
    priority: int = 0
    session: str = ""
    """What requests of one conversation have in common, for prompt caches."""
    traceparent: str = ""
    kept: KeptAsk | None = None
    """The answer that it is about, where it carries no request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelRefusal:
    """The far end does not take the request."""

    code: str
    message: str = ""
    retry_after_s: float = 0.0
    have: int = 0
    """With `context_too_long`: the tokens that the engine takes."""
    need: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelProgress:
    """What goes on while no byte of the answer is there."""

    stage: str
    queued: int = 0
    """Requests before this one."""
    share: float = 0.0
    """Of the prompt that is read, 0 to 1."""
    still_s: float = 0.0
    """For which nothing has moved at the engine, though it has work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelFailure:
    """The far end broke off after it had begun."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class TunnelFrame:
    """One frame. `value` is what a HEAD, REFUSED, PROGRESS or ERROR says; `data` the bytes of a DATA."""

    kind: FrameKind
    data: bytes = b""
    value: TunnelHead | TunnelRefusal | TunnelProgress | TunnelFailure | None = None


def tunnel_frame(kind: FrameKind, payload: bytes = b"") -> bytes:
    """Return one frame. Raises WireError for a payload that no receiver would take."""
    if len(payload) > TUNNEL_FRAME_BYTES:
        raise WireError(WireCode.FRAME_TOO_LARGE, f"{len(payload)} bytes in one frame")
    return _HEADER.pack(kind << 24 | len(payload)) + payload


def data_frames(data: bytes) -> list[bytes]:
    """Return bytes of an exchange as frames, none for no bytes."""
    view = memoryview(data)
    starts = range(0, len(data), TUNNEL_FRAME_BYTES)
    return [tunnel_frame(FrameKind.DATA, bytes(view[start : start + TUNNEL_FRAME_BYTES])) for start in starts]


def encode_head(head: TunnelHead) -> bytes:
    """Return the frame that opens a tunnel."""
    fitted = replace(
        head, request_id=fit_text(head.request_id), session=fit_text(head.session),
        traceparent=fit_text(head.traceparent), deadline_s=max(head.deadline_s, 0.0),
    )  # fmt: skip
    return tunnel_frame(FrameKind.HEAD, pack(fitted))


def encode_progress(progress: TunnelProgress) -> bytes:
    """Return the frame that keeps a waiting tunnel alive."""
    return tunnel_frame(FrameKind.PROGRESS, pack(progress))


def encode_refusal(refusal: TunnelRefusal) -> bytes:
    """Return the frame that turns a request away."""
    return tunnel_frame(FrameKind.REFUSED, pack(replace(refusal, message=fit_error(refusal.message))))


def encode_failure(failure: TunnelFailure) -> bytes:
    """Return the frame that breaks an answer off."""
    return tunnel_frame(FrameKind.ERROR, pack(replace(failure, message=fit_error(failure.message))))


class TunnelReader:
    """Cuts what arrives in one direction of a tunnel into frames, and holds them to their order."""

    __slots__ = ("_allowed", "_held", "_is_forth")

    def __init__(self, *, is_forth: bool) -> None:
        """Read what the entry node sends (`is_forth`), or what the node that serves sends back."""
        self._is_forth = is_forth
        self._held = bytearray()
        self._allowed = _FORTH_FIRST if is_forth else _BACK_WAITING

    @property
    def is_over(self) -> bool:
        """Tell whether the last frame has come."""
        return not self._allowed

    def feed(self, data: bytes) -> list[TunnelFrame]:
        """Return the frames that are complete now. Raises WireError; the tunnel is useless after that."""
        held = self._held
        held += data
        frames = []
        start = 0
        while len(held) - start >= HEADER_BYTES:
            (header,) = _HEADER.unpack_from(held, start)
            length = header & _LENGTH_MASK
            kind = self._kind(header >> 24, length)
            end = start + HEADER_BYTES + length
            if len(held) < end:
                break
            frames.append(_frame(kind, bytes(held[start + HEADER_BYTES : end])))
            self._advance(kind)
            start = end
        del held[:start]
        if self.is_over and held:
            raise malformed("bytes after the last frame")
        return frames

    def finish(self) -> None:
        """Take the end of the stream. Raises WireError when the last frame has not come."""
        if not self.is_over:
            raise WireError(WireCode.TRUNCATED, "the stream ended before its last frame")

    def _kind(self, number: int, length: int) -> FrameKind:
        """Return the kind of a frame whose header has come: a wrong one is refused before its payload is held."""
        if length > TUNNEL_FRAME_BYTES:
            raise WireError(WireCode.FRAME_TOO_LARGE, f"a frame of {length} bytes; {TUNNEL_FRAME_BYTES} are allowed")
        if number not in self._allowed:
            raise malformed(f"a frame of kind {number} at this place")
        return FrameKind(number)

    def _advance(self, kind: FrameKind) -> None:
        if kind in LAST:
            self._allowed = frozenset()
        elif kind is FrameKind.HEAD:
            self._allowed = _FORTH
        elif kind is FrameKind.DATA and not self._is_forth:
            self._allowed = _BACK


_FORTH_FIRST = frozenset({FrameKind.HEAD})
_FORTH = frozenset({FrameKind.DATA, FrameKind.END, FrameKind.CANCEL})
_BACK = frozenset({FrameKind.DATA, FrameKind.END, FrameKind.ERROR})
_BACK_WAITING = _BACK | {FrameKind.PROGRESS, FrameKind.REFUSED}


def _frame(kind: FrameKind, payload: bytes) -> TunnelFrame:
    match kind:
        case FrameKind.DATA:
            return TunnelFrame(kind, data=payload)
        case FrameKind.HEAD:
            return TunnelFrame(kind, value=_head(payload))
        case FrameKind.PROGRESS:
            return TunnelFrame(kind, value=_progress(payload))
        case FrameKind.REFUSED:
            refusal = read(payload, TunnelRefusal)
            check_word(refusal.code)
            check_text(refusal.message)
            return TunnelFrame(kind, value=refusal)
        case FrameKind.ERROR:
            failure = read(payload, TunnelFailure)
            check_word(failure.code)
            check_text(failure.message)
            return TunnelFrame(kind, value=failure)
        case FrameKind.END | FrameKind.CANCEL:
            if payload:
                raise malformed("a last frame with something in it")
            return TunnelFrame(kind)
        case _:
            assert_never(kind)


def _head(payload: bytes) -> TunnelHead:
    head = read(payload, TunnelHead)
    check_model(head.model)
    check_digest(head.digest)
    check_text(head.request_id, head.session, head.traceparent)
    if head.kept is not None:
        check_kept(head.kept)
    return head


def _progress(payload: bytes) -> TunnelProgress:
    progress = read(payload, TunnelProgress)
    check_word(progress.stage)
    if progress.share > 1.0:
        raise malformed("a share of more than all")
    return progress
