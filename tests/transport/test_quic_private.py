"""What is known of aioquic from the inside: each of these fails loudly when another version behaves differently."""

import ssl
from importlib.metadata import version
from math import inf

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import Limit, QuicConnection
from aioquic.quic.packet import QuicProtocolVersion

from meshllm.core import limits
from meshllm.transport import quic_private
from meshllm.transport.codes import Priority
from meshllm.transport.identity import Identity
from meshllm.transport.quic_private import MeshQuic

DIALLER, ACCEPTOR = ("127.0.0.1", 1), ("127.0.0.1", 2)


class Wire:
    """Two connections without a network: datagrams are handed over by hand."""

    def __init__(self, *, pin=lambda public: True, dialler=MeshQuic, shown: Identity | None = None) -> None:
        self.identity = Identity.generate()
        self.now_s = 100.0
        shown = shown or self.identity
        common = {
            "alpn_protocols": ["meshllm/1"], "supported_versions": [QuicProtocolVersion.VERSION_1],
            "max_data": 64_000, "max_stream_data": 64_000,
        }  # fmt: skip
        client = QuicConfiguration(is_client=True, verify_mode=ssl.CERT_NONE, server_name="meshllm", **common)
        server = QuicConfiguration(
            is_client=False, certificate=shown.tls_certificate, private_key=self.identity.private_key, **common
        )
        options = {"pin": pin} if dialler is MeshQuic else {}
        self.near = dialler(configuration=client, **options)
        self.near.connect(ACCEPTOR, self.now_s)
        odcid = self.near.original_destination_connection_id
        self.far = MeshQuic(configuration=server, original_destination_connection_id=odcid)

    def carry(self, turns: int = 8) -> None:
        """Hand over what both sides have to say, until they say nothing."""
        for _ in range(turns):
            self.now_s += 0.002
            for data, _ in self.near.datagrams_to_send(self.now_s):
                self.far.receive(data, DIALLER, self.now_s)
            for data, _ in self.far.datagrams_to_send(self.now_s):
                self.near.receive_datagram(data, ACCEPTOR, self.now_s)

    def events(self, side: MeshQuic) -> list[str]:
        """Return the names of what has happened at a side."""
        names = []
        while (event := side.next_event()) is not None:
            names.append(type(event).__name__)
        return names


def connected(**options) -> Wire:
    """Return two connected sides whose peers may open streams."""
    wire = Wire(**options)
    wire.carry()
    wire.near.allow_streams(10)
    wire.far.allow_streams(10)
    wire.carry()
    return wire


def test_version_is_the_one_that_is_known() -> None:
    """Whoever raises the version reads this module and runs these tests first."""
    assert version("aioquic") == quic_private.SUPPORTED_VERSION


def test_overridden_methods_exist() -> None:
    """A renamed method would be overridden by nothing, in silence."""
    for name in ("_initialize", "_write_connection_limits", "_write_stream_limits", "datagrams_to_send"):
        assert name in vars(QuicConnection)
        assert name in vars(MeshQuic)
    assert set(vars(Limit(0, "", 7))) == {"frame_type", "name", "sent", "used", "value"}


def test_dialler_knows_the_key_that_was_proved() -> None:
    """The handshake of the mesh is bound to this key."""
    wire = connected()

    assert wire.near.peer_public == wire.identity.public
    assert wire.far.peer_public is None
    assert (wire.near.is_begun, wire.far.is_begun) == (True, True)
    assert 0 < wire.near.rtt_s < 1
    assert 0 < wire.near.least_rtt_s < 1


def test_key_that_is_not_expected_ends_the_handshake() -> None:
    """Before any byte of ours is sent."""
    asked: list[bytes] = []

    def refuse(public: bytes) -> bool:
        asked.append(public)
        return False

    wire = Wire(pin=refuse)

    wire.carry()

    assert asked == [wire.identity.public]
    assert wire.near.has_wrong_key
    assert wire.near.ending.error_code == 0x100 + 42
    assert "HandshakeCompleted" not in wire.events(wire.near)


def test_certificate_without_its_key_ends_the_handshake() -> None:
    """Certificates are public: only the signature over this handshake proves the key, also without a chain to check."""
    other = Identity.generate()
    wire = Wire(pin=lambda public: public == other.public, shown=other)

    wire.carry()

    assert wire.near.ending.error_code == 0x100 + 51  # decrypt_error
    assert "HandshakeCompleted" not in wire.events(wire.near)


def test_nobody_is_trusted_without_a_pin() -> None:
    """A dialler that forgets to say whom it expects reaches nobody."""
    wire = Wire(pin=None)

    wire.carry()

    assert wire.near.has_wrong_key


def test_stranger_may_open_one_stream_and_the_dialled_none() -> None:
    """All of the handshake goes over one; everything else waits, and costs nothing."""
    wire = Wire()
    wire.carry()

    for number in range(3):
        wire.near.write(wire.near.open_stream(Priority.TOKENS), b"%d" % number)
    wire.far.write(wire.far.open_stream(Priority.TOKENS), b"x")
    wire.carry()
    before = (set(wire.far._streams), set(wire.near._streams))
    wire.near.allow_streams(5)
    wire.far.allow_streams(5)
    wire.carry()

    assert before == ({0, 1}, {0, 1, 4, 8} - {1})
    assert set(wire.far._streams) == {0, 1, 4, 8}
    assert set(wire.near._streams) == {0, 1, 4, 8}


def test_as_many_streams_as_are_allowed() -> None:
    """128 are hard coded in the library."""
    wire = connected()
    wire.far.allow_streams(limits.QUIC_STREAMS)
    wire.carry()

    for _ in range(limits.QUIC_STREAMS + 5):
        wire.near.write(wire.near.open_stream(Priority.TOKENS), b"x")
    wire.carry(200)

    assert limits.QUIC_STREAMS <= len(wire.far._streams) <= limits.QUIC_STREAMS + 5


def test_one_way_streams_are_refused() -> None:
    """No part of the protocol has them."""
    wire = connected()

    wire.near.send_stream_data(2, b"x")
    wire.carry()

    assert 2 not in wire.far._streams


def test_limits_rise_when_asked_and_only_then() -> None:
    """Stock, both windows double as bytes arrive."""
    wire = connected()
    stream = wire.near.open_stream(Priority.TOKENS)

    wire.near.write(stream, b"a" * 200_000)
    wire.carry(60)
    held = wire.far.arrived_bytes(stream)
    wire.far.allow_stream_bytes(stream, 100_000)
    wire.far.allow_connection_bytes(90_000)
    wire.carry(60)
    then = wire.far.arrived_bytes(stream)
    wire.far.allow_connection_bytes(300_000)
    wire.far.allow_stream_bytes(stream, 300_000)
    wire.carry(60)

    assert (held, then, wire.far.arrived_bytes(stream)) == (64_000, 90_000, 200_000)
    assert wire.near.unsent_bytes(stream) == 0


def test_stock_library_still_widens_windows_by_itself() -> None:
    """The day that it does not, the bend in this module can go."""
    wire = Wire(dialler=QuicConnection)
    wire.carry()
    wire.near._local_max_streams_bidi.value = wire.near._local_max_streams_bidi.sent = 10
    wire.far._remote_max_streams_bidi = 10
    stream = wire.far.open_stream(Priority.TOKENS)

    wire.far.write(stream, b"a" * 200_000)
    wire.carry(60)

    assert wire.near._streams[stream].receiver.highest_offset == 200_000


def test_control_goes_before_everything_that_waits() -> None:
    """The library serves streams round robin: a ping would wait for fifty streams of tokens."""
    wire = connected()
    tokens = [wire.near.open_stream(Priority.TOKENS) for _ in range(5)]
    control = wire.near.open_stream(Priority.CONTROL)
    for stream in tokens:
        wire.near.write(stream, b"a" * 5_000)

    wire.near.write(control, b"ping")
    wire.now_s += 0.1
    first, *_ = wire.near.datagrams_to_send(wire.now_s)
    wire.far.receive(first[0], DIALLER, wire.now_s)

    assert wire.far.arrived_bytes(control) == 4


def test_bulk_goes_after_tokens() -> None:
    """A flush begins with what people wait for."""
    wire = connected()
    bulk, tokens = wire.near.open_stream(Priority.BULK), wire.near.open_stream(Priority.TOKENS)
    wire.near.write(bulk, b"a" * 5_000)
    wire.near.write(tokens, b"token")

    wire.now_s += 0.1
    first, *_ = wire.near.datagrams_to_send(wire.now_s)
    wire.far.receive(first[0], DIALLER, wire.now_s)

    assert wire.far.arrived_bytes(tokens) == 5


def test_stream_ids_are_taken_at_once() -> None:
    """Asked for twice before a write, the library gives the same id twice."""
    wire = connected()

    assert wire.near.get_next_available_stream_id() == wire.near.get_next_available_stream_id()
    assert len({wire.near.open_stream(Priority.TOKENS) for _ in range(5)}) == 5


def test_writing_to_a_stream_that_the_peer_stopped_is_nothing() -> None:
    """The library resets it as the frame arrives, and raises at the next write, before anybody was told."""
    wire = connected()
    stream = wire.near.open_stream(Priority.TOKENS)
    wire.near.write(stream, b"x")
    wire.carry()

    wire.far.stop(stream, 7)
    wire.carry()
    wire.near.write(stream, b"late")

    assert wire.near.is_stopped(stream)
    assert wire.near.unsent_bytes(stream) == 0
    with pytest.raises(RuntimeError):
        wire.near.send_stream_data(stream, b"late")


def test_what_was_acknowledged_is_sent() -> None:
    """A connection may only be closed once everything has arrived: closing loses the rest."""
    wire = connected()
    stream = wire.near.open_stream(Priority.TOKENS)

    wire.near.write(stream, b"x", is_last=True)
    before = wire.near.is_sent(stream)
    wire.carry()

    assert (before, wire.near.is_sent(stream)) == (False, True)


def test_pacer_lets_a_burst_be_as_long_as_a_timer() -> None:
    """Stock, its bucket holds less than a loop's timers resolve: 40 instead of 64 MB/s."""
    wire = connected()
    pacer = wire.near._loss._pacer

    pacer.update_rate(congestion_window=10_000_000, smoothed_rtt=0.001)

    assert pacer.bucket_max == limits.QUIC_PACING_QUANTUM_S


def test_lost_probe_for_a_larger_size_is_no_congestion() -> None:
    """Stock, the loss of a lone datagram leaves a window of two: a fast path would start slow for being narrow."""
    wire = connected()
    cc = wire.near._loss._cc
    window, in_flight = cc.congestion_window, cc.bytes_in_flight

    [(large, _)] = wire.near.large_datagram(b"x" * 8_000, 8_952, wire.now_s)
    counted = cc.bytes_in_flight
    stream = wire.near.open_stream(Priority.TOKENS)
    for _ in range(20):
        wire.near.write(stream, b"a" * 100)
        wire.carry(1)

    assert 8_000 < len(large) <= 8_952
    assert counted == in_flight
    assert cc.congestion_window >= window
    assert wire.near._max_datagram_size == 1200


def test_size_of_datagrams_can_be_raised_on_a_living_connection() -> None:
    """The library has no search for it."""
    wire = connected()
    stream = wire.near.open_stream(Priority.TOKENS)

    wire.near.set_datagram_bytes(8_952)
    wire.near.write(stream, b"a" * 20_000)
    wire.now_s += 0.1
    sizes = [len(data) for data, _ in wire.near.datagrams_to_send(wire.now_s)]

    assert max(sizes) > 8_000


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x40" + bytes(30), b"\xc0" + bytes(1199), bytes(range(256)) * 6])
def test_garbage_is_no_connection_and_no_error(data: bytes) -> None:
    """Anybody can send a datagram."""
    wire = Wire()

    wire.far.receive(data, DIALLER, 1.0)

    assert not wire.far.is_begun
    assert wire.far.datagrams_to_send(1.0) == []
    assert wire.far.rtt_s == 0
    assert wire.far.least_rtt_s == inf


def test_mistake_of_the_library_ends_one_connection(monkeypatch) -> None:
    """A traceback in the socket's callback would cost the datagrams of every other peer."""
    wire = connected()
    monkeypatch.setattr(wire.far, "receive_datagram", lambda *_: dict[int, int]().pop(7))

    wire.far.receive(b"x", DIALLER, wire.now_s)

    assert wire.far.ending is not None
    assert wire.far.ending.reason_phrase == "KeyError"
    assert wire.far.ending.frame_type is not None
