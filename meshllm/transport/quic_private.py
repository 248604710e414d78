"""What aioquic 1.7.2 does not offer in public, in one place: credit, priorities, pins, limits, pacing.

Owns every use of a private attribute of aioquic. Decides nothing but how the library is bent. Doesn't know sockets,
loops or the mesh; tests/transport/test_quic_private.py fails loudly when another version behaves differently.

What is bent, and why (measured with tools of ours; the figures are in docs/decisions):
- limits of data rise when the application says so, not when bytes arrive;
- 128 streams at a time are hard coded, and a peer that is not admitted gets one;
- the server's key is compared with the expected one inside the TLS handshake, before any byte of ours is sent;
- streams are served round robin, and the control stream should not stand in line;
- the pacer's bucket holds less than a loop's timer can resolve;
- the size of datagrams is fixed: nothing finds out what a path carries;
- bytes from outside must not end as a traceback, whatever the library makes of them.
"""
# ruff: noqa: SLF001 - this module is where private attributes are used

from collections.abc import Callable

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnection, QuicConnectionState
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meshllm.core import limits
from meshllm.transport.codes import Priority

SUPPORTED_VERSION = "1.7.2"
"""The version that this module knows from the inside."""

PinCheck = Callable[[bytes], bool]
"""Is told the server's raw Ed25519 key; False ends the handshake with `bad_certificate`."""

_HOSTILE = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, tls.Alert)
"""What a mistake of the library on hostile input may look like."""


class MeshQuic(QuicConnection):
    """One QUIC connection of a node: sans-IO, with the bends listed at the top of this module."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        pin: PinCheck | None = None,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        """Allow the peer one stream if it dials, none if it is dialled, until `allow_streams`; never a one-way one."""
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._pin = pin
        self.has_wrong_key = False
        """The pin refused the server's key."""
        self._priorities: dict[int, Priority] = {}
        own_streams = 0 if configuration.is_client else 1
        for limit, value in ((self._local_max_streams_bidi, own_streams), (self._local_max_streams_uni, 0)):
            limit.value = limit.sent = value
        self._widen_pacing()

    # -- identity --------------------------------------------------------------------------------------

    @property
    def peer_public(self) -> bytes | None:
        """Return the raw Ed25519 key that the other side has proved, None for a dialler: it shows none in TLS."""
        certificate = self.tls._peer_certificate if self._is_established else None
        key = None if certificate is None else certificate.public_key()
        return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None

    @property
    def _is_established(self) -> bool:
        return self._handshake_complete

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._supported_groups = [tls.Group.X25519]
        self.tls._signature_algorithms = [tls.SignatureAlgorithm.ED25519]
        set_certificate = self.tls._set_peer_certificate

        def checked(message: tls.Certificate) -> None:
            if len(message.certificates) != 1:
                raise tls.AlertBadCertificate("one certificate is expected")
            set_certificate(message)
            certificate = self.tls._peer_certificate
            key = None if certificate is None else certificate.public_key()
            if not isinstance(key, Ed25519PublicKey):
                raise tls.AlertBadCertificate("an Ed25519 key is expected")
            if self._pin is None or not self._pin(key.public_bytes_raw()):
                self.has_wrong_key = True
                raise tls.AlertBadCertificate("not the expected node")

        self.tls._set_peer_certificate = checked  # type: ignore[method-assign, assignment]

    # -- life ------------------------------------------------------------------------------------------

    @property
    def is_begun(self) -> bool:
        """Tell whether one datagram could be deciphered: garbage in the form of a first datagram never is."""
        return self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def ending(self) -> ConnectionTerminated | None:
        """Return how the connection ends, as soon as it is known: the library tells after three probe timeouts."""
        return self._close_event

    @property
    def rtt_s(self) -> float:
        """Return the smoothed round trip; 0 while unknown. Below 2 ms it is mostly the peer's delay of answers."""
        return self._loss._rtt_smoothed if self._loss._rtt_initialized else 0.0

    @property
    def least_rtt_s(self) -> float:
        """Return the shortest round trip so far, which is the way's, however busy both ends are; inf while unknown."""
        return self._loss._rtt_min

    def receive(self, data: bytes, address: NetworkAddress, now_s: float) -> None:
        """Take a datagram. A mistake of the library in it ends this connection alone."""
        try:
            self.receive_datagram(data, address, now_s)
        except _HOSTILE as error:
            # With a frame type it is a close of the transport: without one the code would be read as one of ours.
            self.close(QuicErrorCode.INTERNAL_ERROR, QuicFrameType.PADDING, type(error).__name__)

    # -- sending ---------------------------------------------------------------------------------------

    def open_stream(self, priority: Priority) -> int:
        """Return the id of a new stream of ours, taken at once: asking for an id alone returns it twice."""
        stream_id = self.get_next_available_stream_id()
        self.send_stream_data(stream_id, b"")
        self.prefer(stream_id, priority)
        return stream_id

    def prefer(self, stream_id: int, priority: Priority) -> None:
        """Serve a stream in this order from here on."""
        if priority is not Priority.TOKENS:
            self._priorities[stream_id] = priority

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, *, is_last: bool = False) -> None:
        """Send after what was written to a stream; nothing happens when it has ended, or when the peer ended it.

        The library raises then, and resets a stream as a frame arrives, before its event is told.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None or stream.sender._buffer_fin is not None:
            return
        stream.sender.write(data, end_stream=is_last)  # type: ignore[arg-type]  # it only copies

    def is_stopped(self, stream_id: int) -> bool:
        """Tell whether nothing can be written to a stream any more: it was reset, by us or for the peer."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.sender._reset_error_code is not None

    def unsent_bytes(self, stream_id: int) -> int:
        """Return how much was written to a stream and never sent: what credit or congestion holds back."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return 0
        return stream.sender._buffer_stop - stream.sender.highest_offset

    def is_sent(self, stream_id: int) -> bool:
        """Tell whether everything written to a stream, its end included, has arrived."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.sender.is_finished

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """Build what may be sent, beginning with the most urgent streams."""
        if not self._network_paths:
            return []
        if self._priorities and len(self._streams_queue) > 1:
            self._streams_queue.sort(key=self._order)
        return super().datagrams_to_send(now)

    @property
    def timeouts(self) -> int:
        """Return how many times in a row nothing was acknowledged in time."""
        return self._loss._pto_count

    def set_datagram_bytes(self, size_bytes: int) -> None:
        """Send datagrams of up to this size from here on."""
        for part in (self, self._loss._cc, self._loss._pacer):
            part._max_datagram_size = size_bytes  # type: ignore[union-attr]

    def large_datagram(self, content: bytes, size_bytes: int, now_s: float) -> list[tuple[bytes, NetworkAddress]]:
        """Return one datagram of a size that the path may not carry; nothing when it cannot be sent at this moment.

        Neither its way nor its loss says anything about congestion (RFC 8899, 3), so it is not counted in flight: the
        loss of a lone probe would otherwise end slow start with a window of two datagrams.
        """
        if self._datagrams_pending or not self._network_paths[0].is_validated:
            return []
        usual, streams = self._max_datagram_size, self._streams_queue
        self._max_datagram_size, self._streams_queue = size_bytes, []  # nothing else is risked with it
        self._probe_pending = True  # the congestion window does not hold it back
        self._datagrams_pending.append(content)
        try:
            datagrams = super().datagrams_to_send(now_s)
        finally:
            self._max_datagram_size, self._streams_queue = usual, streams
            self._probe_pending = False
            self._datagrams_pending.clear()
        sent = self._spaces[tls.Epoch.ONE_RTT].sent_packets.get(self._packet_number - 1)
        if datagrams and sent is not None and sent.in_flight:
            sent.in_flight = False
            self._loss._cc.bytes_in_flight -= sent.sent_bytes
        return datagrams

    def _order(self, stream: QuicStream) -> int:
        return self._priorities.get(stream.stream_id or 0, Priority.TOKENS)

    def _widen_pacing(self) -> None:
        pacer = self._loss._pacer
        update_rate = pacer.update_rate

        def widened(congestion_window: int, smoothed_rtt: float) -> None:
            update_rate(congestion_window=congestion_window, smoothed_rtt=smoothed_rtt)
            pacer.bucket_max = max(pacer.bucket_max, limits.QUIC_PACING_QUANTUM_S)

        pacer.update_rate = widened  # type: ignore[method-assign]

    # -- receiving -------------------------------------------------------------------------------------

    def allow_streams(self, count: int) -> None:
        """Let the peer have so many streams open at a time, from now on."""
        limit = self._local_max_streams_bidi
        limit.value = max(limit.value, limit.used + count)

    def allow_connection_bytes(self, limit_bytes: int) -> None:
        """Let the peer send up to this many bytes in all, counted from the beginning."""
        self._local_max_data.value = max(self._local_max_data.value, limit_bytes)

    def allow_stream_bytes(self, stream_id: int, limit_bytes: int) -> None:
        """Let the peer send up to this many bytes on a stream, counted from its beginning."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            stream.max_stream_data_local = max(stream.max_stream_data_local, limit_bytes)

    def arrived_bytes(self, stream_id: int) -> int:
        """Return how much of a stream counts against the connection's limit; 0 when the library has forgotten it."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.receiver.highest_offset

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to send no more on a stream, if it still may."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            self.stop_stream(stream_id, code)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        # With `used` at 0 the library does not double the limit by itself; it still sends what differs from `sent`.
        data = self._local_max_data
        used, data.used = data.used, 0
        try:
            super()._write_connection_limits(builder, space)
        finally:
            data.used = used

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        if stream.max_stream_data_local_sent == stream.max_stream_data_local:
            return
        receiver = stream.receiver
        highest, receiver.highest_offset = receiver.highest_offset, 0
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            receiver.highest_offset = highest
