"""One stream of a connection, in the form of an asyncio transport: callbacks, with back-pressure in both directions.

Owns what arrived and was not taken, and when a writer has to wait. Decides when a stream is over: when both directions
are, in order or not. Doesn't know what its bytes mean.

Invariants: the peer gets credit for exactly the bytes that were taken, or that nobody will ever take; a stream that is
over in one way for us is made over in both, since the peer's stream limit counts it until then.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from meshllm.core import limits
from meshllm.transport.codes import Priority, StreamCode
from meshllm.transport.credit import Window
from meshllm.transport.quic_private import MeshQuic

Bytes = bytes | bytearray | memoryview


class StreamLost(ConnectionError):  # noqa: N818 - an event of the network, not a mistake
    """A stream ended before its time."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the code of whoever ended it beside the words."""
        super().__init__(message)
        self.code = code


class StreamOwner(Protocol):
    """What a stream needs of its connection."""

    quic: MeshQuic

    def send_soon(self) -> None:
        """Send what was written once this turn of the loop is over."""

    def credit(self, size_bytes: int) -> None:
        """Count bytes as consumed on the whole connection."""

    def wait_for_room(self, stream: "Stream") -> None:
        """Call `stream.on_flushed` after each sending from now on, until it returns True."""

    def forget(self, stream: "Stream") -> None:
        """Both directions of a stream are over."""


class _Nobody(asyncio.Protocol):
    """Takes what comes on a stream that nobody has asked for, and no longer wants."""


class Stream(asyncio.Transport):
    """A bidirectional stream. `write`, `pause_reading` and the rest are those of asyncio's transports."""

    def __init__(self, owner: StreamOwner, stream_id: int, extra: dict[str, Any]) -> None:
        """Belong to a connection; `set_protocol` follows before anything arrives or is written."""
        super().__init__(extra)
        self.id = stream_id
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol = _Nobody()
        self._window = Window(limits.QUIC_STREAM_WINDOW_BYTES)
        self._held: deque[bytes] = deque()
        self._is_paused = self._is_resuming = False
        self._has_end = self._is_end_told = False
        """The peer's last byte has arrived; and the protocol knows."""
        self._is_discarding = False
        self._is_write_over = self._is_write_paused = False
        self._is_closing = False

    # -- asyncio.Transport: state ------------------------------------------------------------------------

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
        return not (self._is_paused or self._is_closing)

    def prefer(self, priority: Priority) -> None:
        """Serve what is written here in this order: the peer's streams begin as `TOKENS`."""
        self._owner.quic.prefer(self.id, priority)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that were written and not sent."""
        return self._owner.quic.unsent_bytes(self.id)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the marks at which the protocol's writing is resumed and paused."""
        return limits.QUIC_UNSENT_LOW_BYTES, limits.QUIC_UNSENT_HIGH_BYTES

    # -- asyncio.Transport: writing ----------------------------------------------------------------------

    def write(self, data: Bytes) -> None:
        """Send after what was written before. Nothing happens once the peer wants no more."""
        if self._is_write_over or not data:
            return
        quic = self._owner.quic
        quic.write(self.id, data)
        self._owner.send_soon()
        if not self._is_write_paused and quic.unsent_bytes(self.id) > limits.QUIC_UNSENT_HIGH_BYTES:
            self._is_write_paused = True
            self._owner.wait_for_room(self)
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Return True: directions end on their own."""
        return True

    def write_eof(self) -> None:
        """End this direction, after what was written."""
        if self._is_write_over:
            return
        self._is_write_over = True
        self._owner.quic.write(self.id, b"", is_last=True)
        self._owner.send_soon()
        self._end_if_both_over()

    def on_flushed(self) -> bool:
        """Let the writer go on when enough was sent. Return whether there is nothing more to wait for."""
        if self._is_closing or self._is_write_over:
            return True
        if self._owner.quic.unsent_bytes(self.id) > limits.QUIC_UNSENT_LOW_BYTES:
            return False
        self._is_write_paused = False
        self._protocol.resume_writing()
        return not self._is_write_paused

    # -- asyncio.Transport: reading ----------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Hand out nothing more; the peer is held back once its credit is used up."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Hand out again, beginning after this turn of the loop."""
        self._is_paused = False
        if (self._held or self._has_end) and not self._is_resuming:
            self._is_resuming = True
            self._loop.call_soon(self._hand_out)

    # -- asyncio.Transport: ending -----------------------------------------------------------------------

    def close(self) -> None:
        """End in good order: what was written arrives, what the peer still sends is not read."""
        if self._is_closing:
            return
        self.write_eof()
        self._stop_reading(StreamCode.ENOUGH)
        self._lose(None)

    def abort(self, code: StreamCode = StreamCode.CANCELLED) -> None:
        """End at once in both directions, with a code for the peer."""
        if self._is_closing and self._is_write_over and self._has_end:
            return
        self._reset(code)
        self._lose(None)

    # -- for the connection --------------------------------------------------------------------------------

    def on_data(self, data: bytes, *, is_last: bool) -> None:
        """Take what arrived."""
        self._has_end |= is_last
        if self._is_discarding:
            self._consume(len(data))
        elif data:
            self._held.append(data)
        if not (self._is_paused or self._is_resuming):
            self._hand_out()
        self._forget_if_over()

    def on_reset(self, code: int, name: str) -> None:
        """Learn that the peer sends no more, out of order."""
        self._has_end = self._is_end_told = True
        arrived = self._owner.quic.arrived_bytes(self.id)
        self._held.clear()
        self._is_discarding = True
        self._consume(max(0, arrived - self._window.consumed_bytes))
        if not self._is_write_over:
            self._reset(StreamCode.CANCELLED)
        self._lose(StreamLost(name, f"the peer ended the stream: {name} ({code})"))
        self._forget_if_over()

    def on_stopped(self, code: int, name: str) -> None:
        """Learn that the peer reads no more; the library has reset our direction."""
        self._is_write_over = True
        if code == StreamCode.ENOUGH:
            if self._is_write_paused:
                self._is_write_paused = False
                self._protocol.resume_writing()
            self._end_if_both_over()
        else:
            self._reset(StreamCode.CANCELLED)
            self._lose(StreamLost(name, f"the peer ended the stream: {name} ({code})"))
        self._forget_if_over()

    def on_connection_over(self, error: Exception) -> None:
        """Learn that there is no connection any more. What has arrived to its end is still handed out when wanted."""
        self._is_write_over = True
        if self._held and self._has_end and not self._is_closing:
            return
        self._has_end = self._is_end_told = self._is_discarding = True
        self._held.clear()
        self._lose(error)

    # -- inside ------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        self._is_resuming = False
        while self._held and not self._is_paused:
            data = self._held.popleft()
            self._protocol.data_received(data)
            self._consume(len(data))
        if self._has_end and not (self._held or self._is_paused or self._is_end_told):
            self._is_end_told = True
            if not self._is_closing and not self._protocol.eof_received():
                self.write_eof()
            self._end_if_both_over()

    def _consume(self, size_bytes: int) -> None:
        if not size_bytes:
            return
        if self._window.take(size_bytes):
            self._owner.quic.allow_stream_bytes(self.id, self._window.limit_bytes)
            self._owner.send_soon()
        self._owner.credit(size_bytes)

    def _discard(self) -> None:
        self._is_discarding = True
        held, self._held = self._held, deque()
        for data in held:
            self._consume(len(data))

    def _stop_reading(self, code: StreamCode) -> None:
        self._discard()
        if not self._has_end:
            self._owner.quic.stop(self.id, code)
            self._owner.send_soon()

    def _reset(self, code: StreamCode) -> None:
        self._is_write_over = True
        self._owner.quic.reset_stream(self.id, code)
        self._owner.send_soon()
        self._stop_reading(code)

    def _end_if_both_over(self) -> None:
        if self._is_write_over and self._is_end_told:
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self._is_closing:
            self._is_closing = True
            protocol, self._protocol = self._protocol, _Nobody()
            self._loop.call_soon(protocol.connection_lost, error)
        self._forget_if_over()

    def _forget_if_over(self) -> None:
        if self._is_closing and self._is_write_over and self._has_end and not self._held:
            self._owner.forget(self)


StreamTaker = Callable[[Stream], None]
"""Is given each stream that the peer opens, and sets its protocol."""
