"""One bulk connection: payloads and blocks, each with a deadline and a bound."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshllm.core.limits import BULK_FRAME_BYTES
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError, acceptor_context, dialler_context
from meshllm.transport.identity import Identity
from meshllm.wire.bulk_frames import Ready
from meshllm.wire.frames import frame

Serve = Callable[[BulkChannel], None]


def soon(within_s: float = 10.0) -> float:
    """Return a deadline."""
    return time.monotonic() + within_s


@contextmanager
def a_channel(serve: Serve) -> Iterator[BulkChannel]:
    """Return a dialled connection whose other end is served on a thread."""
    near, far = socket.socketpair()

    def run() -> None:
        channel = BulkChannel(far, acceptor_context(Identity.generate()), is_dialled=False)
        try:
            channel.shake_hands(soon())
            serve(channel)
        except BulkError:
            pass
        finally:
            channel.close()

    thread = threading.Thread(target=run)
    thread.start()
    channel = BulkChannel(near, dialler_context(), is_dialled=True)
    try:
        channel.shake_hands(soon())
        yield channel
    finally:
        channel.close()
        thread.join(10)


def saying(data: bytes) -> Serve:
    """Return what sends some bytes and goes."""
    return lambda channel: channel.send_block(memoryview(data), soon())


def test_blocks_and_payloads_arrive() -> None:
    """Larger ones than any record of TLS."""
    data = bytes(range(256)) * 12_000

    def serve(channel: BulkChannel) -> None:
        channel.say(Ready(), soon())
        channel.send_block(memoryview(data), soon())

    with a_channel(serve) as channel:
        said = channel.hear(soon())
        got = bytearray(len(data))
        channel.receive_into(memoryview(got), soon())

    assert said == Ready()
    assert bytes(got) == data


@pytest.mark.parametrize("sent", [frame(bytes(BULK_FRAME_BYTES + 1)), b"\0\0\0\0", b"\xff\xff\xff\xff"], ids=len)
def test_a_payload_of_no_good_size_ends_it(sent: bytes) -> None:
    """Before anything is held for it."""
    with (
        a_channel(lambda channel: channel.send_block(memoryview(sent), soon())) as channel,
        pytest.raises(BulkError) as refused,
    ):
        channel.receive(soon())

    assert refused.value.code is BulkCode.PROTOCOL


def test_what_nobody_says_ends_it() -> None:
    """A payload that is no step."""
    with a_channel(lambda channel: channel.send(b"nonsense", soon())) as channel, pytest.raises(BulkError) as refused:
        channel.hear(soon())

    assert refused.value.code is BulkCode.PROTOCOL


def test_silence_ends_at_the_deadline() -> None:
    """Nobody waits for ever."""
    done = threading.Event()
    with a_channel(lambda _: done.wait(10) and None) as channel:
        with pytest.raises(BulkError) as silent:
            channel.receive(soon(0.1))
        with pytest.raises(BulkError) as late:
            channel.receive(soon(-1.0))
        done.set()

    assert (silent.value.code, late.value.code) == (BulkCode.TIMEOUT, BulkCode.TIMEOUT)


def test_drops_do_not_put_the_deadline_off() -> None:
    """A byte now and then is as slow as none."""
    done = threading.Event()

    def drips(channel: BulkChannel) -> None:
        while not done.wait(0.02):
            channel.send_block(memoryview(b"x"), soon())

    with a_channel(drips) as channel:
        began_s = time.monotonic()
        with pytest.raises(BulkError) as slow:
            channel.receive_into(memoryview(bytearray(1000)), soon(0.3))
        done.set()

    assert slow.value.code is BulkCode.TIMEOUT
    assert time.monotonic() - began_s < 20.0


def test_an_end_too_early_is_a_loss() -> None:
    """Half a block is no block."""
    with (
        a_channel(lambda channel: channel.send_block(memoryview(b"half"), soon())) as channel,
        pytest.raises(BulkError) as lost,
    ):
        channel.receive_into(memoryview(bytearray(100)), soon())

    assert lost.value.code is BulkCode.LOST


def test_a_reader_that_reads_nothing_stops_the_sender_at_its_deadline() -> None:
    """Buffers fill up, then it is too slow."""
    done = threading.Event()
    with a_channel(lambda _: done.wait(10) and None) as channel:
        with pytest.raises(BulkError) as slow:
            channel.send_block(memoryview(bytes(64 * 1024 * 1024)), soon(0.3))
        done.set()

    assert slow.value.code is BulkCode.TIMEOUT


async def test_another_thread_can_end_it() -> None:
    """Whoever waits then stops waiting."""
    done = threading.Event()
    with a_channel(lambda _: done.wait(10) and None) as channel:
        waiting = asyncio.get_running_loop().run_in_executor(None, channel.receive, soon(30.0))
        began_s = time.monotonic()
        channel.abort()
        with pytest.raises(BulkError):
            await waiting
        done.set()

    assert time.monotonic() - began_s < 20.0


def test_a_socket_that_has_gone_is_a_loss() -> None:
    """The peer left between the dial and the first word."""
    near, far = socket.socketpair()
    far.close()
    channel = BulkChannel(near, dialler_context(), is_dialled=True)
    with pytest.raises(BulkError) as lost:
        channel.shake_hands(soon())
    channel.close()

    assert lost.value.code in {BulkCode.LOST, BulkCode.PROTOCOL}


def test_the_key_lies_in_no_file_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is in one for a moment, since the library reads it nowhere else."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    acceptor_context(Identity.generate())

    assert not list(tmp_path.iterdir())
