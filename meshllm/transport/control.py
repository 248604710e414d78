"""What two members say to each other on their connection's first stream: frames to messages and back.

Owns the reading and writing of one control stream. Decides how fast a peer is read, and when it has said too much that
cannot be read. Doesn't know what messages mean.

A peer that floods is read more slowly, which holds up its own words and nobody else's.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import monotonic

from meshllm.core import limits
from meshllm.core.announcement import Announcement
from meshllm.core.budget import Budget
from meshllm.core.credentials import Revocation
from meshllm.core.ids import NodeId
from meshllm.core.messages import ErrorReport, Message
from meshllm.transport.certificates import open_revocation, open_sealed, seal
from meshllm.transport.codes import CloseCode
from meshllm.transport.handshake import Credentials
from meshllm.transport.stream import Stream, StreamLost
from meshllm.wire.codec import decode_message, encode_message
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.frames import FrameReader, frame

log = logging.getLogger(__name__)

_HARMLESS = frozenset({WireCode.EXPIRED, WireCode.UNKNOWN_KIND, WireCode.UNSUPPORTED})
"""Refused, and no fault of whoever said it: its clock is wrong, or it is newer."""
_PAUSE_S = 0.05


class MessageCodec:
    """Turns messages into payloads and back with one node's credentials; shared by all of its control streams."""

    def __init__(
        self, credentials: Credentials, now_unix_s: Callable[[], float], *,
        revoked: Callable[[], Collection[NodeId]] = tuple, allow_loopback: bool = False,
    ) -> None:  # fmt: skip
        """Sign and check for a mesh. `allow_loopback` keeps loopback addresses in announcements.

        `revoked` returns the nodes that were expelled: nothing is taken from them, whoever carries it.
        """
        self.credentials = credentials
        self._now_unix_s = now_unix_s
        self._allow_loopback = allow_loopback
        self._revoked = revoked
        self._own: tuple[Announcement, bytes, bytes] | None = None
        self._last: tuple[Message, bytes] | None = None

    def encode(self, message: Message) -> bytes:
        """Return a message as a frame. Raises WireError when it is too large, or this node may not say it yet."""
        if self._last is None or self._last[0] is not message:  # one push goes to every peer
            self._last = message, frame(encode_message(message, self._seal))
        return self._last[1]

    def decode(self, payload: bytes, on_refused: Callable[[WireError], None]) -> Message:
        """Return what a payload says; records that cannot be used are told to `on_refused`. Raises WireError."""
        return decode_message(payload, self._open, on_refused, self._open_revocation)

    def _seal(self, announcement: Announcement) -> bytes:
        certificate = self.credentials.certificate
        if certificate is None:
            raise WireError(WireCode.UNAUTHORIZED, "this node has no certificate yet")
        if self._own is None or self._own[0] is not announcement or self._own[1] is not certificate:
            self._own = announcement, certificate, seal(self.credentials.identity, certificate, announcement)
        return self._own[2]

    def _open(self, sealed: bytes) -> Announcement:
        return open_sealed(
            sealed, self.credentials.mesh, self._now_unix_s(), revoked=self._revoked(),
            allow_loopback=self._allow_loopback,
        )  # fmt: skip

    def _open_revocation(self, sealed: bytes) -> Revocation:
        return open_revocation(sealed, self.credentials.mesh)


@dataclass(frozen=True, slots=True)
class ControlUser:
    """Who is told what comes on a control stream."""

    on_message: Callable[[Message], None]
    on_abuse: Callable[[CloseCode, str], None]
    """The peer broke a rule: the connection has to go, with this code."""
    on_ended: Callable[[str, str], None]
    """The peer ended the stream alone: it gives the connection up, with a name of `StreamCode` and words."""


class Control(asyncio.Protocol):
    """One end of a control stream, once both sides are who they should be."""

    def __init__(
        self, stream: Stream, codec: MessageCodec, user: ControlUser, reader: FrameReader, behind: Sequence[bytes] = ()
    ) -> None:
        """Go on where the handshake ended: with its reader, and with payloads that it read too much."""
        self._stream = stream
        self._codec = codec
        self._user = user
        self._reader = reader
        self._behind = behind
        self._waiting: deque[bytes] = deque()
        self._loop = asyncio.get_running_loop()
        self._frames = Budget(limits.CONTROL_FRAMES_PER_S, limits.CONTROL_FRAMES_BURST, monotonic())
        self._bytes = Budget(limits.CONTROL_BYTES_PER_S, limits.CONTROL_BYTES_BURST, monotonic())
        self._unreadable = Budget(
            limits.UNREADABLE_MESSAGES / limits.ABUSE_WINDOW_S, limits.UNREADABLE_MESSAGES, monotonic()
        )
        self._begun_s: float | None = None
        self._is_over = self._is_slowed = False
        stream.set_protocol(self)
        self._loop.call_soon(self._begin)  # whoever handed the stream over may still be reading

    def send(self, message: Message) -> None:
        """Say something. Dropped when the peer reads nothing, or when it cannot be said."""
        if self._is_over or self._stream.get_write_buffer_size() > limits.CONTROL_UNSENT_BYTES:
            return
        try:
            self._stream.write(self._codec.encode(message))
        except WireError as error:
            log.warning("a message could not be sent kind=%s reason=%s", type(message).__name__, error)

    def give_up(self) -> None:
        """Take nothing more from the stream."""
        self._is_over = True
        self._waiting.clear()

    def check(self, now_s: float) -> None:
        """Complain when a frame that has begun does not end."""
        if self._begun_s is not None and now_s - self._begun_s > limits.CONTROL_FRAME_TIMEOUT_S and not self._is_over:
            self._abuse(CloseCode.TRUNCATED, "a frame does not end")

    # -- asyncio.Protocol ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Cut into payloads and read them, as fast as is allowed."""
        try:
            self._waiting += self._reader.feed(data)
        except WireError as error:
            too_large = error.code is WireCode.FRAME_TOO_LARGE
            self._abuse(CloseCode.FRAME_TOO_LARGE if too_large else CloseCode.PROTOCOL, error.message)
            return
        self._begun_s = monotonic() if self._reader.held_bytes else None
        self._read()

    def eof_received(self) -> bool:
        """Learn that the peer says no more, which it has no reason to."""
        try:
            self._reader.finish()
        except WireError as error:
            self._abuse(CloseCode.TRUNCATED, error.message)
        else:
            self._abuse(CloseCode.PROTOCOL, "the control stream was ended")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the stream is gone, alone or with its connection: who owns the connection knows which."""
        if not self._is_over:
            self.give_up()
            code = exc.code if isinstance(exc, StreamLost) else CloseCode.DONE.name.lower()
            self._user.on_ended(code, str(exc or "the control stream ended"))

    # -- inside ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._waiting.extendleft(reversed(self._behind))
        self._read()

    def _read(self) -> None:
        self._is_slowed = False
        while self._waiting and not self._is_over:
            now_s = monotonic()
            if not (self._frames.take(now_s) and self._bytes.take(now_s, len(self._waiting[0]))):
                self._slow_down()
                return
            self._take(self._waiting.popleft())
        if not self._is_over:
            self._stream.resume_reading()

    def _slow_down(self) -> None:
        self._stream.pause_reading()
        if not self._is_slowed:
            self._is_slowed = True
            self._loop.call_later(_PAUSE_S, self._read)

    def _take(self, payload: bytes) -> None:
        try:
            message = self._codec.decode(payload, self._refused)
        except WireError as error:
            self._refused(error)
            if error.code is WireCode.UNSUPPORTED:
                self.send(ErrorReport(code=str(error.code), message=error.message))
            return
        if not self._is_over:
            self._user.on_message(message)

    def _refused(self, error: WireError) -> None:
        if error.code not in _HARMLESS and not self._unreadable.take(monotonic()):
            self._abuse(CloseCode.ABUSE, f"too much that cannot be read: {error.message}")

    def _abuse(self, code: CloseCode, message: str) -> None:
        if not self._is_over:
            self.give_up()
            self._user.on_abuse(code, message)
