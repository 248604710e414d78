"""The socket: batches, refusals of the kernel on both loops, what waits, addresses."""

import asyncio
import errno
import socket

import pytest

from meshllm.core import limits
from meshllm.core.announcement import Address
from meshllm.transport.udp import UdpSocket, address_of, bound_socket, is_refusal
from tests.transport.net import LOOPBACK, closed_port, until

ON_BOTH_LOOPS = True


class Recorder:
    """Keeps what a socket tells."""

    def __init__(self) -> None:
        self.batches: list[list] = []
        self.refused: list[Address] = []

    def on_datagrams(self, batch):
        """Keep a batch."""
        self.batches.append(list(batch))

    def on_refused(self, address):
        """Keep an address."""
        self.refused.append(address)

    def was_refused(self) -> bool:
        """Tell whether there was a refusal."""
        return bool(self.refused)

    @property
    def data(self) -> list[bytes]:
        """Return every datagram."""
        return [data for batch in self.batches for data, _ in batch]


@pytest.fixture
async def ends():
    """Two sockets: one of IPv4, one of everything."""
    users = Recorder(), Recorder()
    sockets = [UdpSocket(bound_socket(host, 0), user) for host, user in zip((LOOPBACK, "::"), users, strict=True)]
    yield list(zip(sockets, users, strict=True))
    for opened in sockets:
        opened.close()


async def test_datagrams_of_one_turn_come_as_batches(ends) -> None:
    """A flush for each datagram costs a third of the processor."""
    (near, _), (far, user) = ends
    target = near.reach(Address(LOOPBACK, far.address.port))

    near.send([(b"%d" % number, target) for number in range(200)])
    await until(lambda: len(user.data) == 200, "every datagram")

    assert user.data == [b"%d" % number for number in range(200)]
    assert max(map(len, user.batches)) == limits.UDP_BATCH_DATAGRAMS


async def test_ipv4_is_ipv4_on_a_socket_for_everything(ends) -> None:
    """Addresses that peers tell one another must not carry the form of one kernel's sockets."""
    (near, user), (far, _) = ends

    far.send([(b"hello", far.reach(near.address))])
    await until(lambda: user.data, "the datagram")

    [(_, sender)] = user.batches[0]
    assert address_of(sender) == Address(LOOPBACK, far.address.port)
    assert address_of(far.reach(near.address)) == near.address


async def test_refusal_is_told_and_the_socket_goes_on(ends) -> None:
    """Once a kernel reports an error on a descriptor, uvloop never listens to it again: this socket must not care."""
    (near, near_user), (far, far_user) = ends
    nobody = closed_port()

    for sender, user in ((near, near_user), (far, far_user)):
        for _ in range(2):
            user.refused.clear()
            sender.send([(b"anybody?", sender.reach(nobody))])
            await until(user.was_refused, "the refusal")
            assert user.refused == [nobody]
    far.send([(b"still here", far.reach(near.address))])
    await until(lambda: near_user.data, "a datagram after the refusals")

    assert near_user.data == [b"still here"]


async def test_refusal_of_one_datagram_costs_no_other(ends) -> None:
    """The kernel tells of a refusal at the next call, whomever that one is for; it must be tried again."""
    (near, near_user), (far, far_user) = ends
    nobody, target = near.reach(closed_port()), near.reach(Address(LOOPBACK, far.address.port))

    near.send([(b"lost", nobody), *((b"%d" % number, target) for number in range(20))])
    await until(lambda: len(far_user.data) == 20, "every datagram for somebody")
    await until(lambda: near_user.refused, "the refusal")

    assert far_user.data == [b"%d" % number for number in range(20)]


async def test_what_the_kernel_does_not_take_waits_up_to_a_bound(ends, monkeypatch) -> None:
    """A full buffer is no reason to lose what was sent, nor to hold everything."""
    (near, _), (far, user) = ends
    target = near.reach(Address(LOOPBACK, far.address.port))

    class Full:
        """A socket whose buffer is full."""

        def sendto(self, data, address):
            raise BlockingIOError(errno.EAGAIN, "full")

    real, near._socket = near._socket, Full()
    near._watch_writing = lambda is_wanted: None
    near.send([(b"first", target)])
    near.send([(b"%d" % number, target) for number in range(limits.UDP_BACKLOG_DATAGRAMS + 10)])
    waiting = len(near._backlog)
    near._socket = real
    del near._watch_writing
    near._watch_writing(is_wanted=True)
    await until(lambda: not near._backlog, "room")
    await until(lambda: b"first" in user.data, "what waited")

    assert waiting == limits.UDP_BACKLOG_DATAGRAMS
    assert user.data[:2] == [b"first", b"0"]


async def test_network_without_a_way_there_is_a_refusal(ends) -> None:
    """A laptop without a network learns at once that a dial leads nowhere."""
    (near, user), _ = ends

    class Cut:
        """A socket without a network."""

        def sendto(self, data, address):
            raise OSError(errno.ENETUNREACH, "no way")

    real, near._socket = near._socket, Cut()
    near.send([(b"x", ("192.0.2.1", 7))])
    near._socket = real
    await until(lambda: user.refused, "the refusal")

    assert user.refused == [Address("192.0.2.1", 7)]


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ([(0, 11, b"\x6f\0\0\0rest")], True),
        ([(41, 25, b"\x6f\0\0\0rest")], True),
        ([(0, 11, b"\x71\0\0\0rest")], True),
        ([(0, 11, b"\x5a\0\0\0rest")], False),
        ([(1, 1, b"\x6f\0\0\0rest")], False),
        ([(0, 11, b"\x6f")], False),
        ([], False),
    ],
    ids=["refused", "refused over IPv6", "no way", "too large", "something else", "cut", "nothing"],
)
def test_only_nobody_there_is_a_refusal(details: list[tuple[int, int, bytes]], expected: bool) -> None:
    """A probe that was too large for the way leaves an error, too."""
    assert is_refusal(details) is expected


async def test_address_that_this_socket_cannot_reach_is_refused(ends) -> None:
    """An IPv6 address on an IPv4 socket, and what is no address, fail before anything is sent."""
    (near, _), (far, _) = ends

    with pytest.raises(OSError, match="IPv6"):
        near.reach(Address("::1", 1))
    with pytest.raises(OSError):
        near.reach(Address("a name", 1))

    assert far.reach(Address("::1", 7))[:2] == ("::1", 7)


def test_everything_is_ipv4_where_there_is_no_ipv6(monkeypatch) -> None:
    """Containers without IPv6 are common."""
    monkeypatch.setattr(socket, "has_ipv6", False)

    with bound_socket("::", 0) as sock:
        assert sock.family == socket.AF_INET


def test_port_that_is_taken_is_an_error() -> None:
    """Two daemons on one port would take each other's datagrams."""
    with bound_socket(LOOPBACK, 0) as sock, pytest.raises(OSError) as raised:
        bound_socket(LOOPBACK, sock.getsockname()[1])

    assert raised.value.errno == errno.EADDRINUSE


async def test_closing_leaves_nothing_with_the_loop(ends) -> None:
    """Descriptors are checked after every test; here, that nothing of the socket is called any more."""
    (near, user), (far, _) = ends
    target = far.reach(near.address)
    extra = UdpSocket(bound_socket(LOOPBACK, 0), Recorder())

    extra.close()
    far.send([(b"x", target)])
    await until(lambda: user.data, "the datagram")

    assert not asyncio.get_running_loop().remove_reader(extra._watched)
