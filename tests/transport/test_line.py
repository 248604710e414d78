"""Streams on a line over real TLS: one after another, back-pressure both ways, and every way to end."""

import asyncio
import struct

import pytest

from meshllm.core import line_limits as limits
from meshllm.transport.line import LineStream
from meshllm.transport.stream import StreamLost
from tests.transport.lines import Ways, ways
from tests.transport.net import Counter, Taker, ended, until

ON_BOTH_LOOPS = True
MIB = 1 << 20


async def an_exchange(both: Ways, question: bytes = b"one ") -> None:
    """Ask and answer, in order."""
    stream, taker, far, far_taker = await both.opened(question)
    stream.write(b"two")
    stream.write_eof()
    await until(lambda: far_taker.has_end, "the end of the question")
    far.write(b"answer")
    far.write_eof()
    await ended(taker, far_taker)
    assert (bytes(far_taker.data), bytes(taker.data)) == (question + b"two", b"answer")
    assert (taker.lost, far_taker.lost) == ([None], [None])


async def test_a_line_carries_one_stream_after_another() -> None:
    """Nothing is dialled for the second one."""
    async with ways() as both:
        for question in (b"one ", b"again ", b"and ", b"so ", b"on "):
            await an_exchange(both, question)

        assert both.dials <= 3  # one is kept ahead
        assert len(both.begun) == 5


async def test_parts_of_any_size_arrive_whole() -> None:
    """Smaller than a length, larger than a record."""
    async with ways() as both:
        stream, taker, far, far_taker = await both.opened()
        sizes = (1, 3, 4, 16_384, limits.LINE_RECORD_BYTES, limits.LINE_RECORD_BYTES + 1, MIB)
        data = b"".join(bytes([n]) * size for n, size in enumerate(sizes))

        for n, size in enumerate(sizes):
            far.write(bytes([n]) * size)
        far.write_eof()
        stream.write_eof()
        await ended(taker, far_taker)

        assert taker.data == data


async def test_a_reader_that_pauses_holds_its_writer_back_and_nobody_else() -> None:
    """The kernel's buffers fill, then the writer is told; another stream goes on."""
    async with ways(Counter) as both:
        stream, taker, far, _ = await opened(both)
        stream.pause_reading()
        written = 0

        def writes() -> bool:
            nonlocal written
            if not both.begun[0][1].is_held_back:
                far.write(bytes(limits.LINE_RECORD_BYTES))
                written += limits.LINE_RECORD_BYTES
            return both.begun[0][1].is_held_back

        await until(writes, "the writer to be held back")
        await an_echo(both)
        assert far.get_write_buffer_size() < MIB
        assert not stream.is_reading()

        stream.resume_reading()
        await until(lambda: not both.begun[0][1].is_held_back, "room")
        await until(lambda: taker.taken_bytes == written, "everything that was written")


async def opened(both: Ways) -> tuple[LineStream, Taker, LineStream, Taker]:
    """Return both ends of a new stream whose far end only counts."""
    stream, taker = await both.stream()
    stream.write(b"x")
    await until(lambda: both.begun and both.begun[-1][1].taken_bytes == 1, "the stream at the far end")
    return stream, taker, *both.begun[-1]


async def an_echo(both: Ways) -> None:
    """Have a whole exchange on another line."""
    known = len(both.begun)
    stream, taker = await both.stream()
    stream.write(b"question")
    stream.write_eof()
    await until(lambda: len(both.begun) > known and both.begun[-1][1].has_end, "the question")
    both.begun[-1][0].write(b"answer")
    both.begun[-1][0].write_eof()
    await ended(taker)
    assert taker.data == b"answer"


async def test_an_abort_is_told_at_once_and_takes_the_line_with_it() -> None:
    """A request that is cancelled frees its place at the far end."""
    async with ways() as both:
        stream, taker, _, far_taker = await both.opened()

        stream.abort()
        await ended(taker, far_taker)

        assert taker.lost == [None]
        assert isinstance(far_taker.lost[0], StreamLost)
        assert not stream._line.is_open


async def test_what_comes_after_a_close_is_thrown_away_and_the_line_goes_on() -> None:
    """Whoever has the answer does not wait for its last word."""
    async with ways() as both:
        stream, taker, far, far_taker = await both.opened()
        stream.close()
        await ended(taker)

        far.write(b"too late")
        far.write_eof()
        await ended(far_taker)
        await an_exchange(both)

        assert taker.data == b""
        assert far_taker.lost == [None]


async def test_a_line_whose_peer_does_not_end_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment: a free line may not begin with the last one's words."""
    monkeypatch.setattr(limits, "LINE_REST_S", 0.05)
    async with ways() as both:
        stream, taker, _, far_taker = await both.opened()

        stream.close()
        await ended(taker, far_taker)

        assert isinstance(far_taker.lost[0], StreamLost)


async def test_a_line_that_rests_for_long_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs both sides memory."""
    monkeypatch.setattr(limits, "LINE_IDLE_S", 0.3)
    async with ways() as both:
        await an_exchange(both)

        await until(lambda: not both.near.counts(), "the line to be gone")


async def test_streams_are_told_that_the_connection_broke() -> None:
    """A process that ends takes its lines with it: that is heard at once."""
    async with ways() as both:
        stream, taker, _, far_taker = await both.opened()
        await both.far.close()

        await ended(taker, far_taker)

    assert (taker.lost[0].code, far_taker.lost[0].code) == ("lost", "leaving")
    assert stream.is_closing()


@pytest.mark.parametrize("words", [b"", b"hello"])
async def test_a_peer_that_speaks_out_of_turn_is_cut_off(words: bytes) -> None:
    """Only whoever dialled begins streams."""
    async with ways() as both:
        stream, taker, far, far_taker = await both.opened()
        line = far._line
        for one in (stream, far):
            one.write_eof()
        await ended(taker, far_taker)

        (line.send(words) if words else line.send_end())

        await until(lambda: not line.is_open, "the line to be gone")


async def test_a_record_that_is_too_long_is_not_waited_for() -> None:
    """Four bytes could ask for four gigabytes of memory."""
    async with ways() as both:
        _, taker, far, far_taker = await both.opened()

        far._line._unsent.append(struct.pack(">I", limits.LINE_RECORD_BYTES + 1))
        far._line._flush()
        await ended(taker, far_taker)

        assert taker.lost[0].code == "malformed"


async def test_bytes_that_are_no_tls_end_the_line() -> None:
    """Whoever can write into the way can break it, and no more."""
    async with ways() as both:
        _, taker, far, far_taker = await both.opened()

        assert far._line._transport is not None
        far._line._transport.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
        await ended(taker, far_taker)

        assert taker.lost[0].code == "malformed"


async def test_a_protocol_that_wants_no_half_open_stream_ends_it() -> None:
    """As everywhere in asyncio."""
    async with ways(lambda: Taker(keeps_half_open=False)) as both:
        stream, taker, _, far_taker = await both.opened()

        stream.write_eof()
        await ended(taker, far_taker)

        assert (taker.lost, far_taker.lost) == ([None], [None])
        assert asyncio.get_running_loop().is_running()
