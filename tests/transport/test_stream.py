"""Streams over real sockets: order, half-close, back-pressure both ways, and every way to end."""

import asyncio
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.transport.codes import CloseCode, StreamCode
from meshllm.transport.stream import StreamLost
from tests.transport.net import Counter, Taker, pair, until

ON_BOTH_LOOPS = True
MIB = limits.MIB


async def test_bytes_arrive_in_order_and_the_end_after_them() -> None:
    """The least that a stream has to do."""
    async with pair() as both:
        stream, taker, far, far_taker = await both.opened(b"one ")

        stream.write(b"two")
        stream.write_eof()
        far.write(b"answer")
        far.write_eof()
        await until(lambda: taker.is_lost and far_taker.is_lost, "the end of both directions")

        assert (bytes(far_taker.data), bytes(taker.data)) == (b"one two", b"answer")
        assert (taker.lost, far_taker.lost) == ([None], [None])
        assert (both.near.connection.streams, both.far.connection.streams) == (0, 0)


async def test_one_direction_may_end_long_before_the_other() -> None:
    """An HTTP request is over before its answer begins: closing early killed answers elsewhere."""
    async with pair() as both:
        stream, taker, far, far_taker = await both.opened(b"request")
        stream.write_eof()
        await until(lambda: far_taker.has_end, "the request's end")

        for _ in range(50):
            far.write(b"a" * 10_000)
            await until(lambda: not far_taker.is_held_back, "room")
        far.write_eof()
        await until(lambda: taker.is_lost, "the answer's end")

        assert len(taker.data) == 500_000
        assert taker.lost == [None]


async def test_protocol_that_wants_no_half_open_stream_ends_it() -> None:
    """As everywhere in asyncio: a false answer to `eof_received` ends the other direction."""
    async with pair(make=lambda: Taker(keeps_half_open=False)) as both:
        stream, taker, _, far_taker = await both.opened()

        stream.write_eof()
        await until(lambda: taker.is_lost and far_taker.is_lost, "the end")

        assert taker.lost == [None]


async def test_writer_waits_for_room_and_is_told_when_there_is_some() -> None:
    """The library takes any number of bytes at once: a fast engine would fill the memory."""
    async with pair() as both:
        stream, taker, far, far_taker = await both.opened()
        far.pause_reading()

        stream.write(b"a" * 2 * MIB)
        await until(lambda: taker.is_held_back, "a pause")
        far.resume_reading()
        await until(lambda: not taker.is_held_back, "room")
        await until(lambda: far_taker.taken_bytes == 2 * MIB + 1, "every byte")

        assert stream.get_write_buffer_size() == 0


async def test_reader_that_stops_stops_the_writer_within_a_window() -> None:
    """The library widens its windows as bytes arrive: 90 MB lay at a reader that did not read."""
    async with pair() as both:
        stream, taker, far, far_taker = await both.opened()
        far.pause_reading()
        window = limits.QUIC_STREAM_WINDOW_BYTES

        for _ in range(16):
            stream.write(b"a" * 65_536)
            await until(lambda: not both.near.connection._is_flush_due, "a flush")
        await until(lambda: both.far.connection.quic.arrived_bytes(far.id) == window, "a full window")
        held = sum(map(len, far._held))

        assert taker.is_held_back
        assert held == window - 1
        assert stream.get_write_buffer_size() == 16 * 65_536 + 1 - window
        far.resume_reading()
        await until(lambda: far_taker.taken_bytes == 16 * 65_536 + 1, "every byte")


async def test_one_paused_stream_of_fifty_holds_up_no_other() -> None:
    """A slow client costs its own stream."""
    async with pair(make=Counter) as both:
        ends = [await both.opened() for _ in range(50)]
        ends[0][2].pause_reading()

        ends[0][0].write(b"a" * 300_000)
        for stream, *_ in ends[1:]:
            stream.write(b"a" * 80_000)
            stream.write_eof()
        await until(lambda: all(end[3].has_end for end in ends[1:]), "49 streams")

        assert {end[3].taken_bytes for end in ends[1:]} == {80_001}
        assert ends[0][3].taken_bytes == 1
        assert sum(map(len, ends[0][2]._held)) <= limits.QUIC_STREAM_WINDOW_BYTES


async def test_abort_reaches_both_ends_with_its_code() -> None:
    """A client that hangs up frees the engine's slot."""
    async with pair() as both:
        stream, taker, _, far_taker = await both.opened()

        stream.abort(StreamCode.CANCELLED)
        await until(lambda: taker.is_lost and far_taker.is_lost, "the end")

        assert taker.lost == [None]
        [lost] = far_taker.lost
        assert isinstance(lost, StreamLost)
        assert lost.code == "cancelled"
        await until(lambda: both.far.connection.streams + both.near.connection.streams == 0, "no stream")


async def test_abort_after_the_request_was_sent_reaches_the_other_end() -> None:
    """With one's own direction ended there is nothing left to reset: the request not to send has to do it."""
    async with pair() as both:
        stream, _taker, far, far_taker = await both.opened()
        stream.write_eof()
        await until(lambda: far_taker.has_end and both.near.connection.quic.is_sent(stream.id), "an acknowledged end")

        stream.abort()
        await until(lambda: far_taker.is_lost, "the end")
        far.write(b"nobody reads this")

        assert isinstance(far_taker.lost[0], StreamLost)
        await until(lambda: both.far.connection.streams + both.near.connection.streams == 0, "no stream")


async def test_close_lets_written_bytes_arrive_and_reads_no_more() -> None:
    """A host that has answered does not read the rest of a request."""
    async with pair() as both:
        stream, taker, far, far_taker = await both.opened()

        far.write(b"answer")
        far.close()
        await until(lambda: taker.has_end, "the answer")
        stream.write(b"the rest")
        stream.write_eof()
        await until(lambda: taker.is_lost, "the end")

        assert bytes(taker.data) == b"answer"
        assert (taker.lost, far_taker.lost, bytes(far_taker.data)) == ([None], [None], b"x")
        await until(lambda: both.far.connection.streams + both.near.connection.streams == 0, "no stream")


async def test_writer_that_waits_goes_on_when_the_reader_has_enough() -> None:
    """A paused writer whose peer reads no more would wait for ever."""
    async with pair() as both:
        stream, taker, far, _ = await both.opened()
        far.pause_reading()
        stream.write(b"a" * 2 * MIB)
        await until(lambda: taker.is_held_back, "a pause")

        far.close()
        await until(lambda: not taker.is_held_back, "a resumed writer")

        assert not stream.is_closing() or taker.is_lost


async def test_end_of_the_connection_ends_every_stream() -> None:
    """Nobody waits for a peer that is gone."""
    async with pair() as both:
        ends = [await both.opened() for _ in range(5)]

        both.near.connection.close(CloseCode.LEAVING, "bye")
        await until(lambda: all(end[1].is_lost and end[3].is_lost for end in ends), "the end of every stream")

        assert {end[3].lost[0].code for end in ends} == {"leaving"}
        assert {end[1].lost[0].code for end in ends} == {"leaving"}


async def test_whole_answer_outlives_its_connection() -> None:
    """A host that answered and left has answered: what has arrived is handed out, however slow its reader."""
    async with pair() as both:
        stream, taker, far, _ = await both.opened()
        stream.write_eof()
        stream.pause_reading()
        far.write(b"a" * 100_000)
        far.write_eof()
        await until(lambda: sum(map(len, stream._held)) == 100_000 and stream._has_end, "the answer")

        both.far.connection.close(CloseCode.LEAVING)
        await until(lambda: both.near.closings, "the end of the connection")
        lost_before = taker.is_lost
        stream.resume_reading()
        await until(lambda: taker.is_lost, "the end of the stream")

        assert not lost_before
        assert len(taker.data) == 100_000
        assert taker.lost == [None]


async def test_reading_may_be_paused_from_within() -> None:
    """A relay pauses as it is handed bytes; what follows in the same turn has to wait."""

    class Sip(Taker):
        stream: Any = None

        def data_received(self, data):
            super().data_received(data)
            self.stream.pause_reading()

    async with pair(make=Sip) as both:
        stream, _ = both.near.open(Taker())
        sips: list[int] = []

        def take(opened):
            both.far.take(opened)
            opened.get_protocol().stream = opened

        both.far.connection.on_stream = take
        stream.write(b"a" * 50_000)
        stream.write_eof()
        await until(lambda: both.far.streams, "the stream")
        [(far, sip)] = both.far.streams
        while not sip.has_end:
            sips.append(sip.taken_bytes)
            far.resume_reading()
            await until(lambda: sip.taken_bytes > sips[-1] or sip.has_end, "a sip")

        assert sip.taken_bytes == 50_000
        assert len(sips) > 10


@pytest.mark.parametrize("ends_by", ["reset", "stop"])
async def test_credit_comes_back_for_bytes_that_nobody_reads(ends_by: str) -> None:
    """Thousands of cancelled answers must not leave a connection without credit."""
    async with pair(make=Counter) as both:
        near = both.near.connection
        for _ in range(10):
            stream, _, far, _ = await both.opened(b"a" * 200_000)
            far.pause_reading()
            (stream if ends_by == "reset" else far).abort()
            await until(lambda: near.streams == 0 and both.far.connection.streams == 0, "no stream")

        _, _, _, far_taker = await both.opened(b"b" * 300_000)
        await until(lambda: far_taker.taken_bytes == 300_000, "bytes on the next stream")

        window = both.far.connection._window
        assert window.consumed_bytes == both.far.connection.quic._local_max_data.used


async def test_writing_to_what_is_over_is_nothing() -> None:
    """A splice learns of an end one turn later; what it writes meanwhile must not raise."""
    async with pair() as both:
        stream, taker, far, far_taker = await both.opened()
        stream.abort()

        stream.write(b"late")
        stream.write_eof()
        stream.close()
        stream.abort()
        far.write(b"later")
        await until(lambda: taker.is_lost and far_taker.is_lost, "the end")
        far.write(b"last")

        assert stream.is_closing()
        assert far.is_closing()


async def test_stream_says_what_asyncio_asks() -> None:
    """Splices treat streams like sockets."""
    async with pair() as both:
        stream, taker, _, _ = await both.opened()

        assert isinstance(stream, asyncio.Transport)
        assert stream.can_write_eof()
        assert stream.is_reading()
        assert stream.get_protocol() is taker
        assert stream.get_write_buffer_limits() == (limits.QUIC_UNSENT_LOW_BYTES, limits.QUIC_UNSENT_HIGH_BYTES)
        assert stream.get_extra_info("connection") is both.near.connection
        stream.pause_reading()
        assert not stream.is_reading()
