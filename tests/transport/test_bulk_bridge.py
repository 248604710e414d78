"""A bridge: bytes go both ways in order, whatever the pace of either side, for one program after the other."""

import contextlib
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from meshllm.core.limits import BRIDGE_BUFFER_BYTES, BRIDGE_CHUNK_BYTES
from meshllm.transport.bulk_bridge import Bridged, BridgeEnd, BulkBridge
from meshllm.transport.bulk_channel import BulkChannel, BulkError, acceptor_context, dialler_context
from meshllm.transport.identity import Identity

WITHIN_S = 30.0
STILL_S = 0.3
"""So long nothing was taken: the way is full."""
SOME = bytes(range(256)) * 40
MUCH = bytes(range(256)) * 16_000  # four megabytes: more than any buffer on the way holds
END = struct.pack(">I", 0)


@dataclass
class Side:
    """A bridge on a thread of its own, and the other machine's end of its connection."""

    bridge: BulkBridge
    channel: BulkChannel
    far: BulkChannel
    listener: socket.socket | None = None
    programs: list[socket.socket] = field(default_factory=list)
    """Of a bridge that leads to programs: their ends, as they were opened."""
    results: list[Bridged] = field(default_factory=list)
    thread: threading.Thread = field(default_factory=threading.Thread)

    def connect(self) -> socket.socket:
        """Connect as a program does, to a bridge that listens."""
        assert self.listener is not None
        return socket.create_connection(self.listener.getsockname(), timeout=WITHIN_S)

    def run(self) -> None:
        """Run the bridge to its end."""
        self.results.append(self.bridge.run())
        self.channel.close()

    def result(self) -> Bridged:
        """Return how it went, once it is over."""
        self.thread.join(WITHIN_S)
        assert not self.thread.is_alive()
        return self.results[0]

    def say(self, *contents: bytes) -> None:
        """Say bytes for the program, as the other machine's bridge does; nothing where its program has ended."""
        for content in contents:
            self.far.send_block(memoryview(framed(content)), time.monotonic() + WITHIN_S)

    def hear(self) -> bytes:
        """Return what a frame holds that comes from the bridge; empty where its program has ended."""
        head, soon_s = bytearray(4), time.monotonic() + WITHIN_S
        self.far.receive_into(memoryview(head), soon_s)
        content = bytearray(struct.unpack(">I", head)[0])
        self.far.receive_into(memoryview(content), soon_s)
        return bytes(content)

    def hear_all(self) -> bytes:
        """Return what comes until a program has ended, or the connection."""
        got = b""
        with contextlib.suppress(BulkError):
            while more := self.hear():
                got += more
        return got


def framed(content: bytes) -> bytes:
    """Return bytes in frames that are as long as they may be; an end for none."""
    parts = [content[start : start + BRIDGE_CHUNK_BYTES] for start in range(0, len(content), BRIDGE_CHUNK_BYTES)]
    return b"".join(struct.pack(">I", len(part)) + part for part in parts) or END


@contextmanager
def a_connection() -> Iterator[tuple[BulkChannel, BulkChannel]]:
    """Return both ends of one that is encrypted."""
    ours, theirs = socket.socketpair()
    far = BulkChannel(theirs, acceptor_context(Identity.generate()), is_dialled=False)
    greeting = threading.Thread(target=far.shake_hands, args=(time.monotonic() + WITHIN_S,))
    greeting.start()
    channel = BulkChannel(ours, dialler_context(), is_dialled=True)
    channel.shake_hands(time.monotonic() + WITHIN_S)
    greeting.join()
    with contextlib.closing(channel), contextlib.closing(far):
        yield channel, far


@contextmanager
def running(side: Side) -> Iterator[Side]:
    """Run a bridge on a thread, until the other machine goes."""
    side.thread = threading.Thread(target=side.run)
    side.thread.start()
    try:
        yield side
    finally:
        side.far.abort()
        side.thread.join(WITHIN_S)


@contextmanager
def listening(*ends: BulkChannel) -> Iterator[Side]:
    """Run a bridge to which programs connect, at the first end of a connection: of a new one, if none is given."""
    with contextlib.ExitStack() as stack:
        channel, far = ends or stack.enter_context(a_connection())
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)

        def accepted() -> socket.socket | None:
            with contextlib.suppress(BlockingIOError):
                return listener.accept()[0]
            return None

        bridge = BulkBridge(channel, accepted, listener)
        yield stack.enter_context(running(Side(bridge, channel, far, listener)))


@contextmanager
def leading(*ends: BulkChannel, is_there: bool = True) -> Iterator[Side]:
    """Run a bridge that leads to programs, a new one whenever one is wanted, in the same way."""
    programs: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        channel, far = ends or stack.enter_context(a_connection())

        def connected() -> socket.socket | None:
            if not is_there:
                return None
            near, program = socket.socketpair()
            program.settimeout(WITHIN_S)
            programs.append(stack.enter_context(program))
            return near

        bridge = BulkBridge(channel, connected)
        yield stack.enter_context(running(Side(bridge, channel, far, programs=programs)))


@contextmanager
def joined() -> Iterator[tuple[Side, Side]]:
    """Run both, at the two ends of one connection."""
    with a_connection() as (one, other), listening(one, other) as listener, leading(other, one) as leader:
        yield listener, leader


def until_programs(side: Side, count: int) -> socket.socket:
    """Return the latest program that was opened, once there are so many."""
    until_s = time.monotonic() + WITHIN_S
    while len(side.programs) < count:
        assert time.monotonic() < until_s, f"{len(side.programs)} of {count} programs were opened"
        select.select([], [], [], 0.001)
    return side.programs[-1]


def read(source: socket.socket, length: int) -> bytes:
    """Return so many bytes, fewer where the connection ends before."""
    got = bytearray()
    while len(got) < length and (more := source.recv(min(65536, length - len(got)))):
        got += more
    return bytes(got)


def filled(sink: socket.socket) -> int:
    """Send as much as there is room for on the way, and return how much that was."""
    sent = 0
    while select.select([], [sink], [], STILL_S)[1]:
        with contextlib.suppress(BlockingIOError):
            sent += sink.send(MUCH[:65536], socket.MSG_DONTWAIT)
    return sent


# -- one program ----------------------------------------------------------------------------------------


def test_bytes_go_both_ways() -> None:
    """In order, and counted."""
    with listening() as side, side.connect() as program:
        program.sendall(SOME)
        there = side.hear()
        side.say(SOME[::-1])
        back = read(program, len(SOME))
        program.close()
        end = side.hear()
        side.far.abort()
        went = side.result()

    assert (there, back, end) == (SOME, SOME[::-1], b"")
    assert (went.to_far_bytes, went.to_near_bytes, went.connections) == (len(SOME), len(SOME), 1)


def test_frames_may_come_in_pieces() -> None:
    """A length of four bytes, too."""
    with leading() as side:
        for byte in framed(b"tensor"):
            side.far.send_block(memoryview(bytes([byte])), time.monotonic() + WITHIN_S)
        program = until_programs(side, 1)

        assert read(program, 6) == b"tensor"


def test_much_goes_both_ways_at_the_same_time() -> None:
    """Neither direction waits for the other."""
    with leading() as side:
        side.say(b"x")
        program = until_programs(side, 1)
        assert read(program, 1) == b"x"
        sending = threading.Thread(target=program.sendall, args=(MUCH[::-1],))
        saying = threading.Thread(target=side.say, args=(MUCH,))
        # TLS is for one thread at a time: the other machine reads when it has said all.
        for thread in (sending, saying):
            thread.start()
        there = read(program, len(MUCH))
        saying.join(WITHIN_S)
        back = b""
        while len(back) < len(MUCH):
            back += side.hear()
        sending.join(WITHIN_S)

    assert (there == MUCH, back == MUCH[::-1]) == (True, True)


def test_whoever_does_not_read_holds_the_other_up() -> None:
    """What is held on the way is bounded."""
    with listening() as side, side.connect() as program:
        sent = filled(program)
        taken = side.bridge.to_far_bytes

    assert sent < 4 * BRIDGE_BUFFER_BYTES + 16 * 1024 * 1024
    assert taken <= sent


def test_threads_take_turns_more_often_while_there_is_a_bridge() -> None:
    """And as before when there is none."""
    usual_s = sys.getswitchinterval()
    with listening() as side:
        with side.connect() as program:
            program.sendall(b"x")
            side.hear()
        during_s = sys.getswitchinterval()
        side.far.abort()
        side.result()

    assert during_s < usual_s / 5
    assert sys.getswitchinterval() == usual_s


# -- one after the other --------------------------------------------------------------------------------


def test_programs_follow_one_another_on_one_connection() -> None:
    """Each of them reaches one at the other side, which reads its end with it; answers are for the one that asked."""
    told = []
    with joined() as (listener, leader):
        for number in range(1, 4):
            with listener.connect() as asking:
                asking.sendall(SOME * number)
                asked = until_programs(leader, number)
                told.append(read(asked, len(SOME) * number) == SOME * number)
                asked.sendall(b"answer")
                told.append(read(asking, 6) == b"answer")
            told.append(asked.recv(1) == b"")
        counts = listener.bridge.connections, leader.bridge.connections

    assert told == [True] * 9
    assert counts == (3, 3)


def test_the_next_program_waits_for_nothing() -> None:
    """What it says follows the end of the one before it, without an answer between."""
    with listening() as side:
        with side.connect() as first:
            first.sendall(b"first")
            said = [side.hear()]
        with side.connect() as second:
            second.sendall(b"second")
            said += [side.hear(), side.hear()]

    assert said == [b"first", b"", b"second"]


def test_what_comes_late_is_for_nobody() -> None:
    """A program never reads the answer to the one before it."""
    with listening() as side:
        with side.connect() as first:
            first.sendall(b"first")
            assert side.hear() == b"first"
        assert side.hear() == b""
        with side.connect() as second:
            second.sendall(b"second")
            assert side.hear() == b"second"
            side.say(b"late", b"", b"answer")

            assert read(second, 6) == b"answer"
            second.close()
        assert side.hear() == b""


def test_the_end_of_a_program_is_answered_with_an_end() -> None:
    """So that the other side knows from where on bytes are for the next one; one that says nothing opens none."""
    with leading() as side:
        side.say(SOME, b"", b"", SOME)
        heard = side.hear(), side.hear()
        programs = until_programs(side, 2)

        assert read(programs, len(SOME)) == SOME
    assert heard == (b"", b"")


def test_the_last_bytes_of_a_program_arrive() -> None:
    """It may say something and go."""
    with listening() as side:

        def say_and_go() -> None:
            with side.connect() as program:
                program.sendall(MUCH[:1_000_000])

        saying = threading.Thread(target=say_and_go)
        saying.start()
        there = side.hear_all()
        saying.join(WITHIN_S)

    assert there == MUCH[:1_000_000]


def test_the_last_bytes_for_a_program_arrive() -> None:
    """Before the end that follows them, however slowly it reads."""
    with leading() as side:
        saying = threading.Thread(target=side.say, args=(MUCH[:1_000_000], b""))
        saying.start()
        program = until_programs(side, 1)
        there = read(program, 2_000_000)
        saying.join(WITHIN_S)
        end = side.hear()

    assert (there == MUCH[:1_000_000], end) == (True, b"")


# -- the end --------------------------------------------------------------------------------------------


def test_the_end_of_the_far_side_is_told() -> None:
    """The program on this machine reads an end, after what had come."""
    with listening() as side, side.connect() as program:
        program.sendall(b"x")
        side.hear()
        side.say(SOME)
        side.far.close()
        got = read(program, 2 * len(SOME))
        went = side.result()

    assert (got, went.end) == (SOME, BridgeEnd.FAR)


def test_the_end_of_the_program_that_is_led_to_ends_it() -> None:
    """Its last bytes are delivered; whoever wants more has to come again."""
    with leading() as side:
        side.say(b"x")
        program = until_programs(side, 1)
        program.sendall(SOME)
        program.close()
        there = side.hear_all()
        went = side.result()

    assert (there, went.end) == (SOME, BridgeEnd.NEAR)


def test_a_program_that_cannot_be_reached_ends_it() -> None:
    """The other side reads an end, instead of waiting for an answer."""
    with leading(is_there=False) as side:
        side.say(b"x")
        went = side.result()
        heard = side.hear_all()

    assert (went.end, went.message, heard) == (BridgeEnd.NEAR, "the program cannot be reached", b"")


def test_garbage_from_the_far_side_ends_it() -> None:
    """TLS lets nothing through that was changed on the way."""
    with listening() as side, side.connect() as program:
        program.sendall(b"x")
        side.hear()
        side.far.bare.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        went = side.result()
        got = read(program, 1)

    assert (got, went.end) == (b"", BridgeEnd.FAR)
    assert went.message.startswith("TLS failed")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (END, "the other side ends what nobody has ended here"),
        (framed(b"x"), "the other side answers nobody"),
        (struct.pack(">I", BRIDGE_CHUNK_BYTES + 1), f"the other side says {BRIDGE_CHUNK_BYTES + 1} bytes at once"),
    ],
    ids=["an end", "an answer", "too much"],
)
def test_what_has_no_place_ends_it(said: bytes, words: str) -> None:
    """The other side is not what it should be."""
    with listening() as side:
        side.far.send_block(memoryview(said), time.monotonic() + WITHIN_S)
        went = side.result()

    assert (went.end, went.message) == (BridgeEnd.FAR, words)


@pytest.mark.parametrize("is_in_use", [False, True], ids=["nobody has connected", "a program is silent"])
def test_it_can_be_ended_from_elsewhere(*, is_in_use: bool) -> None:
    """While all are silent."""
    with listening() as side, side.connect() as program:
        if is_in_use:
            program.sendall(b"x")
            side.hear()
        else:
            program.close()
            side.hear()
        side.bridge.abort()
        went = side.result()

    assert went.end is BridgeEnd.FAR


def test_a_program_that_is_gone_while_the_other_side_does_not_read_is_an_end() -> None:
    """It does not turn in circles, and does not wait for whoever never comes."""
    with listening() as side:
        with side.connect() as program:
            filled(program)
            program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # gone without a word
        there = side.hear_all()

    assert 0 < len(there) <= side.bridge.to_far_bytes


def test_whoever_takes_no_ends_is_told_no_more() -> None:
    """A side that only says how much ends cannot make the other hold answers without limit."""
    with leading() as side:
        side.far.bare.settimeout(STILL_S)
        ends, said = memoryview(END * 16_384), 0
        with contextlib.suppress(BulkError):
            while said < 1024:
                side.far.send_block(ends, time.monotonic() + STILL_S)
                said += 1

    assert said < 1024
