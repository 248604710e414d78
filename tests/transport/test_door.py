"""Strangers at the door: who comes in with what, and what every attack on the handshake leads to."""

import asyncio

import pytest

from meshllm.core import events as ev
from meshllm.core import limits
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE
from meshllm.transport.codes import Priority, StreamKind
from meshllm.transport.handshake import Credentials, DiallerHandshake, HandshakeError
from meshllm.transport.identity import Identity
from meshllm.wire.frames import FrameReader, frame
from tests.transport.builders import Mesh, terms
from tests.transport.house import House, houses
from tests.transport.net import WITHIN_S, Taker, endpoint, until

ON_BOTH_LOOPS = True
HELLO_TYPE = bytes([StreamKind.CONTROL])


class Stranger:
    """A dialler that speaks the handshake by hand, and may do it wrong."""

    def __init__(self, connection, credentials: Credentials, server: House) -> None:
        self.connection = connection
        self.handshake = DiallerHandshake(credentials, server.node.id, connection.peer_public, terms())
        self.taker = Taker()
        self.stream = connection.open_stream(Priority.CONTROL)
        self.stream.set_protocol(self.taker)
        self.closings: list[str] = []
        connection.on_closed = lambda closing: self.closings.append(closing.code)

    def payloads(self) -> list[bytes]:
        """Return what the server has said."""
        return FrameReader().feed(bytes(self.taker.data))

    async def hello(self) -> bytes:
        """Say HELLO and return AUTH, unsent."""
        self.stream.write(HELLO_TYPE + frame(self.handshake.start()))
        await until(self.payloads, "the challenge")
        answer = self.handshake.receive(self.payloads()[0])
        assert isinstance(answer, bytes)
        return answer

    async def rejection(self) -> HandshakeError:
        """Return why the server does not let it in."""
        await until(lambda: len(self.payloads()) > 1 or self.closings, "an answer")
        with pytest.raises(HandshakeError) as raised:
            self.handshake.receive(self.payloads()[-1])
        return raised.value


async def dialled(near, far: House, credentials: Credentials) -> Stranger:
    """Return a stranger at the door."""
    connection = await near.dial(far.endpoint.address, far.node.id, WITHIN_S)
    return Stranger(connection, credentials, far)


async def test_joining_with_a_token_brings_a_certificate() -> None:
    """From then on the token is not needed."""
    mesh = Mesh()
    founder, joiner = mesh.member(), mesh.stranger()
    async with houses(founder) as (far,):
        far.verdict = lambda asked: GUEST
        near = House(joiner)
        await near.open(token=founder.token())
        try:
            await near.reach(far)
            near.peers.disconnect(far.node.id, near.of(ev.PeerConnected)[0].connection, "done")
            await until(lambda: far.of(ev.PeerLost), "the end")
            far.verdict = lambda asked: asked.claim.certificate.rights if asked.claim.certificate else None
            await near.reach(far)
        finally:
            await near.close()

        [first, second] = far.of(ev.AdmissionAsked)
        assert first.claim.certificate is None
        assert first.claim.token_proof is not None
        assert second.claim.certificate is not None
        assert second.claim.certificate.rights == GUEST
        assert far.of(ev.PeerConnected)[1].rights == GUEST
        assert near.joined[0][0].certificate == near.peers.credentials.certificate
        assert near.peers.credentials.root_public == mesh.root.public


async def test_node_that_cannot_sign_lets_nobody_in_anew() -> None:
    """Only an admin issues certificates; the joiner learns that it is not let in."""
    mesh = Mesh()
    founder = mesh.member()
    async with houses(founder, is_issuer=False) as (far,):
        near = House(mesh.stranger())
        await near.open(token=founder.token())
        try:
            failed = await near.refusal(far)
        finally:
            await near.close()

        assert failed.code == "rejected"
        assert far.of(ev.PeerConnected) == []


async def test_not_a_member_learns_nothing_but_that() -> None:
    """One code for every reason; the exact one stays here."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member()) as (near, far):
        far.verdict = lambda asked: None

        failed = await near.refusal(far)

        assert failed.code == "rejected"
        assert far.of(ev.PeerConnected) == near.of(ev.PeerConnected) == []
        await until(lambda: not far.endpoint.connections, "no connection")
        assert far.peers._door.waiting == 0


async def test_stranger_without_anything_is_not_even_asked_for() -> None:
    """No certificate and no token: the core hears of a failure."""
    mesh = Mesh()
    async with houses(mesh.stranger(), mesh.member()) as (near, far):
        failed = await near.refusal(far)

        assert failed.code == "rejected"
        assert far.of(ev.AdmissionAsked) == []
        assert far.of(ev.HandshakeFailed)[0].reason == "no_credential"


async def test_silent_refusal_says_nothing_at_all() -> None:
    """Whoever fails too often gets no answer, not even a close."""
    mesh = Mesh()
    async with houses(mesh.stranger(), mesh.member(), dial_timeout_s=0.5) as (near, far):
        far.is_silent = True

        failed = await near.refusal(far)

        assert failed.code == "timeout"
        assert far.endpoint.connections == ()


async def test_other_mesh_is_told_apart() -> None:
    """Two meshes on one network."""
    mine, theirs = Mesh(), Mesh()
    async with houses(mine.member(), theirs.member()) as (near, far):
        failed = await near.refusal(far)

        assert failed.code == "rejected"
        assert "another mesh" in failed.message
        assert far.of(ev.HandshakeFailed)[0].code == "wrong_mesh"


async def test_other_key_than_the_claimed_one_is_refused() -> None:
    """The signature is over this handshake, by the key that the id is made of."""
    mesh = Mesh()
    victim, thief = mesh.member(), Identity.generate()
    async with houses(mesh.member()) as (far,), endpoint() as near:
        stolen = Credentials(identity=thief, mesh=mesh.id, root_public=mesh.root.public, certificate=victim.certificate)
        stranger = await dialled(near, far, stolen)
        stranger.stream.write(frame(await stranger.hello()))
        error = await stranger.rejection()
        await until(lambda: stranger.closings, "the close")

        assert error.code == "unauthorized"
        assert stranger.closings == ["unauthorized"]
        assert far.of(ev.PeerConnected) == []


async def test_words_of_another_handshake_are_worth_nothing() -> None:
    """AUTH that was overheard, or asked for by a node in between, does not open a second door."""
    mesh = Mesh()
    member = mesh.member()
    async with houses(mesh.member(), mesh.member()) as (first, second), endpoint() as near:
        said_to_first = await (await dialled(near, first, member.credentials())).hello()

        for far in (first, second):
            replaying = await dialled(near, far, member.credentials())
            await replaying.hello()
            replaying.stream.write(frame(said_to_first))
            error = await replaying.rejection()

            assert error.code == "unauthorized"
            assert far.of(ev.HandshakeFailed)[-1].reason == "bad_signature"
            assert far.of(ev.PeerConnected) == []


async def test_silence_ends_after_the_time_for_a_handshake() -> None:
    """Also in the middle of it."""
    mesh = Mesh()
    async with houses(mesh.member(), admission_timeout_s=0.3) as (far,), endpoint() as near:
        mute = await near.dial(far.endpoint.address, far.node.id, WITHIN_S)
        told: list[str] = []
        mute.on_closed = lambda closing: told.append(closing.code)
        halfway = await dialled(near, far, mesh.member().credentials())
        await halfway.hello()

        await until(lambda: told and halfway.closings, "both ends")

        assert (told, halfway.closings) == (["auth_timeout"], ["auth_timeout"])
        assert far.events == []


async def test_verdict_that_never_comes_ends_with_the_time() -> None:
    """And one that comes too late is for nobody."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member(), admission_timeout_s=0.3) as (near, far):
        tickets: list[int] = []
        far.post = lambda event: tickets.append(event.ticket)  # type: ignore[method-assign]
        object.__setattr__(far.peers._door._user, "post", far.post)

        failed = await near.refusal(far)
        far.peers.admit(tickets[0], OWN_MACHINE, issues=False)
        far.peers.refuse(tickets[0], "unauthorized", is_silent=False)

        assert failed.code == "timeout"
        assert not far.peers.is_connected(near.node.id)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (bytes([StreamKind.TUNNEL]) + b"x", "protocol"),
        (b"\x63", "protocol"),
        (HELLO_TYPE + frame(b"\xc1"), "protocol"),
        (HELLO_TYPE + frame(b"x" * 20_000), "protocol"),
        (HELLO_TYPE + (2**32 - 1).to_bytes(4, "big"), "protocol"),
        (HELLO_TYPE + frame(b"") * 4_200, "protocol"),
    ],
    ids=["tunnel", "unknown", "garbage", "too long", "far too long", "empty frames"],
)
async def test_nothing_but_a_handshake_is_taken(said: bytes, code: str) -> None:
    """Before WELCOME no other stream is served, and no more than a handshake needs is read."""
    mesh = Mesh()
    async with houses(mesh.member()) as (far,), endpoint() as near:
        stranger = await dialled(near, far, mesh.member().credentials())

        stranger.stream.write(said)
        await until(lambda: stranger.closings, "the close")

        assert stranger.closings == [code]
        assert far.of(ev.PeerConnected) == []
        assert len(said) < limits.QUIC_UNADMITTED_WINDOW_BYTES


async def test_handshake_that_ends_halfway_is_told_as_failed() -> None:
    """A FIN instead of AUTH."""
    mesh = Mesh()
    async with houses(mesh.member()) as (far,), endpoint() as near:
        stranger = await dialled(near, far, mesh.member().credentials())
        await stranger.hello()

        stranger.stream.write_eof()
        await until(lambda: stranger.closings, "the close")

        assert far.of(ev.HandshakeFailed)[0].reason == "truncated"


async def test_words_before_the_verdict_wait_for_it() -> None:
    """A peer that says something before it is let in has broken no rule; it is read afterwards."""
    mesh = Mesh()
    async with houses(mesh.member()) as (far,), endpoint() as near:
        far.verdict = lambda asked: CLIENT_ONLY
        stranger = await dialled(near, far, mesh.member().credentials())
        auth = await stranger.hello()

        stranger.stream.write(frame(auth) + frame(b"\x82\xa1k\xa4ping\xa3seq\x07"))
        await until(lambda: far.said, "the message")

        assert far.said[0].seq == 7
        assert far.of(ev.PeerConnected)[0].rights == CLIENT_ONLY
        await asyncio.sleep(0)


async def test_peer_that_was_sent_away_stays_away_for_a_while() -> None:
    """Without asking the core again and again."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member()) as (near, far):
        far.peers._banned[near.node.id] = float("inf")

        failed = await near.refusal(far)

        assert failed.code == "rejected"
        assert far.of(ev.AdmissionAsked) == []
