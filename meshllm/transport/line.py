"""A line: one TLS connection over TCP to a near peer, which carries tunnels one after another.

Owns the records on it and whose turn it is. Decides when a tunnel is over at both ends, and so when the line can carry
the next one. Doesn't know what tunnels are, nor who keeps lines.

A record is a length and so many bytes; a length of zero ends one direction of the present stream. Whoever dialled
begins a stream with its first record, and the next one when both directions have ended; a stream that ends otherwise
takes its line with it. Each stream has a connection of the kernel to itself, which holds its writer back, shares the
way fairly with others and tells at once when the other process is gone.
"""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import Callable
from typing import Any, cast

from meshllm.core import line_limits as limits
from meshllm.core.ids import NodeId
from meshllm.transport.bulk_channel import Sealed
from meshllm.transport.codes import StreamCode
from meshllm.transport.stream import Bytes, StreamLost
from meshllm.wire.errors import WireError
from meshllm.wire.frames import FrameReader

_LENGTH = struct.Struct(">I")
_END = _LENGTH.pack(0)


class LineStream(asyncio.Transport):
    """One stream on a line. It is used as a `Stream` of a connection is."""

    def __init__(self, line: "Line") -> None:
        """Have the line to itself; `set_protocol` follows before anything arrives."""
        super().__init__(line.extra)
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol = asyncio.Protocol()
        self._is_write_over = self._has_end = self._is_closing = False

    # -- asyncio.Transport -----------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the stream to a protocol. `connection_made` is the caller's to call."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who is told what happens."""
        return self._protocol

    def is_closing(self) -> bool:
        """Tell whether the stream is over for its user."""
        return self._is_closing

    def is_reading(self) -> bool:
        """Tell whether data is handed out as it comes."""
        return not self._is_closing and self._line.is_reading

    def get_write_buffer_size(self) -> int:
        """Return the bytes that were written and not sent."""
        return self._line.unsent_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the marks at which the protocol's writing is resumed and paused."""
        return limits.LINE_UNSENT_HIGH_BYTES // 4, limits.LINE_UNSENT_HIGH_BYTES

    def write(self, data: Bytes) -> None:
        """Send after what was written before."""
        if not (self._is_write_over or self._is_closing) and data:
            self._line.send(data)

    def can_write_eof(self) -> bool:
        """Return True: directions end on their own."""
        return True

    def write_eof(self) -> None:
        """End this direction, after what was written."""
        if not self._is_write_over:
            self._is_write_over = True
            self._line.send_end()
            self._end_if_both_over()

    def pause_reading(self) -> None:
        """Read nothing more from the network. What was read already is still handed out."""
        if not self._is_closing:
            self._line.pause()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._is_closing:
            self._line.resume()

    def close(self) -> None:
        """End in good order: what was written arrives, what the peer still sends is not read."""
        if not self._is_closing:
            self.write_eof()
            self._lose(None)
            if not self._has_end:
                self._line.await_end()

    def abort(self, code: StreamCode = StreamCode.CANCELLED) -> None:  # noqa: ARG002 - TCP has no place for it
        """End at once, and the line with it."""
        is_over, self._is_write_over, self._has_end = self.is_over, True, True
        self._lose(None)
        if not is_over:
            self._line.hang_up()

    # -- for the line ----------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Tell whether both directions have ended in order."""
        return self._is_write_over and self._has_end

    def on_data(self, data: bytes) -> None:
        """Take what arrived."""
        if not self._is_closing:
            self._protocol.data_received(data)

    def on_end(self) -> None:
        """Learn that the peer has said everything."""
        self._has_end = True
        if not self._is_closing and not self._protocol.eof_received():
            self.write_eof()
        self._end_if_both_over()

    def on_lost(self, error: Exception) -> None:
        """Learn that there is no line any more."""
        self._is_write_over = self._has_end = True
        self._lose(error)

    def on_room(self, *, is_there: bool) -> None:
        """Pass on whether there is room to write."""
        if not self._is_closing:
            (self._protocol.resume_writing if is_there else self._protocol.pause_writing)()

    def _end_if_both_over(self) -> None:
        if self.is_over:
            self._lose(None)
            self._line.free(self)

    def _lose(self, error: Exception | None) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._protocol.connection_lost, error)


class Line(asyncio.Protocol):
    """One line, at either end."""

    def __init__(
        self, sealed: Sealed, *, on_stream: Callable[["Line", LineStream], None] | None,
        on_free: Callable[["Line"], None], on_gone: Callable[["Line"], None],
    ) -> None:  # fmt: skip
        """Carry tunnels over a connection: those that the peer begins go to `on_stream`; None where this side does."""
        self.peer: NodeId = sealed.peer
        self.extra: dict[str, Any] = {}
        self.is_open = True
        self.is_reading = True
        self._tls, self._incoming, self._outgoing = sealed.tls, sealed.incoming, sealed.outgoing
        self._on_stream = on_stream
        self._on_free = on_free
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._stream: LineStream | None = None
        self._unsent: list[Bytes] = []
        self._unsent_bytes = 0
        self._is_flush_due = False
        self._reader = FrameReader(limits.LINE_RECORD_BYTES, keeps_empty=True)
        idle_s = limits.LINE_IDLE_S if on_stream is None else 2 * limits.LINE_IDLE_S
        self._idle_s = idle_s
        self._timer = self._loop.call_later(idle_s, self.hang_up)

    def begin(self) -> LineStream:
        """Return the next stream, at the end that begins them."""
        self._timer.cancel()
        self._stream = LineStream(self)
        return self._stream

    def hang_up(self) -> None:
        """End the line at once."""
        self.cut(StreamLost("cancelled", "the line was hung up"))

    def cut(self, error: Exception) -> None:
        """End the line at once, and tell its stream why."""
        if self._transport is not None:
            self._transport.abort()
        self._over(error)

    # -- for the stream --------------------------------------------------------------------------------------

    @property
    def unsent_bytes(self) -> int:
        """Return the bytes that were written and that the kernel has not taken."""
        sealed = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return sealed + self._unsent_bytes

    def send(self, data: Bytes) -> None:
        """Send bytes: what is asked once this turn of the loop is over, all parts of it together; answers at once."""
        for start in range(0, len(data), limits.LINE_RECORD_BYTES):
            record = data if len(data) <= limits.LINE_RECORD_BYTES else data[start : start + limits.LINE_RECORD_BYTES]
            self._unsent += (_LENGTH.pack(len(record)), record)
            self._unsent_bytes += len(record)
        if self._on_stream is not None or self._unsent_bytes > limits.LINE_UNSENT_HIGH_BYTES:
            self._flush()  # now, also so that a writer is told to wait
        else:
            self._flush_soon()

    def send_end(self) -> None:
        """Say that this direction of the stream is over."""
        self._unsent.append(_END)
        self._flush()

    def pause(self) -> None:
        """Stop reading."""
        if self.is_reading and self._transport is not None:
            self.is_reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self.is_reading and self._transport is not None:
            self.is_reading = True
            self._transport.resume_reading()

    def await_end(self) -> None:
        """Throw away what the peer still says on a stream that is over here, for a moment; then hang up."""
        self.resume()
        self._timer.cancel()
        self._timer = self._loop.call_later(limits.LINE_REST_S, self.hang_up)

    def free(self, stream: LineStream) -> None:
        """Be free for the next stream."""
        if stream is not self._stream or not self.is_open:
            return
        self._stream = None
        self.resume()
        self._timer.cancel()
        self._timer = self._loop.call_later(self._idle_s, self.hang_up)
        self._on_free(self)

    # -- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        if not self.is_open:
            cast("asyncio.Transport", transport).abort()
            return
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(limits.LINE_UNSENT_HIGH_BYTES)
        self.extra["peername"] = transport.get_extra_info("peername")
        if self._incoming.pending:
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        """Decrypt, and cut into records."""
        if data:
            self._incoming.write(data)
        parts = []
        try:
            while True:
                part = self._tls.read(limits.LINE_READ_BYTES)
                if not part:
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.cut(StreamLost("malformed", f"TLS failed: {error.reason or 'unknown'}"))
            return
        if self._outgoing.pending:
            self._flush_soon()  # TLS itself has something to say
        self._take(b"".join(parts) if len(parts) != 1 else parts[0])

    def _take(self, data: bytes) -> None:
        try:
            records = self._reader.feed(data)
        except WireError as error:
            self.cut(StreamLost("malformed", error.message))
            return
        for record in records:
            if self.is_open:
                self._take_record(record)

    def _take_record(self, record: bytes) -> None:
        stream = self._stream
        if stream is None:
            if self._on_stream is None or not record:
                self.cut(StreamLost("malformed", "the peer speaks out of turn"))
                return
            stream = self.begin()
            self._on_stream(self, stream)
        if record:
            stream.on_data(record)
        else:
            stream.on_end()

    def eof_received(self) -> bool:
        """Close: nothing ends that way in good order."""
        return False

    def pause_writing(self) -> None:
        """Tell the stream to wait."""
        if self._stream is not None:
            self._stream.on_room(is_there=False)

    def resume_writing(self) -> None:
        """Let the stream write again."""
        if self._stream is not None:
            self._stream.on_room(is_there=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Be gone."""
        self._over(StreamLost("lost", f"the line to the peer broke{f': {exc}' if exc else ''}"))

    # -- inside ----------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        transport = self._transport
        if transport is None or not self.is_open:
            return
        if self._unsent:
            plain, self._unsent, self._unsent_bytes = memoryview(b"".join(self._unsent)), [], 0
            with contextlib.suppress(ssl.SSLError):  # its reader says so as well
                while plain:
                    plain = plain[self._tls.write(plain) :]
        if self._outgoing.pending:
            transport.write(self._outgoing.read())

    def _over(self, error: Exception) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._timer.cancel()
        self._transport = None
        self._unsent.clear()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.on_lost(error)
        self._on_gone(self)
