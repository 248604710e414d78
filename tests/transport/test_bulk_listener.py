"""The bulk port: members with the right get what they came for, everybody else TLS and silence."""

import asyncio
import socket
import ssl
import threading
import time

import pytest

from meshllm.core import limits
from meshllm.core.members.bulk_admission import BULK_FEATURE
from meshllm.core.rights import CLIENT_ONLY, GUEST
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError, dialler_context
from meshllm.transport.bulk_listener import BulkListener
from meshllm.transport.handshake import HandshakeError, Welcomed
from meshllm.wire.bulk_frames import Ready
from tests.transport.builders import NOW_UNIX_S, Mesh, dialler
from tests.transport.bulk import LOOPBACK, Port, a_port


def soon() -> float:
    """Return a deadline for what should happen at once."""
    return time.monotonic() + 10.0


def echo(channel: BulkChannel) -> None:
    """Send back what comes, until the peer goes."""
    while True:
        try:
            payload = channel.receive(soon())
        except BulkError:
            return
        channel.send(payload, soon())


async def test_a_member_gets_in_and_is_served() -> None:
    """Both sides have proved their keys; bytes go both ways."""
    mesh = Mesh()
    async with a_port(mesh.member(), {"file": echo}) as port:
        channel = await port.dial(mesh.member(GUEST))

        await asyncio.to_thread(channel.send, b"hello", soon())
        answer = await asyncio.to_thread(channel.receive, soon())

        channel.close()
    assert answer == b"hello"
    assert channel.peer == port.node.id


async def test_a_stranger_is_not_let_in() -> None:
    """A key alone is nothing."""
    mesh = Mesh()
    async with a_port(mesh.member(), {"file": echo}) as port:
        with pytest.raises(BulkError) as refused:
            await port.dial(Mesh().member())
        with pytest.raises(BulkError) as unknown:
            await port.dial(mesh.stranger())

    assert {refused.value.code, unknown.value.code} == {BulkCode.REJECTED}


async def test_an_expelled_member_is_not_let_in() -> None:
    """Its certificate is as good as ever, and worth nothing; so are those that it issued."""
    mesh = Mesh()
    expelled = mesh.member()
    issued = mesh.member(GUEST, by=expelled)
    async with a_port(mesh.member(), {"file": echo}, revoked={expelled.id}) as port:
        for node in (expelled, issued):
            with pytest.raises(BulkError) as refused:
                await port.dial(node)

            assert refused.value.code is BulkCode.REJECTED


async def test_an_expired_certificate_is_not_let_in() -> None:
    """Time ends every right."""
    mesh = Mesh()
    old = mesh.member(at=NOW_UNIX_S - limits.CERTIFICATE_LIFE_S - limits.CERTIFICATE_LEEWAY_S - 10)
    async with a_port(mesh.member(), {"file": echo}) as port:
        with pytest.raises(BulkError) as refused:
            await port.dial(old)

    assert refused.value.code is BulkCode.REJECTED


@pytest.mark.parametrize(("use", "reason"), [("file", "no_right"), ("rpc", "no_right"), ("other", "unknown_use")])
async def test_a_member_without_the_right_gets_nothing(use: str, reason: str) -> None:
    """It is told so: it is one of us."""
    mesh = Mesh()
    served: list[BulkChannel] = []
    async with a_port(mesh.member(), {"file": served.append, "rpc": served.append}) as port:
        with pytest.raises(BulkError) as refused:
            await port.dial(mesh.member(CLIENT_ONLY), use)

    assert (refused.value.code, refused.value.reason, served) == (BulkCode.REFUSED, reason, [])


async def test_what_a_node_may_not_itself_it_serves_nobody() -> None:
    """Both sides need the right."""
    mesh = Mesh()
    async with a_port(mesh.member(CLIENT_ONLY), {"file": echo}, mine=CLIENT_ONLY) as port:
        with pytest.raises(BulkError) as refused:
            await port.dial(mesh.member())

    assert refused.value.reason == "not_served"


async def test_another_node_at_the_address_is_noticed_before_anything_is_said() -> None:
    """The dialler pins the key that it wants."""
    mesh = Mesh()
    async with a_port(mesh.member(), {"file": echo}) as port:
        with pytest.raises(BulkError) as refused:
            await port.dial(mesh.member(), expected=mesh.member().id)

    assert (refused.value.code, refused.value.reason) == (BulkCode.REJECTED, "wrong_identity")


async def test_a_proof_for_quic_is_worth_nothing_here() -> None:
    """The planes are told apart by what is signed."""
    mesh = Mesh()
    async with a_port(mesh.member(), {"file": echo}) as port:
        with pytest.raises(HandshakeError) as refused:
            await asyncio.to_thread(greeted, port, mesh, ())

    assert refused.value.reason == "refused"


async def test_a_connection_begins_with_what_it_is_for() -> None:
    """Anything else ends it."""
    mesh = Mesh()
    async with a_port(mesh.member(), {"file": echo}) as port:
        channel = await asyncio.to_thread(greeted, port, mesh, (BULK_FEATURE,))
        await asyncio.to_thread(channel.say, Ready(), soon())
        with pytest.raises(BulkError) as ended:
            await asyncio.to_thread(channel.hear, soon())

        channel.close()
    assert ended.value.code in {BulkCode.LOST, BulkCode.PROTOCOL}


def greeted(port: Port, mesh: Mesh, features: tuple[str, ...]) -> BulkChannel:
    """Return a connection on which a member has said who it is, and no more. Raises HandshakeError."""
    raw = socket.create_connection((LOOPBACK, port.listener.port), timeout=30)
    channel = BulkChannel(raw, dialler_context(), is_dialled=True)
    handshake = dialler(mesh.member(), port.node, features=features)
    try:
        channel.shake_hands(soon())
        payload: bytes | Welcomed = handshake.start()
        while isinstance(payload, bytes):
            channel.send(payload, soon())
            payload = handshake.receive(channel.receive(soon()))
    except HandshakeError:
        channel.close()
        raise
    return channel


async def test_a_port_scan_sees_tls_that_says_nothing_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens that announces itself to strangers: a common name that all nodes share, then the end."""
    monkeypatch.setattr("meshllm.transport.bulk_listener.BULK_HANDSHAKE_S", 0.3)
    async with a_port(Mesh().member(), {"file": echo}) as port:
        certificate, said = await asyncio.to_thread(_scan, port.listener.port)
        plain = await asyncio.to_thread(_scan_plainly, port.listener.port)

    assert (certificate, said) == (b"meshllm", b"")
    assert plain[:1] in {b"", b"\x15"}  # nothing, or a TLS alert


def _scan(port: int) -> tuple[bytes, bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((LOOPBACK, port), timeout=30) as raw,
        context.wrap_socket(raw) as channel,
    ):
        shown = channel.getpeercert(binary_form=True) or b""
        return b"meshllm" if b"meshllm" in shown else b"", channel.recv(100)


def _scan_plainly(port: int) -> bytes:
    with socket.create_connection((LOOPBACK, port), timeout=30) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return raw.recv(100)
        except ConnectionResetError:
            return b""


async def test_one_peer_has_only_so_many_connections() -> None:
    """The next one is told that it is too much."""
    mesh = Mesh()
    greedy = mesh.member()
    async with a_port(mesh.member(), {"file": echo}) as port:
        channels = [await port.dial(greedy) for _ in range(limits.BULK_CONNECTIONS_PER_PEER)]
        with pytest.raises(BulkError) as refused:
            await port.dial(greedy)
        other = await port.dial(mesh.member())

        for channel in (*channels, other):
            channel.close()
    assert refused.value.reason == "busy"


async def test_a_connection_too_many_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are bounded, so that nobody can take them all from the node."""
    monkeypatch.setattr("meshllm.transport.bulk_listener.BULK_CONNECTIONS", 1)
    mesh = Mesh()
    async with a_port(mesh.member(), {"file": echo}) as port:
        first = await port.dial(mesh.member())
        with pytest.raises(BulkError) as refused:
            await port.dial(mesh.member())

        first.close()
    assert refused.value.code in {BulkCode.LOST, BulkCode.PROTOCOL}


async def test_a_network_with_too_many_failures_gets_no_answer() -> None:
    """As on the UDP port: ten in a minute, then silence for a minute."""
    mesh = Mesh()
    async with a_port(mesh.member(), {"file": echo}) as port:
        for _ in range(limits.ADMISSION_FAILURES):
            with pytest.raises(BulkError):
                await port.dial(mesh.stranger())
        refused = None
        async with asyncio.timeout(30.0):
            while refused is None:  # a failure counts once its connection has ended, a moment after the word of it
                try:
                    (await port.dial(mesh.member())).close()
                except BulkError as error:
                    refused = error

    assert refused.code in {BulkCode.LOST, BulkCode.PROTOCOL}


async def test_closing_ends_connections_that_wait() -> None:
    """A peer that says nothing does not hold up the daemon's end."""
    mesh = Mesh()
    waits = threading.Event()

    def wait(channel: BulkChannel) -> None:
        waits.set()
        channel.receive(time.monotonic() + 60.0)

    async with a_port(mesh.member(), {"file": wait}) as port:
        channel = await port.dial(mesh.member())
        await asyncio.to_thread(waits.wait, 10)
        began_s = time.monotonic()
        await port.listener.close()

        channel.close()
    assert time.monotonic() - began_s < 30.0


async def test_a_taken_port_is_no_reason_to_have_none() -> None:
    """The same number as UDP where it is free, else any."""
    mesh = Mesh()
    async with a_port(mesh.member(), {}) as port:
        other = BulkListener.open(LOOPBACK, port.listener.port, mesh.member().identity, port.listener._user)

        assert other.port not in {0, port.listener.port}
        await other.close()
