"""One HTTP exchange over one stream, as a transport for a protocol at each end.

Owns the framing, the heartbeats of the far end and the patience of the near one. Decides when an exchange is over, and
with which error. Doesn't know HTTP, engines or routes: bytes of a request go in at one end and out at the other.

Near end: a `NearTunnel` is a transport; what happens is told to its protocol as asyncio does: `data_received`,
`eof_received` (the answer is complete), `connection_lost` with None or a TunnelError, and `tunnel_progress` where a
protocol has it. Far end: a handler is asked, and its protocol gets a transport with `progress` and `fail` besides.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from meshllm.core import limits
from meshllm.core.ids import NodeId
from meshllm.core.rights import Rights
from meshllm.transport.codes import StreamCode, StreamKind
from meshllm.transport.line import LineStream
from meshllm.transport.stream import Bytes, Stream, StreamLost
from meshllm.wire.errors import WireError
from meshllm.wire.tunnel_errors import TunnelFailed, TunnelLost, TunnelRefused
from meshllm.wire.tunnel_frames import (
    FrameKind,
    TunnelFailure,
    TunnelFrame,
    TunnelHead,
    TunnelProgress,
    TunnelReader,
    TunnelRefusal,
    data_frames,
    encode_failure,
    encode_head,
    encode_progress,
    encode_refusal,
    tunnel_frame,
)

TunnelStream = Stream | LineStream
"""What carries an exchange."""
_WAITING = TunnelProgress(stage="waiting")
_LATE_SHARE = 0.1
"""Of the patience with silence: a look that comes later than this after its time says nothing about the far end."""


class TunnelHandler(Protocol):
    """Who serves tunnels at the far end."""

    def __call__(self, peer: NodeId, rights: Rights, head: TunnelHead) -> asyncio.Protocol | TunnelRefusal:
        """Return who takes the exchange, or why nobody does. Must not wait."""


class Tunnel(asyncio.Transport, asyncio.Protocol):
    """What both ends share: a transport to its user, a protocol to its stream."""

    def __init__(self, stream: TunnelStream, *, is_near: bool, on_over: Callable[["Tunnel"], None]) -> None:
        """Frame one stream. `on_over` is called once, when the stream is over."""
        super().__init__()
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._reader = TunnelReader(is_forth=not is_near)
        self._frames: deque[TunnelFrame] = deque()
        self._user: asyncio.Protocol | None = None
        self._on_over = on_over
        self._is_paused = self._is_due = False
        self._has_written_end = self._is_over = False
        stream.set_protocol(self)

    # -- asyncio.Transport, for the user -----------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's signature
        """Return what the stream knows."""
        return self._stream.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the exchange to a protocol."""
        self._user = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who is told what happens."""
        return self._user or asyncio.BaseProtocol()

    def is_closing(self) -> bool:
        """Tell whether the exchange is over for its user."""
        return self._is_over

    def is_reading(self) -> bool:
        """Tell whether bytes are handed out as they come."""
        return not (self._is_paused or self._is_over)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that were written and not sent, with their frames."""
        return self._stream.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the marks at which the protocol's writing is resumed and paused."""
        return self._stream.get_write_buffer_limits()

    def write(self, data: Bytes) -> None:
        """Send bytes of the exchange."""
        if self._is_over or self._has_written_end:
            return
        for frame in data_frames(bytes(data)):
            self._stream.write(frame)

    def can_write_eof(self) -> bool:
        """Return True: a request ends before its answer."""
        return True

    def write_eof(self) -> None:
        """Say that this direction is complete."""
        if not (self._is_over or self._has_written_end):
            self._has_written_end = True
            self._stream.write(tunnel_frame(FrameKind.END))
            self._stream.write_eof()

    def pause_reading(self) -> None:
        """Hand out nothing more until `resume_reading`: the other end is held back."""
        self._is_paused = True
        self._stream.pause_reading()

    def resume_reading(self) -> None:
        """Hand out again, after this turn of the loop."""
        self._is_paused = False
        if not self._is_over:
            self._stream.resume_reading()
            if self._frames and not self._is_due:
                self._is_due = True
                self._loop.call_soon(self._hand_out)

    def close(self) -> None:
        """End in good order: what was written arrives, with its end; nothing more is read."""
        if not self._is_over:
            self.write_eof()
            self._stream.close()
            self._end(None)

    def abort(self) -> None:
        """Break off at once, at both ends."""
        self._break_off(StreamCode.CANCELLED, None)

    # -- asyncio.Protocol, for the stream ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Cut into frames and hand them out."""
        if self._is_over:
            return
        try:
            self._frames += self._reader.feed(data)
        except WireError as error:
            self._break_off(StreamCode.MALFORMED, TunnelLost("malformed", str(error)))
            return
        if not (self._is_paused or self._is_due):
            self._hand_out()

    def eof_received(self) -> bool:
        """Check that the last frame has come before the end of the stream."""
        if not (self._is_over or self._reader.is_over):
            self._break_off(StreamCode.MALFORMED, TunnelLost("truncated", "the stream ended before the exchange"))
        return True

    def pause_writing(self) -> None:
        """Pass on that there is no room."""
        if self._user is not None and not self._is_over:
            self._user.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that there is room."""
        if self._user is not None and not self._is_over:
            self._user.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the stream is over, and tell it, unless all that is missing waits here to be handed out."""
        self._on_over(self)
        if self._is_over or (self._reader.is_over and self._frames):
            return
        if self._reader.is_over and self._has_written_end:
            self._end(None)
            return
        code = exc.code if isinstance(exc, StreamLost) else "truncated"
        self._end(TunnelLost(code, str(exc or "the stream ended before the exchange")))

    # -- inside ------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        self._is_due = False
        while self._frames and not (self._is_paused or self._is_over):
            self._take(self._frames.popleft())

    def _take(self, frame: TunnelFrame) -> None:
        """Act on one frame."""
        raise AssertionError(frame)  # each end has its own

    def _break_off(self, code: StreamCode, error: Exception | None) -> None:
        if not self._is_over:
            self._stream.abort(code)
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._frames.clear()
        if self._user is not None:
            self._loop.call_soon(self._user.connection_lost, error)


class NearTunnel(Tunnel):
    """The end of whoever asks."""

    def __init__(
        self, stream: TunnelStream, head: TunnelHead, user: asyncio.Protocol,
        on_over: Callable[[Tunnel], None], on_silence: Callable[[], None],
    ) -> None:  # fmt: skip
        """Send the head, and expect a sign of life now and then; without one `on_silence` is called, and it is over."""
        super().__init__(stream, is_near=True, on_over=on_over)
        self._on_silence = on_silence
        self._silence_s = limits.TUNNEL_SILENCE_S
        self._heard_s = self._loop.time()
        self._watch_in(self._silence_s)
        self.set_protocol(user)
        stream.write(bytes([StreamKind.TUNNEL]) + encode_head(head))
        user.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Note that the far end lives."""
        self._heard_s = self._loop.time()
        super().data_received(data)

    def resume_reading(self) -> None:
        """Read again, with all patience: nothing could be heard meanwhile."""
        self._heard_s = self._loop.time()
        super().resume_reading()

    def give_up(self, reason: str) -> None:
        """End the exchange, because the far end is gone."""
        self._break_off(StreamCode.TIMEOUT, TunnelLost("unreachable", reason))

    def _watch_in(self, seconds: float) -> None:
        self._watch = self._loop.call_later(seconds, self._check_silence, self._loop.time() + seconds)

    def _check_silence(self, due_s: float) -> None:
        """Give the far end up when it has said nothing for too long, though it was listened to.

        Whoever looks late was stopped or too busy itself: what came meanwhile lies unread, and accuses nobody.
        """
        now_s = self._loop.time()
        if self._is_paused or now_s - due_s > self._silence_s * _LATE_SHARE:
            self._heard_s = now_s
        left_s = self._heard_s + self._silence_s - now_s
        if left_s <= 0:
            self._on_silence()
            self._break_off(StreamCode.TIMEOUT, TunnelLost("silent", f"nothing was heard for {self._silence_s:g} s"))
        else:
            self._watch_in(left_s)

    def _take(self, frame: TunnelFrame) -> None:
        user = cast("asyncio.Protocol", self._user)
        match frame:
            case TunnelFrame(kind=FrameKind.DATA, data=data):
                if data:
                    user.data_received(data)
            case TunnelFrame(value=TunnelProgress() as progress):
                if (told := getattr(user, "tunnel_progress", None)) is not None:
                    told(progress)
            case TunnelFrame(value=TunnelRefusal() as refusal):
                self._finish(TunnelRefused(refusal))
            case TunnelFrame(value=TunnelFailure() as failure):
                self._finish(TunnelFailed(failure))
            case _:
                if not user.eof_received() and not self._is_over:
                    self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        self._stream.close()
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        self._watch.cancel()
        super()._end(error)


class FarTunnel(Tunnel):
    """The end of whoever answers. Says by itself that it lives while there is nothing else to say."""

    def __init__(
        self, stream: TunnelStream, choose: Callable[[TunnelHead], asyncio.Protocol | TunnelRefusal],
        on_over: Callable[[Tunnel], None],
    ) -> None:  # fmt: skip
        """Wait for the head, then ask `choose` who takes the exchange."""
        super().__init__(stream, is_near=False, on_over=on_over)
        self._choose = choose
        self._heartbeat_s = limits.TUNNEL_HEARTBEAT_S
        self._progress = _WAITING
        self._has_answered = self._is_write_paused = False
        self._said_s = self._loop.time()
        self._timer = self._loop.call_later(limits.TUNNEL_HEAD_TIMEOUT_S, self._break_off, StreamCode.TIMEOUT, None)

    def progress(self, progress: TunnelProgress) -> None:
        """Say how far the answer is; kept for the next heartbeats too. Nothing happens once the answer has begun."""
        self._progress = progress
        if not (self._has_answered or self._is_over or self._has_written_end):
            self._said_s = self._loop.time()
            self._stream.write(encode_progress(progress))

    def fail(self, failure: TunnelFailure) -> None:
        """Break the answer off with a reason, behind everything that was written."""
        self._last(encode_failure(failure))

    def refuse(self, refusal: TunnelRefusal) -> None:
        """Turn the request away, before any byte of an answer."""
        self._last(encode_refusal(refusal))

    def write(self, data: Bytes) -> None:
        """Send bytes of the answer."""
        self._has_answered = True
        self._said_s = self._loop.time()
        super().write(data)

    def pause_writing(self) -> None:
        """Stop the heartbeats, too: they would wait behind everything else."""
        self._is_write_paused = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_write_paused = False
        super().resume_writing()

    def _last(self, frame: bytes) -> None:
        if not (self._is_over or self._has_written_end):
            self._has_written_end = True
            self._stream.write(frame)
            self._stream.close()
            self._end(None)

    def _take(self, frame: TunnelFrame) -> None:
        match frame:
            case TunnelFrame(value=TunnelHead() as head):
                self._begin(head)
            case TunnelFrame(kind=FrameKind.CANCEL):
                self._break_off(StreamCode.CANCELLED, TunnelLost("cancelled", "the request was cancelled"))
            case TunnelFrame(kind=FrameKind.DATA, data=data) if self._user is not None:
                if data:
                    self._user.data_received(data)
            case _ if self._user is not None:
                if not self._user.eof_received() and not self._is_over:
                    self.close()

    def _begin(self, head: TunnelHead) -> None:
        chosen = self._choose(head)
        self._timer.cancel()
        if isinstance(chosen, TunnelRefusal):
            self.refuse(chosen)
            return
        self._timer = self._loop.call_later(self._heartbeat_s, self._beat)
        self.set_protocol(chosen)
        chosen.connection_made(self)

    def _beat(self) -> None:
        """Say something if nothing was said for a while and nothing waits to be sent."""
        quiet_s = self._loop.time() - self._said_s
        if quiet_s >= self._heartbeat_s * 0.9 and not (self._is_write_paused or self._has_written_end):
            self._said_s = self._loop.time()
            self._stream.write(tunnel_frame(FrameKind.DATA) if self._has_answered else encode_progress(self._progress))
            quiet_s = 0.0
        self._timer = self._loop.call_later(max(self._heartbeat_s - quiet_s, self._heartbeat_s / 4), self._beat)

    def _end(self, error: Exception | None) -> None:
        self._timer.cancel()
        super()._end(error)
