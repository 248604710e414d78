"""Connections over real sockets: admission, credit of the whole, ends and who is told, a path that changes."""

import asyncio
import functools
import socket
from time import monotonic

import pytest

from meshllm.core import limits
from meshllm.transport.codes import CloseCode, Priority, StreamCode
from meshllm.transport.connection import Closing, Connection
from meshllm.transport.path_size import SIZES
from meshllm.transport.stream import StreamLost
from meshllm.transport.udp import Datagram
from tests.transport.net import Counter, Relay, Taker, pair, until

ON_BOTH_LOOPS = True


async def test_close_is_told_to_both_sides_once_and_after_their_streams() -> None:
    """Whoever lost a stream finds the connection's end settled in the same turn."""
    order: list[str] = []

    class Told(asyncio.Protocol):
        def connection_lost(self, exc):
            order.append("stream")

    async with pair() as both:
        _, taker, far, _ = await both.opened()
        far.set_protocol(Told())
        both.far.connection.on_closed = lambda closing: order.append(f"connection {closing.code}")

        both.near.connection.close(CloseCode.REVOKED, "expelled")
        both.near.connection.close(CloseCode.LEAVING)
        await until(lambda: len(order) == 2 and both.near.closings, "both ends")

        assert order == ["stream", "connection revoked"]
        assert both.near.closings == [Closing("revoked", "expelled", is_ours=True)]
        assert taker.is_lost
        with pytest.raises(StreamLost, match="ended"):
            both.near.connection.open_stream(Priority.TOKENS)


async def test_close_waits_for_what_was_written_when_asked() -> None:
    """A rejection has to arrive: a plain close loses it."""
    async with pair() as both:
        stream, _, far, _ = await both.opened()
        _, taker, _, _far_taker = await both.opened()
        stream.close()

        far_stream, _ = both.far.streams[1]
        far_stream.write(b"a" * 200_000)
        far_stream.write_eof()
        far.write_eof()
        both.far.connection.close_when_sent(CloseCode.UNAUTHORIZED, "no", 5.0)
        await until(lambda: both.near.closings, "the close")

        assert len(taker.data) == 200_000
        assert both.near.closings[0].code == "unauthorized"


async def test_close_does_not_wait_for_ever() -> None:
    """A peer that reads nothing cannot keep a connection that was refused."""
    async with pair() as both:
        stream, _taker, far, _ = await both.opened()
        stream.pause_reading()
        far.write(b"a" * 1_000_000)

        both.far.connection.close_when_sent(CloseCode.UNAUTHORIZED, "no", 0.1)
        await until(lambda: both.near.closings, "the close")

        assert both.near.closings[0].code == "unauthorized"


async def test_stranger_cannot_send_more_than_a_handshake_needs() -> None:
    """What somebody unknown can make this node hold is bounded by credit, not by trust."""
    async with pair(is_admitted=False, make=Counter) as both:
        stream, _, far, far_taker = await both.opened()
        far.pause_reading()
        more, _ = both.near.open()
        more.write(b"a second stream")

        stream.write(b"a" * 1_000_000)
        bound = limits.QUIC_UNADMITTED_WINDOW_BYTES
        await until(lambda: both.far.connection.quic.arrived_bytes(far.id) == bound, "all of its credit")
        streams_before = len(both.far.streams)
        far.resume_reading()
        both.far.connection.admit()
        await until(lambda: far_taker.taken_bytes == 1_000_001, "the rest, once it is admitted")
        await until(lambda: len(both.far.streams) == 2, "the second stream")

        assert streams_before == 1


async def test_stream_that_nobody_takes_is_refused() -> None:
    """Before anybody listens, a stream is no error of the connection."""
    async with pair() as both:
        both.far.connection.on_stream = None

        stream, taker = both.near.open()
        stream.write(b"x")
        await until(lambda: taker.is_lost, "the refusal")

        assert taker.lost[0].code == "forbidden"
        assert not both.far.connection.is_closed


async def test_connection_without_words_is_kept_alive() -> None:
    """Quiet is not dead: pings hold a connection beyond its idle timeout."""
    async with pair(idle_timeout_s=1.5) as both:
        near = both.near.connection
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 2.5

        def later(than_s: float) -> bool:
            return near.heard_s > than_s

        while loop.time() < until_s:
            near.keep_alive(near.heard_s + 1.0, 0.1)
            heard_s = near.heard_s
            await until(functools.partial(later, heard_s), "an acknowledgement")

        assert not both.near.connection.is_closed
        assert not both.far.connection.is_closed


async def test_connection_to_nobody_times_out() -> None:
    """A machine without power says nothing."""
    relay = Relay()
    async with pair(through=relay, idle_timeout_s=0.3) as both:
        relay.passes = lambda data, is_forth: False

        await until(lambda: both.near.closings and both.far.closings, "both timeouts")

        assert both.near.closings[0].code == "timeout"
        assert both.far.closings[0].code == "timeout"


async def test_close_that_was_lost_is_said_again() -> None:
    """With a lost datagram a leave would otherwise be noticed by silence, twenty seconds later."""
    relay = Relay()
    async with pair(through=relay) as both:
        stream, _, _, _ = await both.opened()
        relay.passes = lambda data, is_forth: is_forth
        both.far.connection.close(CloseCode.LEAVING, "bye")

        relay.passes = lambda data, is_forth: True
        stream.write(b"are you there?")
        await until(lambda: both.near.closings, "the close")

        assert both.near.closings[0].code == "leaving"


async def test_dialler_may_move_to_another_port() -> None:
    """A router forgets its mapping while an answer streams: nothing is lost."""
    relay = Relay()
    async with pair(through=relay, make=Counter) as both:
        stream, _, _, far_taker = await both.opened()
        before = both.far.connection.remote
        stream.write(b"a" * 100_000)

        await relay.rebind()
        for _ in range(10):
            stream.write(b"a" * 100_000)
        await until(lambda: far_taker.taken_bytes == 1_100_001, "every byte")

        assert both.far.connection.remote.port != before.port
        assert not both.far.closings


def all_lost(takers: list[Taker]) -> bool:
    """Tell whether every stream is over."""
    return all(taker.is_lost for taker in takers)


async def test_thousand_streams_come_and_go() -> None:
    """Every ended stream is given back: to the peer's limit, and to memory."""
    async with pair(make=lambda: Taker(keeps_half_open=False)) as both:
        near, far = both.near.connection, both.far.connection

        for _ in range(20):
            takers = []
            for _ in range(50):
                stream, taker = both.near.open()
                stream.write(b"x")
                stream.write_eof()
                takers.append(taker)
            await until(functools.partial(all_lost, takers), "fifty ends")
        await until(lambda: near.streams + far.streams == 0, "no stream")
        near.keep_alive(near.heard_s + 1, 0)
        await until(lambda: len(far.quic._streams) < 60 and len(near.quic._streams) < 60, "the library's streams")

        assert len(both.far.streams) == 1000
        assert far._window.consumed_bytes == 1000


async def test_more_streams_than_are_allowed_wait_and_cost_nothing() -> None:
    """A peer that opens streams without end holds up itself."""
    async with pair(is_admitted=False) as both:
        both.far.connection.quic.allow_streams(9)
        both.near.connection.quic.allow_streams(9)
        both.far.connection.send_soon()
        streams = [both.near.open() for _ in range(1000)]

        for stream, _ in streams:
            stream.write(b"x")
        await until(lambda: len(both.far.streams) >= 9, "the first streams")
        taken = len(both.far.streams)
        for stream, _ in both.far.streams:
            stream.abort(StreamCode.BUSY)
        await until(lambda: len(both.far.streams) > taken, "the next ones")

        assert taken <= 10
        assert not both.far.connection.is_closed


async def test_reset_of_a_stream_that_was_never_seen_is_given_back() -> None:
    """A cancelled request may arrive as its cancellation alone."""
    async with pair() as both:
        near = both.near.connection

        for _ in range(30):
            stream, _ = both.near.open()
            stream.write(b"a" * 1_000)
            stream.abort()
        probe, _, _, _ = await both.opened()
        probe.abort()
        await until(lambda: near.streams == 0 and both.far.connection.streams == 0, "no stream")

        assert both.far.connection._window.consumed_bytes == both.far.connection.quic._local_max_data.used


async def test_peer_that_stops_what_it_never_sent_on_is_refused() -> None:
    """Answers to such a stream could not be written."""
    async with pair() as both:
        stream, taker = both.near.open()
        both.near.connection.quic.stop(stream.id, StreamCode.CANCELLED)
        await until(lambda: both.far.connection.quic.is_stopped(stream.id), "the request")

        stream.write(b"and now?")
        await until(lambda: taker.is_lost, "the refusal")

        assert both.far.streams == []


async def test_peer_that_breaks_quic_is_told_and_closed_at_once() -> None:
    """The library itself tells of such an end only later."""
    async with pair() as both:
        near = both.near.connection.quic
        near._remote_max_data = near._remote_max_stream_data_bidi_remote = 2**40
        stream, taker = both.near.open()
        both.far.make = Counter

        stream.write(b"x")
        await until(lambda: both.far.streams, "the stream")
        both.far.streams[0][0].pause_reading()
        near._streams[stream.id].max_stream_data_remote = 2**40
        stream.write(b"a" * 1_000_000)
        await until(lambda: both.far.closings and both.near.closings, "the end")

        assert both.far.closings[0].code == "transport"
        assert both.near.closings[0].code == "transport"
        assert taker.is_lost


async def test_round_trip_is_known_soon() -> None:
    """Routes prefer near hosts; unknown is zero, never a guess."""
    async with pair() as both:
        await both.opened()
        await until(lambda: both.near.connection.rtt_s > 0 and both.far.connection.rtt_s > 0, "a measurement")

        assert both.near.connection.rtt_s < 1
        assert both.near.connection.ready.done()
        assert socket.inet_aton(both.near.connection.remote.host)


async def test_datagrams_grow_to_what_the_path_carries() -> None:
    """Two nodes of one machine send a seventh of the datagrams, each of which costs the same."""
    async with pair() as both:
        near, far = both.near.connection, both.far.connection

        await until(lambda: near.datagram_bytes == far.datagram_bytes == SIZES[-1], "the largest size")
        _, _, _, taker = await both.opened(b"a" * 100_000)
        await until(lambda: len(taker.data) == 100_000, "every byte")

        assert near.quic._max_datagram_size == SIZES[-1]


async def test_datagrams_stay_as_small_as_the_path_is(monkeypatch) -> None:
    """A DSL line carries no jumbo frames, and a tunnel not even 1452."""
    monkeypatch.setattr(limits, "PATH_SIZE_INTERVAL_S", 0.02)
    for carries, expected in ((1300, limits.QUIC_DATAGRAM_BYTES), (1500, SIZES[0])):
        relay = Relay()
        relay.passes = functools.partial(is_short, carries)
        async with pair(through=relay) as both:
            near = both.near.connection
            await until(functools.partial(has_settled, near), "the end of the tries")
            _, _, _, taker = await both.opened(b"a" * 100_000)
            await until(functools.partial(has_all, taker, 100_000), "every byte")

            assert near.datagram_bytes == expected
            assert sum(len(data) > carries for data, _ in relay.seen) <= 4 * limits.PATH_SIZE_TRIES


async def test_path_that_becomes_narrower_is_noticed() -> None:
    """A laptop moves to a network with a tunnel in it: what was too large is sent again, smaller."""
    relay = Relay()
    async with pair(through=relay) as both:
        near = both.near.connection
        await until(lambda: near.datagram_bytes == SIZES[-1], "the largest size")
        relay.passes = functools.partial(is_short, 1300)

        _, _, _, taker = await both.opened(b"a" * 100_000)
        await until(lambda: len(taker.data) == 100_000, "every byte")

        assert near.datagram_bytes == limits.QUIC_DATAGRAM_BYTES


def is_short(limit: int, data: bytes, is_forth: bool) -> bool:
    """Pass what fits."""
    return len(data) <= limit


def has_settled(connection: Connection) -> bool:
    """Tell whether a connection tries no further sizes."""
    return connection._path_timer is None


def has_all(taker: Taker, count: int) -> bool:
    """Tell whether so many bytes came."""
    return len(taker.data) == count


async def test_a_timer_that_runs_early_does_what_is_due_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops round timers to milliseconds; by the clock alone it would run again and again until then."""
    async with pair() as both:
        connection = both.near.connection
        due_s, asked = monotonic() + 30.0, list[float]()

        def sends(now_s: float) -> list[Datagram]:
            asked.append(now_s)
            return []

        monkeypatch.setattr(connection.quic, "get_timer", lambda: due_s)
        monkeypatch.setattr(connection.quic, "handle_timer", asked.append)
        monkeypatch.setattr(connection.quic, "datagrams_to_send", sends)

        connection._timer_at = due_s
        connection._on_timer()
        monkeypatch.undo()

        assert asked == [due_s, due_s]


async def test_engines_and_clients_are_written_to_before_the_peer_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a datagram brought goes on at once; loops send what streams wrote once their turn is over."""
    async with pair() as both:
        connection, order = both.near.connection, list[str]()
        monkeypatch.setattr(connection, "_tell", lambda: order.append("told"))
        monkeypatch.setattr(connection, "flush", lambda: order.append("answered"))
        monkeypatch.setattr(connection, "_is_flush_due", False)

        connection.settle()
        told = tuple(order)
        await until(lambda: "answered" in order, "the answer")
        monkeypatch.undo()
        connection.flush()

        assert told == ("told",)
