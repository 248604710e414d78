"""One connection to another node: its streams, its timer, its credit and its end.

Owns one `MeshQuic` between the socket and the streams. Decides when to send and what the peer may still send. Doesn't
know who the peer is to the mesh: whoever opened it says when it is admitted.

Invariant: `on_closed` is called exactly once, after every stream has been told.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from aioquic.quic import events
from aioquic.quic.packet import QuicErrorCode

from meshllm.core import limits
from meshllm.core.announcement import Address
from meshllm.core.ids import ConnectionId
from meshllm.transport.codes import CloseCode, Ending, Priority, StreamCode, close_name, stream_name
from meshllm.transport.credit import Window
from meshllm.transport.path_size import PathSize, answer_to, answered_size, probe
from meshllm.transport.quic_private import MeshQuic
from meshllm.transport.stream import Stream, StreamLost, StreamTaker
from meshllm.transport.udp import Datagram, SocketAddress, address_of


@dataclass(frozen=True, slots=True)
class Closing:
    """How a connection ended. `code` is a name of `CloseCode`, or one of `Ending`."""

    code: str
    message: str
    is_ours: bool


class ConnectionOwner(Protocol):
    """What a connection needs of its endpoint."""

    def send(self, datagrams: Sequence[Datagram]) -> None:
        """Hand datagrams to the socket."""

    def register(self, connection: "Connection", connection_id: bytes) -> None:
        """Route datagrams with this connection id here."""

    def unregister(self, connection_id: bytes) -> None:
        """Route them here no more."""

    def on_admitted(self, connection: "Connection") -> None:
        """Count a connection among the strangers no more."""

    def on_over(self, connection: "Connection") -> None:
        """Forget a connection, once late datagrams were answered long enough."""


class Connection:
    """A QUIC connection that is being set up, lives, or has ended."""

    def __init__(
        self,
        owner: ConnectionOwner,
        quic: MeshQuic,
        connection_id: ConnectionId,
        address: SocketAddress,
        *,
        is_dialled: bool,
    ) -> None:
        """Carry `quic` on the running loop, to or from an address."""
        self.id = connection_id
        self._address = address
        self.quic = quic
        self.is_dialled = is_dialled
        self.on_stream: StreamTaker | None = None
        """Who takes streams of the peer; without one they are refused."""
        self.on_closed: Callable[[Closing], None] | None = None
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """Done when TLS is up and the server's key is the expected one; a ConnectionError if it never is."""
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[Stream, None] = {}
        self._window = Window(limits.QUIC_UNADMITTED_WINDOW_BYTES)
        self._closing: Closing | None = None
        self._farewell: Sequence[Datagram] = ()
        self._late_datagrams = 0
        self._path = PathSize()
        self._path_timer: asyncio.TimerHandle | None = None
        self._is_flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._close_when_sent: tuple[CloseCode, str] | None = None
        self.heard_s = monotonic()
        """When the peer was last heard, on the monotonic clock."""

    # -- what others ask -----------------------------------------------------------------------------------

    @property
    def peer_public(self) -> bytes | None:
        """Return the raw key that the other side proved in TLS; None on connections that were accepted."""
        return self.quic.peer_public

    @property
    def remote(self) -> Address:
        """Return where the peer is seen; changes when it moves."""
        return address_of(self.quic.get_peer_address() or self._address)

    @property
    def rtt_s(self) -> float:
        """Return the smoothed round trip in seconds; 0 while unknown."""
        return self.quic.rtt_s

    @property
    def least_rtt_s(self) -> float:
        """Return the shortest round trip in seconds; infinity while unknown."""
        return self.quic.least_rtt_s

    @property
    def datagram_bytes(self) -> int:
        """Return how large the datagrams are that the path is known to carry."""
        return self._path.size_bytes

    @property
    def is_closed(self) -> bool:
        """Tell whether the connection has ended, or was told to."""
        return self._closing is not None

    @property
    def streams(self) -> int:
        """Return how many streams are not over."""
        return len(self._streams)

    def open_stream(self, priority: Priority) -> Stream:
        """Return a new stream. It waits by itself when the peer allows no more. Raises StreamLost when closed."""
        if self._closing is not None:
            raise StreamLost(self._closing.code, "the connection has ended")
        return self._new_stream(self.quic.open_stream(priority))

    def close(self, code: CloseCode, reason: str = "") -> None:
        """End at once, telling the peer why; whatever waits to be sent is lost."""
        if self._closing is not None:
            return
        self.quic.close(error_code=code, reason_phrase=reason)
        self._send_farewell()
        self._end(Closing(code.name.lower(), reason, is_ours=True))

    def close_when_sent(self, code: CloseCode, reason: str, within_s: float) -> None:
        """End once everything that was written has arrived, or after `within_s`."""
        if self._closing is None and self._close_when_sent is None:
            self._close_when_sent = (code, reason)
            self._set_deadline(within_s, code, reason)
            self._close_if_sent()

    def limit_life(self, within_s: float, code: CloseCode) -> None:
        """End after `within_s` unless it is admitted before."""
        self._set_deadline(within_s, code, "not admitted in time")

    def admit(self) -> None:
        """Let the peer open streams and send as members may."""
        if self._deadline is not None and self._close_when_sent is None:
            self._deadline.cancel()
            self._deadline = None
        self.quic.allow_streams(limits.QUIC_STREAMS)
        if self._window.widen(limits.QUIC_CONNECTION_WINDOW_BYTES):
            self.quic.allow_connection_bytes(self._window.limit_bytes)
        self._owner.on_admitted(self)
        self.send_soon()
        self._try_size()

    def keep_alive(self, now_s: float, silent_s: float) -> None:
        """Send a PING if nothing was heard for so long."""
        if self._closing is None and now_s - self.heard_s >= silent_s:
            self.quic.send_ping(0)
            self.send_soon()

    # -- for the endpoint ----------------------------------------------------------------------------------

    def receive(self, data: bytes, address: SocketAddress, now_s: float) -> None:
        """Take a datagram; `settle` follows when the batch is through."""
        if self._closing is None:
            self.heard_s = now_s
            self.quic.receive(data, address, now_s)
            return
        self._late_datagrams += 1
        if self._farewell and self._late_datagrams & (self._late_datagrams - 1) == 0:  # the 1st, 2nd, 4th, 8th...
            self._owner.send(self._farewell)

    def settle(self) -> None:
        """Tell what has happened, and send what is due: behind what engines and clients are sent because of it."""
        self._tell()
        if self._closing is None:
            self.send_soon()

    def abandon(self) -> None:
        """End without a word: the connection never came to be, or the socket is about to close."""
        self._end(Closing(CloseCode.DONE.name.lower(), "abandoned", is_ours=True))

    # -- for streams ---------------------------------------------------------------------------------------

    def send_soon(self) -> None:
        """Send once this turn of the loop is over, together with whatever else is written in it."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self.flush)

    def credit(self, size_bytes: int) -> None:
        """Count bytes of any stream as consumed."""
        if self._window.take(size_bytes):
            self.quic.allow_connection_bytes(self._window.limit_bytes)
            self.send_soon()

    def wait_for_room(self, stream: Stream) -> None:
        """Tell a stream after each sending."""
        self._waiting[stream] = None

    def forget(self, stream: Stream) -> None:
        """Drop a stream whose directions are both over."""
        self._streams.pop(stream.id, None)
        self._waiting.pop(stream, None)

    # -- sending -------------------------------------------------------------------------------------------

    def flush(self, not_before_s: float = 0.0) -> None:
        """Send what credit, congestion and pacing allow at this moment, which is not before the given one."""
        self._is_flush_due = False
        if self._closing is not None:
            return
        datagrams = self.quic.datagrams_to_send(max(monotonic(), not_before_s))
        if datagrams:
            self._owner.send(datagrams)
        self._set_timer()
        for stream in tuple(self._waiting):
            if stream.on_flushed():
                self._waiting.pop(stream, None)

    def _set_timer(self) -> None:
        """Have the timer run when the library wants it, or earlier: then it is only set again."""
        at = self.quic.get_timer()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now_s = monotonic()
        at = self.quic.get_timer()
        if at is not None and self._timer_at >= at:
            # Loops round their timers, so this may be a little early: then the timer would run again and again.
            now_s = max(now_s, at)
        if at is None or at <= now_s:
            self.quic.handle_timer(now_s)
            if self.quic.timeouts >= limits.PATH_SIZE_TIMEOUTS and self._path.on_trouble():
                self.quic.set_datagram_bytes(self._path.size_bytes)
            self._tell()
        self.flush(now_s)

    # -- the size of datagrams -----------------------------------------------------------------------------

    def _try_size(self) -> None:
        """Send one larger datagram, and look again after a while; an answer comes sooner."""
        if self._path_timer is not None:
            self._path_timer.cancel()
            self._path_timer = None
        size_bytes = None if self._closing is not None else self._path.next_try()
        if size_bytes is not None:
            self._path_timer = self._loop.call_later(limits.PATH_SIZE_INTERVAL_S, self._try_size)
            large = self.quic.large_datagram(probe(size_bytes), size_bytes, monotonic())
            if large:
                self._path.on_tried()
                self._owner.send(large)

    def _on_probe(self, data: bytes) -> None:
        """Answer the peer's probe, or learn from its answer."""
        if (answer := answer_to(data)) is not None:
            self.quic.send_datagram_frame(answer)
        elif (size_bytes := answered_size(data)) is not None and self._path.on_answer(size_bytes):
            self.quic.set_datagram_bytes(size_bytes)
            self._try_size()

    # -- what the library has to say -----------------------------------------------------------------------

    def _tell(self) -> None:
        while self._closing is None and (event := self.quic.next_event()) is not None:
            match event:
                case events.StreamDataReceived(data=data, end_stream=is_last, stream_id=stream_id):
                    self._on_data(stream_id, data, is_last=is_last)
                case events.StreamReset(error_code=code, stream_id=stream_id):
                    self._on_reset(stream_id, code)
                case events.StopSendingReceived(error_code=code, stream_id=stream_id):
                    if (stream := self._streams.get(stream_id)) is not None:
                        stream.on_stopped(code, stream_name(code))
                case events.HandshakeCompleted() if not self.ready.done():
                    self.ready.set_result(None)
                case events.ConnectionIdIssued(connection_id=connection_id):
                    self._owner.register(self, connection_id)
                case events.ConnectionIdRetired(connection_id=connection_id):
                    self._owner.unregister(connection_id)
                case events.DatagramFrameReceived(data=data):
                    self._on_probe(data)
                case _:
                    pass
        if self._closing is None and (ending := self.quic.ending) is not None:
            self._send_farewell()  # the library's own, for a peer that broke QUIC's rules; nothing if the peer ended it
            self._on_terminated(ending)
        self._close_if_sent()

    def _on_data(self, stream_id: int, data: bytes, *, is_last: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            taker = self.on_stream
            stream = self._new_stream(stream_id)
            if taker is None or self.quic.is_stopped(stream_id):
                stream.abort(StreamCode.FORBIDDEN)
            else:
                taker(stream)
        stream.on_data(data, is_last=is_last)

    def _on_reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.on_reset(code, stream_name(code))
        else:  # the peer gave up before anything of the stream arrived
            self.credit(self.quic.arrived_bytes(stream_id))
            self.quic.reset_stream(stream_id, StreamCode.CANCELLED)

    def _new_stream(self, stream_id: int) -> Stream:
        stream = Stream(self, stream_id, {"connection": self, "peername": self.quic.get_peer_address()})
        self._streams[stream_id] = stream
        return stream

    # -- the end -------------------------------------------------------------------------------------------

    def _close_if_sent(self) -> None:
        if self._close_when_sent is not None and all(self.quic.is_sent(stream_id) for stream_id in self._streams):
            self.close(*self._close_when_sent)

    def _set_deadline(self, within_s: float, code: CloseCode, reason: str) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(within_s, self.close, code, reason)

    def _on_terminated(self, event: events.ConnectionTerminated) -> None:
        is_application = event.frame_type is None
        code = close_name(event.error_code, is_application=is_application)
        if event.error_code == QuicErrorCode.INTERNAL_ERROR and event.reason_phrase == "Idle timeout":
            code = Ending.TIMEOUT
        self._end(Closing(code, event.reason_phrase or f"code {event.error_code}", is_ours=False))

    def _send_farewell(self) -> None:
        self._farewell = self.quic.datagrams_to_send(monotonic())
        if self._farewell:
            self._owner.send(self._farewell)

    def _end(self, closing: Closing) -> None:
        if self._closing is not None:
            return
        self._closing = closing
        for timer in (self._timer, self._deadline, self._path_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline = self._path_timer = None
        error = StreamLost(closing.code, f"the connection ended: {closing.code} {closing.message}".rstrip())
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # whoever dials may have given up already
        for stream in tuple(self._streams.values()):
            stream.on_connection_over(error)
        self._streams.clear()
        self._waiting.clear()
        self._owner.on_over(self)
        if self.on_closed is not None:
            self._loop.call_soon(self.on_closed, closing)
