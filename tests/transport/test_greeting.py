"""The handshake's bytes on a stream; whole handshakes are tried in test_door.py."""

import asyncio

import pytest

from meshllm.core.credentials import Claim
from meshllm.core.limits import HANDSHAKE_BYTES
from meshllm.transport.codes import StreamKind
from meshllm.transport.greeting import AcceptorGreeting, DiallerGreeting
from meshllm.transport.handshake import HandshakeError, Welcomed
from meshllm.wire.frames import frame
from tests.transport.builders import Mesh, acceptor, dialler

ON_BOTH_LOOPS = True


class Ends:
    """A stream by hand: what one side writes the test gives to the other."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_paused = False

    def set_protocol(self, protocol):
        """Forget it."""

    def write(self, data):
        """Keep what is written."""
        self.written += data

    def pause_reading(self):
        """Keep that nothing more is wanted."""
        self.is_paused = True

    def taken(self) -> bytes:
        """Return what was written since, and forget it."""
        data, self.written = bytes(self.written), bytearray()
        return data


class Both:
    """Two greetings, face to face."""

    def __init__(self) -> None:
        mesh = Mesh()
        near, far = mesh.member(), mesh.member()
        self.near_end, self.far_end = Ends(), Ends()
        self.claims: list[Claim] = []
        self.failures: list[HandshakeError] = []
        self.near = DiallerGreeting(self.near_end, dialler(near, far))
        self.far = AcceptorGreeting(
            self.far_end, acceptor(far),
            lambda greeting, claim: self.claims.append(claim), lambda greeting, error: self.failures.append(error),
        )  # fmt: skip
        self.first = self.near_end.taken()

    def to_the_claim(self) -> None:
        """Go on until the acceptor knows who it is."""
        self.far.data_received(self.first[1:])
        self.near.data_received(self.far_end.taken())
        self.far.data_received(self.near_end.taken())


async def test_whole_handshake_byte_by_byte() -> None:
    """However the network cuts it."""
    both = Both()
    assert both.first[0] == StreamKind.CONTROL

    for byte in both.first[1:]:
        both.far.data_received(bytes([byte]))
    for byte in both.far_end.taken():
        both.near.data_received(bytes([byte]))
    for byte in both.near_end.taken():
        both.far.data_received(bytes([byte]))
    both.near.data_received(frame(both.far.handshake.welcome()))

    assert len(both.claims) == 1
    assert isinstance(await both.near.welcomed, Welcomed)
    assert both.near_end.is_paused
    assert both.far_end.is_paused


async def test_what_comes_behind_the_welcome_is_kept() -> None:
    """It belongs to the control stream."""
    both = Both()
    both.to_the_claim()

    both.near.data_received(frame(both.far.handshake.welcome()) + frame(b"one") + frame(b"two") + frame(b"three")[:5])

    assert both.near.behind == [b"one", b"two"]
    assert both.near.reader.held_bytes == 5


async def test_too_many_words_before_the_verdict_are_a_failure() -> None:
    """16 KiB for all of it, in however many frames."""
    both = Both()

    both.far.data_received(frame(b"") * (HANDSHAKE_BYTES // 4))
    both.far.data_received(b"x")
    both.far.data_received(b"x")

    assert [error.reason for error in both.failures] == ["too_long"]
    assert both.claims == []


async def test_too_many_words_after_the_claim_change_nothing() -> None:
    """The verdict is on its way; the stream is paused and its bytes are held by credit."""
    both = Both()
    both.to_the_claim()

    both.far.data_received(b"x" * HANDSHAKE_BYTES)
    both.far.eof_received()

    assert both.failures == []
    assert len(both.claims) == 1


@pytest.mark.parametrize("ends_by", ["end", "loss", "garbage"])
async def test_dialler_learns_of_every_end(ends_by: str) -> None:
    """Nobody waits for a WELCOME that cannot come."""
    both = Both()

    if ends_by == "end":
        both.near.eof_received()
    elif ends_by == "loss":
        both.near.connection_lost(None)
    else:
        both.near.data_received(b"\xff\xff\xff\xff")
    both.near.connection_lost(ConnectionResetError("later"))

    with pytest.raises(Exception, match="ended" if ends_by != "garbage" else "frame"):
        await both.near.welcomed


async def test_dialler_that_gave_up_is_left_alone() -> None:
    """Its future was cancelled with its time."""
    both = Both()
    both.to_the_claim()
    both.near.welcomed.cancel()

    both.near.data_received(frame(both.far.handshake.welcome()))
    both.near.connection_lost(None)
    await asyncio.sleep(0)

    assert both.near.welcomed.cancelled()
