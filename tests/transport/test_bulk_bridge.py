"""A bridge: bytes go both ways in order, whatever the pace of either side, until one of them ends."""

import contextlib
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from meshllm.core.limits import BRIDGE_BUFFER_BYTES
from meshllm.transport.bulk_bridge import Bridged, BridgeEnd, BulkBridge
from meshllm.transport.bulk_channel import BulkChannel, BulkError, acceptor_context, dialler_context
from meshllm.transport.identity import Identity

WITHIN_S = 60.0
STEP_BYTES = 1000
"""What the far side reads at once, where it does not know how much will come; tests send multiples of it."""
STILL_S = 0.3
"""So long nothing was taken: the way is full."""
SOME = bytes(range(256)) * 40
MUCH = bytes(range(256)) * 16_000  # four megabytes: more than any buffer on the way holds


@dataclass
class Bridge:
    """A bridge on a thread of its own, with the far machine and the program on this one."""

    near: socket.socket
    far: BulkChannel
    bridge: BulkBridge
    results: list[Bridged] = field(default_factory=list)

    def result(self, thread: threading.Thread) -> Bridged:
        """Return how it went, once it is over."""
        thread.join(WITHIN_S)
        assert not thread.is_alive()
        return self.results[0]


@contextmanager
def a_bridge() -> Iterator[tuple[Bridge, threading.Thread]]:
    """Bridge two socket pairs, one of them with TLS."""
    ours, theirs = socket.socketpair()
    program, near = socket.socketpair()
    program.settimeout(WITHIN_S)
    far = BulkChannel(theirs, acceptor_context(Identity.generate()), is_dialled=False)
    greeting = threading.Thread(target=far.shake_hands, args=(time.monotonic() + WITHIN_S,))
    greeting.start()
    channel = BulkChannel(ours, dialler_context(), is_dialled=True)
    channel.shake_hands(time.monotonic() + WITHIN_S)
    greeting.join()
    made = Bridge(program, far, BulkBridge(channel, near))

    def run() -> None:
        made.results.append(made.bridge.run())
        near.close()
        channel.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield made, thread
    finally:
        program.close()
        far.close()
        thread.join(WITHIN_S)


def read(source: socket.socket, length: int) -> bytes:
    """Return so many bytes, fewer where the connection ends before."""
    got = bytearray()
    while len(got) < length and (more := source.recv(min(65536, length - len(got)))):
        got += more
    return bytes(got)


def read_far(source: BulkChannel, length: int) -> bytes:
    """Return so many bytes that come out of TLS, fewer where the connection ends before."""
    got = memoryview(bytearray(length))
    count = 0
    with contextlib.suppress(BulkError):
        while count < length:
            more = min(length - count, STEP_BYTES)
            source.receive_into(got[count : count + more], time.monotonic() + WITHIN_S)
            count += more
    return bytes(got[:count])


def say(sink: BulkChannel, data: bytes) -> None:
    """Send bytes by TLS."""
    sink.send_block(memoryview(data), time.monotonic() + WITHIN_S)


def filled(sink: socket.socket) -> int:
    """Send as much as there is room for on the way, and return how much that was."""
    sent = 0
    while select.select([], [sink], [], STILL_S)[1]:
        with contextlib.suppress(BlockingIOError):
            sent += sink.send(MUCH[:65536], socket.MSG_DONTWAIT)
    return sent


def test_bytes_go_both_ways() -> None:
    """In order, and counted."""
    with a_bridge() as (made, thread):
        made.near.sendall(SOME)
        there = read_far(made.far, len(SOME))
        say(made.far, SOME[::-1])
        back = read(made.near, len(SOME))
        made.near.close()
        went = made.result(thread)

    assert (there, back) == (SOME, SOME[::-1])
    assert (went.end, went.to_far_bytes, went.to_near_bytes) == (BridgeEnd.NEAR, len(SOME), len(SOME))


def test_much_goes_both_ways_at_the_same_time() -> None:
    """Neither direction waits for the other."""
    with a_bridge() as (made, _):
        sending = [
            threading.Thread(target=made.near.sendall, args=(MUCH,)),
            threading.Thread(target=say, args=(made.far, MUCH[::-1])),
        ]
        # TLS is for one thread at a time: the far side reads when it has said all.
        for thread in sending:
            thread.start()
        back = read(made.near, len(MUCH))
        sending[1].join(WITHIN_S)
        there = read_far(made.far, len(MUCH))
        sending[0].join(WITHIN_S)

    assert (there == MUCH, back == MUCH[::-1]) == (True, True)


def test_whoever_does_not_read_holds_the_other_up() -> None:
    """What is held on the way is bounded."""
    with a_bridge() as (made, _):
        sent = filled(made.near)
        taken = made.bridge.to_far_bytes
        made.far.abort()

    assert sent < 4 * BRIDGE_BUFFER_BYTES + 8 * 1024 * 1024
    assert taken <= sent


def test_threads_take_turns_more_often_while_there_is_a_bridge() -> None:
    """And as before when there is none."""
    usual_s = sys.getswitchinterval()
    with a_bridge() as (made, thread):
        made.near.sendall(b"x")
        read_far(made.far, 1)
        during_s = sys.getswitchinterval()
        made.near.close()
        made.result(thread)

    assert during_s < usual_s / 5
    assert sys.getswitchinterval() == usual_s


def test_the_last_bytes_of_a_side_arrive() -> None:
    """It may say something and go."""
    with a_bridge() as (made, thread):

        def say_and_go() -> None:
            made.near.sendall(MUCH[:1_000_000])
            made.near.shutdown(socket.SHUT_WR)

        saying = threading.Thread(target=say_and_go)
        saying.start()
        there = read_far(made.far, 2_000_000)
        saying.join(WITHIN_S)
        went = made.result(thread)

    assert there == MUCH[:1_000_000]
    assert went.end is BridgeEnd.NEAR


def test_the_end_of_the_far_side_is_told() -> None:
    """The program on this machine reads an end."""
    with a_bridge() as (made, thread):
        say(made.far, SOME)
        made.far.close()
        got = read(made.near, 2 * len(SOME))
        went = made.result(thread)

    assert (got, went.end) == (SOME, BridgeEnd.FAR)


def test_garbage_from_the_far_side_ends_it() -> None:
    """TLS lets nothing through that was changed on the way."""
    with a_bridge() as (made, thread):
        made.far.bare.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        went = made.result(thread)
        got = read(made.near, 1)

    assert (got, went.end) == (b"", BridgeEnd.FAR)
    assert went.message.startswith("TLS failed")


def test_it_can_be_ended_from_elsewhere() -> None:
    """While both sides are silent."""
    with a_bridge() as (made, thread):
        made.bridge.abort()
        made.result(thread)
        got = read(made.near, 1)

    assert got == b""


def test_a_side_that_is_gone_ends_it_while_the_other_does_not_read() -> None:
    """It does not turn in circles, and does not wait for whoever never comes."""
    with a_bridge() as (made, thread):
        filled(made.near)
        made.near.close()
        went = made.result(thread)

    assert went.end is BridgeEnd.NEAR
