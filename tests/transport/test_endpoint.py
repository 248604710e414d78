"""One socket for dialling and being dialled: who is reached, who is let near, what strangers can cost."""

import asyncio
import random
import socket
import time

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from meshllm.core import limits
from meshllm.core.announcement import Address
from meshllm.transport import endpoint as module
from meshllm.transport.codes import CloseCode
from meshllm.transport.dial_error import DialCode, DialError
from meshllm.transport.endpoint import Endpoint
from meshllm.transport.identity import Identity
from tests.transport.net import LOOPBACK, WITHIN_S, Relay, Taker, closed_port, endpoint, listening, pair, until

ON_BOTH_LOOPS = True


async def refused(dialling: Endpoint, address: Address, expected, timeout_s: float = WITHIN_S) -> DialError:
    """Return why a dial failed."""
    with pytest.raises(DialError) as raised:
        await dialling.dial(address, expected, timeout_s)
    return raised.value


async def test_both_sides_dial_and_accept_on_one_port() -> None:
    """A node has one address: what it dials from is where it is dialled."""
    async with endpoint() as one, endpoint() as two:
        met: list[tuple[str, Address]] = []
        one.on_accept = lambda connection: met.append(("one", connection.remote))
        two.on_accept = lambda connection: met.append(("two", connection.remote))

        forth = await one.dial(two.address, two.node, WITHIN_S)
        back = await two.dial(one.address, one.node, WITHIN_S)

        assert sorted(met) == [("one", two.address), ("two", one.address)]
        assert forth.is_dialled
        assert back.is_dialled
        assert len({connection.id for connection in (*one.connections, *two.connections)}) >= 2
        assert forth.peer_public is not None


async def test_dial_over_ipv6_and_to_everything() -> None:
    """A socket for everything is dialled by both families."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    async with endpoint("::") as far, endpoint("::") as near, endpoint() as old:
        listening(far)

        await near.dial(Address("::1", far.address.port), far.node, WITHIN_S)
        await near.dial(Address(LOOPBACK, far.address.port), far.node, WITHIN_S)
        connection = await old.dial(Address(LOOPBACK, far.address.port), far.node, WITHIN_S)

        assert connection.remote == Address(LOOPBACK, far.address.port)


async def test_another_node_at_the_address_is_not_taken_for_the_peer() -> None:
    """Discovery yields addresses, never trust."""
    async with endpoint() as far, endpoint() as near:
        sides = listening(far)

        error = await refused(near, far.address, Identity.generate().node)
        await until(lambda: sides and sides[0].closings, "the end at the other side")

        assert error.code is DialCode.WRONG_IDENTITY
        assert sides[0].streams == []
        assert sides[0].closings[0].code == "wrong_identity"
        assert near.connections == ()
        assert far.strangers == 0


async def test_certificate_without_its_key_convinces_nobody() -> None:
    """A certificate is public: showing the peer's is easy, signing with its key is not."""
    peer, thief = Identity.generate(), Identity.generate()
    thief.__dict__["tls_certificate"] = peer.tls_certificate
    far = await Endpoint.open(thief, LOOPBACK, 0)
    listening(far)

    async with endpoint() as near:
        error = await refused(near, far.address, peer.node)

    far.close()
    assert error.code in {DialCode.WRONG_IDENTITY, DialCode.REJECTED}


async def test_nobody_at_the_address_is_known_before_the_time_is_over() -> None:
    """The kernel says so; since anybody can forge that, an answer that comes soon would still be taken."""
    async with endpoint() as near:
        start_s = time.monotonic()

        error = await refused(near, closed_port(), Identity.generate().node)

        took_s = time.monotonic() - start_s
        assert error.code is DialCode.UNREACHABLE
        assert limits.DIAL_REFUSED_GRACE_S * 0.9 <= took_s < WITHIN_S / 2


async def test_forged_refusal_does_not_stop_a_dial() -> None:
    """An ICMP error is anybody's word."""
    path, is_open = Relay(), asyncio.Event()
    path.passes = lambda data, is_forth: is_open.is_set()
    async with endpoint() as far, endpoint() as near:
        listening(far)
        address = await path.open(far.address)

        dial = asyncio.get_running_loop().create_task(near.dial(address, far.node, WITHIN_S))
        await until(lambda: near._refusals, "the dial")
        near.on_refused(address)
        is_open.set()
        connection = await dial

        assert not connection.is_closed


async def test_silence_at_the_address_ends_with_the_time() -> None:
    """A firewall answers nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind((LOOPBACK, 0))
        async with endpoint() as near:
            error = await refused(near, Address(LOOPBACK, deaf.getsockname()[1]), Identity.generate().node, 0.2)

            assert error.code is DialCode.TIMEOUT
            assert near.connections == ()


@pytest.mark.parametrize("host", ["::1", "not an address"])
async def test_address_that_leads_nowhere_is_unreachable(host: str) -> None:
    """Peers announce what they like."""
    async with endpoint() as near:
        error = await refused(near, Address(host, 9), Identity.generate().node)

        assert error.code is DialCode.UNREACHABLE


@pytest.mark.parametrize("answers", [False, True])
async def test_dial_that_is_cancelled_leaves_nothing(answers: bool) -> None:
    """The first of several addresses wins; the others are dropped, also one that has just answered."""
    relay = Relay()
    async with endpoint() as far, endpoint() as near:
        listening(far)
        address = await relay.open(far.address)
        relay.passes = lambda data, is_forth: is_forth or answers

        dial = asyncio.get_running_loop().create_task(near.dial(address, far.node, WITHIN_S))
        await asyncio.sleep(0)
        [connection] = near.connections
        if answers:
            connection.ready.add_done_callback(lambda _: dial.cancel())
        else:
            dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
        relay.close()

        assert near.connections == ()
        assert near._refusals == {}


async def test_endpoint_without_listener_answers_nobody() -> None:
    """A client node need not be dialled."""
    async with endpoint() as far, endpoint() as near:
        error = await refused(near, far.address, far.node, 0.2)

        assert error.code is DialCode.TIMEOUT
        assert far.connections == ()


async def test_other_protocol_is_turned_away() -> None:
    """An HTTP/3 client at our port learns that it is at the wrong door."""
    async with endpoint() as far, endpoint() as near:
        listening(far)
        near._dialling.alpn_protocols = ["h3"]

        error = await refused(near, far.address, far.node)

        assert error.code is DialCode.VERSION_MISMATCH


async def test_stranger_that_is_not_admitted_in_time_is_closed() -> None:
    """TLS alone opens nothing; silence after it neither."""
    async with pair(is_admitted=False, admission_timeout_s=0.2) as both:
        strangers = both.far_end.strangers
        await until(lambda: both.near.closings, "the close")

        assert strangers == 1
        assert both.near.closings[0].code == "auth_timeout"
        assert both.far_end.strangers == 0


async def test_stranger_that_never_finishes_tls_is_forgotten() -> None:
    """A first datagram is cheap to send; what it costs here ends by itself."""
    relay = Relay()
    async with endpoint(admission_timeout_s=0.2) as far, endpoint() as near:
        listening(far)
        relay.passes = lambda data, is_forth: is_forth
        address = await relay.open(far.address)

        dial = asyncio.get_running_loop().create_task(refused(near, address, far.node, 0.5))
        await until(lambda: far.strangers, "the stranger")
        await until(lambda: not far.strangers, "its end")
        relay.close()
        await dial

        assert far.connections == ()


async def test_garbage_costs_nothing_and_disturbs_nobody() -> None:
    """Random bytes, one byte, long datagrams, first datagrams that are none, other versions of QUIC."""
    rng = random.Random(7)
    async with pair() as both:
        far = both.far_end
        first = b"\xc3\x00\x00\x00\x01\x08" + bytes(8) + b"\x08" + bytes(8) + b"\x00\x44\x9e"
        shots = [
            b"x", rng.randbytes(40), rng.randbytes(1200), rng.randbytes(60_000), b"\x40" + rng.randbytes(100),
            first + rng.randbytes(1200), (first + bytes(1200))[:1199], b"\xc3\x6b\x33\x43\xcf" + rng.randbytes(1300),
            b"\xff\x1a\x2a\x3a\x4a" + rng.randbytes(1300), b"\x80" + bytes(1300),
        ]  # fmt: skip
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for shot in shots * 20:
                sender.sendto(shot, (far.address.host, far.address.port))
        _, _, _, taker = await both.opened(b"still here")
        await until(lambda: taker.data == b"still here", "bytes of a member")

        assert far.strangers == 0
        assert len(far.connections) == 1


async def test_strangers_of_one_address_are_few() -> None:
    """One machine cannot take every place."""
    async with endpoint(is_loopback_limited=True, strangers_per_address=2) as far, endpoint() as near:
        listening(far)
        for _ in range(2):
            await near.dial(far.address, far.node, WITHIN_S)

        error = await refused(near, far.address, far.node, 0.3)
        for connection in far.connections:
            connection.admit()
        await near.dial(far.address, far.node, WITHIN_S)

        assert error.code is DialCode.TIMEOUT


async def test_strangers_are_few_in_all() -> None:
    """Members that are connected go on; strangers wait for a place."""
    async with pair(strangers=3) as both:
        for _ in range(3):
            await both.near_end.dial(both.far_end.address, both.far_end.node, WITHIN_S)

        error = await refused(both.near_end, both.far_end.address, both.far_end.node, 0.3)
        _, _, _, taker = await both.opened(b"member")
        await until(lambda: taker.data == b"member", "bytes of a member")

        assert error.code is DialCode.TIMEOUT
        assert both.far_end.strangers == 3


async def test_many_strangers_have_to_show_their_address_first() -> None:
    """Above a number of them a forged sender costs one small datagram and no memory."""
    relay = Relay()
    async with endpoint(retry_above=0) as far, endpoint() as near:
        listening(far)
        address = await relay.open(far.address)

        connection = await near.dial(address, far.node, WITHIN_S)
        relay.close()

        assert not connection.is_closed
        retries = [data for data, is_forth in relay.seen if not is_forth and data[0] & 0xF0 == 0xF0]
        assert len(retries) == 1
        assert len(retries[0]) < 250


async def test_flood_of_first_datagrams_costs_little_and_shuts_nobody_out(monkeypatch) -> None:
    """To look into one costs a millisecond: beyond some a second, senders have to show their address first."""
    monkeypatch.setattr(limits, "STRANGERS_PER_S", 0.0)
    first = b"\xc3\x00\x00\x00\x01\x08" + bytes(8) + b"\x08" + bytes(8) + b"\x00\x44\x9e" + bytes(1200)
    async with endpoint() as far, endpoint() as near:
        listening(far)
        looked_into: list[object] = []
        adopt = far._adopt

        def counting(*words, **more):
            looked_into.append(words)
            return adopt(*words, **more)

        far._adopt = counting  # type: ignore[method-assign]
        batch = [(first[:6] + number.to_bytes(8, "big") + first[14:], (LOOPBACK, 9)) for number in range(3_000)]

        for start in range(0, len(batch), limits.UDP_BATCH_DATAGRAMS):
            far.on_datagrams(batch[start : start + limits.UDP_BATCH_DATAGRAMS])
        connection = await near.dial(far.address, far.node, WITHIN_S)

        assert len(looked_into) == limits.STRANGERS_BURST + 1  # and the one that has shown its address
        assert not connection.is_closed
        assert far.strangers == 1


async def test_token_of_a_retry_is_no_use_elsewhere() -> None:
    """It is bound to the address that asked."""
    relay = Relay()
    async with endpoint(retry_above=0) as far, endpoint() as near:
        listening(far)
        address = await relay.open(far.address)
        forth: list[bytes] = []

        def only_the_first(data: bytes, is_forth: bool) -> bool:
            if is_forth:
                forth.append(data)
            return not is_forth or len(forth) == 1

        relay.passes = only_the_first

        dial = asyncio.get_running_loop().create_task(refused(near, address, far.node, 0.5))
        await until(lambda: len(forth) > 1, "a first datagram with its token")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.sendto(forth[1], (far.address.host, far.address.port))
            thief.sendto(b"x", (far.address.host, far.address.port))
        await dial
        relay.close()

        assert far.connections == ()


def test_ipv6_neighbours_count_as_one_sender() -> None:
    """One machine has 2^64 addresses of IPv6."""
    one = module._source(("2001:db8::1", 1, 0, 0), is_loopback_limited=False)
    two = module._source(("2001:db8::2", 1, 0, 0), is_loopback_limited=False)

    assert one == two == "2001:db8::/64"
    assert module._source(("::ffff:192.0.2.7", 1, 0, 0), is_loopback_limited=False) == "192.0.2.7"
    assert module._source(("::ffff:127.0.0.1", 1, 0, 0), is_loopback_limited=False) == ""
    assert module._source((LOOPBACK, 1), is_loopback_limited=True) == LOOPBACK


async def test_closing_tells_everybody_and_leaves_nothing() -> None:
    """A node that leaves is gone at once, not after a timeout."""
    async with pair() as both:
        _, taker, _, far_taker = await both.opened()

        both.far_end.close(CloseCode.LEAVING, "bye")
        await until(lambda: both.near.closings and taker.is_lost and far_taker.is_lost, "the end")

        assert both.near.closings[0].code == "leaving"
        assert both.far_end.connections == ()


async def test_ended_connections_are_forgotten(monkeypatch) -> None:
    """After a day of reconnecting the tables are as small as in the morning."""
    monkeypatch.setattr(limits, "QUIC_CLOSE_LINGER_S", 0.05)
    async with endpoint() as far, endpoint() as near:
        listening(far)

        for _ in range(20):
            connection = await near.dial(far.address, far.node, WITHIN_S)
            connection.close(CloseCode.DONE)
        await until(lambda: not near._ids and not far._ids, "empty tables")

        assert (near._by_id, far._by_id) == ({}, {})


async def test_what_is_said_to_a_dead_process_is_told() -> None:
    """The kernel of a machine whose daemon was killed refuses: a reason to look, long before a timeout."""
    async with pair() as both:
        failed: list[Address] = []
        both.near_end.on_path_failed = failed.append
        address = both.far_end.address
        both.far_end._socket.close()

        stream, _ = both.near.open(Taker())
        stream.write(b"are you there?")
        await until(lambda: failed, "the refusal")

        assert failed[0] == address
        assert not both.near.connection.is_closed
        for connection in both.far_end.connections:
            connection.abandon()


async def test_unknown_dialler_gets_no_session_to_resume() -> None:
    """A resumed session carries no certificate to compare, and early data can be replayed."""
    tickets: list[object] = []
    async with endpoint() as far:
        listening(far)
        plain = QuicConnection(
            configuration=QuicConfiguration(alpn_protocols=["meshllm/1"], verify_mode=0, server_name="meshllm"),
            session_ticket_handler=tickets.append,
        )
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((LOOPBACK, 0))
            target = (far.address.host, far.address.port)
            plain.connect(target, loop.time())
            async with asyncio.timeout(WITHIN_S):
                while not plain._handshake_confirmed:
                    for data, address in plain.datagrams_to_send(loop.time()):
                        sock.sendto(data, address)
                    plain.receive_datagram(await loop.sock_recv(sock, 2000), target, loop.time())

        assert tickets == []


@pytest.mark.parametrize("code", [CloseCode.REPLACED, CloseCode.SPARE, CloseCode.LEAVING])
def test_who_has_enough_connections_has_rejected_nobody(code: CloseCode) -> None:
    """A node that is rejected stays away for minutes; one that comes at a bad moment tries again soon."""
    assert module.dial_code(code.name.lower()) is DialCode.UNREACHABLE
    assert module.dial_code(CloseCode.UNAUTHORIZED.name.lower()) is DialCode.REJECTED
