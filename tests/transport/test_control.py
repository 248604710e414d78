"""Control streams: what is read, how fast, what is refused, and what is signed only once."""

import asyncio

import pytest

from meshllm.core import events as ev
from meshllm.core import limits
from meshllm.core.announcement import Record
from meshllm.core.messages import ErrorReport, Leaving, Ping, Push, Revocations
from meshllm.transport import certificates
from meshllm.transport import control as module
from meshllm.transport.control import MessageCodec
from meshllm.wire.errors import WireError
from meshllm.wire.frames import FrameReader, frame
from meshllm.wire.packing import pack
from tests.transport.builders import NOW_UNIX_S, Mesh
from tests.transport.house import House, two
from tests.transport.net import until

ON_BOTH_LOOPS = True


def say(near: House, far: House, data: bytes) -> None:
    """Write raw bytes on the control stream."""
    near.peers._links[far.node.id][0]._stream.write(data)


def codec(mesh: Mesh, node=None) -> MessageCodec:
    """Return the codec of a member."""
    return MessageCodec((node or mesh.member()).credentials(), lambda: NOW_UNIX_S)


# -- the codec ---------------------------------------------------------------------------------------------


def test_own_record_is_signed_once_for_all_peers(monkeypatch) -> None:
    """A push to a hundred peers is one signature and one encoding."""
    mesh = Mesh()
    member = mesh.member()
    signed: list[object] = []

    def counting(*words):
        signed.append(words)
        return certificates.seal(*words)

    monkeypatch.setattr(module, "seal", counting)
    mine = codec(mesh, member)
    record = Record(announcement=member.says())

    frames = [mine.encode(message) for message in [Push(records=(record,))] * 3 + [Push(records=(record,))]]
    mine.encode(Push(records=(Record(announcement=member.says(version=9)),)))

    assert len(set(frames)) == 1
    assert len(signed) == 2


def test_nothing_is_taken_from_an_expelled_node() -> None:
    """Whoever carries its words."""
    mesh = Mesh()
    member = mesh.member()
    [payload] = FrameReader().feed(codec(mesh, member).encode(Push(records=(Record(announcement=member.says()),))))
    refused: list[WireError] = []
    reading = MessageCodec(mesh.member().credentials(), lambda: NOW_UNIX_S, revoked=lambda: {member.id})

    message = reading.decode(payload, refused.append)

    assert message == Push(records=())
    assert len(refused) == 1


def test_node_without_a_certificate_cannot_speak_of_itself() -> None:
    """It has not joined yet."""
    mesh = Mesh()
    stranger = mesh.stranger()
    reason = Leaving(record=Record(announcement=stranger.says()), reason="bye")

    with pytest.raises(WireError, match="certificate"):
        codec(mesh, stranger).encode(reason)


def test_revocations_are_opened_with_their_signatures() -> None:
    """An expelled node is one of which an admin said so."""
    mesh = Mesh()
    admin = mesh.member()
    data = certificates.revoke(admin.issuer, mesh.member().id, "lost", NOW_UNIX_S)
    entry = certificates.open_revocation(data, mesh.id)
    [payload] = FrameReader().feed(codec(mesh, admin).encode(Revocations(entries=(entry,))))
    refused: list[WireError] = []

    good = codec(mesh).decode(payload, refused.append)
    bad = codec(Mesh()).decode(payload, refused.append)

    assert good == Revocations(entries=(entry,))
    assert (bad, len(refused)) == (Revocations(entries=()), 1)


# -- the stream --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((limits.CONTROL_FRAME_BYTES + 1).to_bytes(4, "big"), "frame_too_large"),
        ((2**32 - 1).to_bytes(4, "big"), "frame_too_large"),
    ],
)
async def test_frame_that_is_too_large_ends_the_connection(words: bytes, code: str) -> None:
    """Before any of it is held."""
    async with two() as (near, far):
        say(near, far, words)
        await until(lambda: near.of(ev.PeerLost) and far.of(ev.PeerLost), "the end")

        assert near.of(ev.PeerLost)[0].code == far.of(ev.PeerLost)[0].code == code


async def test_frames_of_any_allowed_size_are_read() -> None:
    """Empty ones are skipped, the largest one is not too large."""
    async with two() as (near, far):
        padded = {"k": "ping", "seq": 1, "later": [b"x" * 60_000] * 4}
        payload = pack(padded)
        assert limits.CONTROL_FRAME_BYTES * 0.9 < len(payload) <= limits.CONTROL_FRAME_BYTES

        say(near, far, frame(b"") + frame(payload) + frame(pack({"k": "ping", "seq": 2})))
        await until(lambda: len(far.said) == 2, "both messages")

        assert far.said == [Ping(seq=1), Ping(seq=2)]


@pytest.mark.parametrize("begins", [b"", b"\x00\x00\x01\x00half"])
async def test_end_of_the_stream_is_the_end_of_the_connection(begins: bytes) -> None:
    """A member that says no more is none; cut within a frame it is told so."""
    async with two() as (near, far):
        say(near, far, begins)

        near.peers._links[far.node.id][0]._stream.write_eof()
        await until(lambda: far.of(ev.PeerLost), "the end")

        assert far.of(ev.PeerLost)[0].code == ("truncated" if begins else "protocol")


async def test_frame_that_does_not_end_is_not_waited_for(monkeypatch) -> None:
    """Fewer bytes than announced, then silence."""
    monkeypatch.setattr(limits, "CONTROL_FRAME_TIMEOUT_S", 0.0)
    async with two() as (near, far):
        link = far.peers._links[near.node.id][0]
        link.check(1e12)
        say(near, far, b"\x00\x00\x01\x00half")
        await until(lambda: link._control._begun_s is not None, "half a frame")

        link.check(1e12)

        assert far.of(ev.PeerLost)[0].code == "truncated"


async def test_some_unreadable_messages_are_forgiven() -> None:
    """And the next good one is served."""
    async with two() as (near, far):
        say(near, far, frame(b"\xc1") * (limits.UNREADABLE_MESSAGES - 1) + frame(pack({"k": "ping", "seq": 1})))
        await until(lambda: far.said, "the good one")

        assert far.of(ev.PeerLost) == []


async def test_many_unreadable_messages_send_a_peer_away() -> None:
    """Twenty in a minute; after that it stays away for a while."""
    async with two() as (near, far):
        say(near, far, frame(b"\xc1") * (limits.UNREADABLE_MESSAGES + 1) + frame(pack({"k": "ping", "seq": 1})))
        await until(lambda: near.of(ev.PeerLost), "the end")

        failed = await near.refusal(far)

        assert far.of(ev.PeerLost)[0].code == near.of(ev.PeerLost)[0].code == "abuse"
        assert far.said == []
        assert failed.code == "rejected"


async def test_newer_peers_are_no_abusers() -> None:
    """Unknown kinds are ignored, or answered when they matter; however many."""
    async with two() as (near, far):
        say(near, far, frame(pack({"k": "news"})) * 100 + frame(pack({"k": "vital", "critical": 1})))
        await until(lambda: near.said, "the answer")

        [answer] = near.said
        assert isinstance(answer, ErrorReport)
        assert answer.code == "unsupported"
        assert far.of(ev.PeerLost) == []


async def test_flood_is_read_slowly_and_completely(monkeypatch) -> None:
    """Ten thousand messages a second hold up their sender; other peers are heard meanwhile."""
    monkeypatch.setattr(limits, "CONTROL_FRAMES_PER_S", 100.0)
    monkeypatch.setattr(limits, "CONTROL_FRAMES_BURST", 50.0)
    async with two() as (near, far):
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        say(near, far, frame(pack({"k": "ping", "seq": 1})) * 150)
        await until(lambda: len(far.said) >= 50, "the burst")
        far.peers.send(near.node.id, Ping(seq=9))
        await until(lambda: near.said, "the other direction")
        in_between = len(far.said)
        await until(lambda: len(far.said) == 150, "all of them")

        assert in_between < 150
        assert loop.time() - began_s >= 0.8


async def test_peer_that_reads_nothing_costs_a_bounded_amount(monkeypatch) -> None:
    """What it does not read is dropped, not kept."""
    async with two() as (near, far):
        link = far.peers._links[near.node.id][0]
        far.peers._links[near.node.id][0]._stream.pause_reading()
        link._stream.pause_reading()
        own = near.peers._links[far.node.id][0]
        monkeypatch.setattr(limits, "CONTROL_UNSENT_BYTES", 10_000)
        padded = ErrorReport(code="x", message="y" * 190)

        for _ in range(10_000):
            own.send(padded)

        assert own._stream.get_write_buffer_size() < 11_000


async def test_message_that_cannot_be_said_is_dropped_with_a_line(caplog) -> None:
    """A mistake of this node in one message does not cost the connection."""
    async with two() as (near, far):
        near.peers.credentials = near.node.mesh.stranger().credentials()

        near.peers.send(far.node.id, Push(records=(Record(announcement=near.node.says()),)))
        near.peers.send(far.node.id, Ping(seq=1))
        await until(lambda: far.said, "the next message")

        assert far.said == [Ping(seq=1)]
        assert "could not be sent kind=Push" in caplog.text
