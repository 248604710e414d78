"""One UDP socket: read and written in batches, and told by the kernel where nobody listens.

Owns the socket, what waits to be sent, and how addresses of the kernel and of the mesh translate. Decides to drop when
too much waits, as a network would. Doesn't know what datagrams carry.

On Linux the loop watches an epoll of its own around the socket, not the socket: with `IP_RECVERR` a refused datagram
makes the socket ready with an error, and uvloop never listens to a descriptor again after that.
"""

import asyncio
import contextlib
import errno
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from meshllm.core import limits
from meshllm.core.announcement import Address

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""An address as the kernel says it; connections compare these, so it has to be exactly that."""
Datagram = tuple[bytes, SocketAddress]

_MAPPED = "::ffff:"
_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h: Python has no names for them
_DO_NOT_FRAGMENT = {
    "linux": ((socket.IPPROTO_IP, 10, 3), (socket.IPPROTO_IPV6, 23, 3)),  # MTU_DISCOVER: PROBE
    "darwin": ((socket.IPPROTO_IP, 28, 1), (socket.IPPROTO_IPV6, 62, 1)),  # DONTFRAG
}
"""A large datagram has to get lost where it does not fit: in pieces it would arrive, at a price, and prove nothing."""
_ERROR_BYTES, _ERROR_DETAILS_BYTES = 64, 512
_NOT_READY = (BlockingIOError, InterruptedError)
_IN_ERROR = struct.Struct("=I")  # the first field of a sock_extended_err
_NOWHERE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}


class SocketUser(Protocol):
    """Who is told what a socket has."""

    def on_datagrams(self, batch: Sequence[Datagram]) -> None:
        """Take datagrams that came in one turn of the loop."""

    def on_refused(self, address: Address) -> None:
        """Learn that an address says, or a router or this machine says of it, that nobody is there. May be forged."""


class UdpSocket:
    """A bound socket on a running loop."""

    def __init__(self, sock: socket.socket, user: SocketUser) -> None:
        """Watch a bound, non-blocking socket for `user`."""
        self._socket = sock
        self._user = user
        self._loop = asyncio.get_running_loop()
        self._backlog: deque[Datagram] = deque()
        self._is_v6 = sock.family == socket.AF_INET6
        self._poll = _error_poll(sock)
        self._watched = sock.fileno() if self._poll is None else self._poll.fileno()
        self._loop.add_reader(self._watched, self._on_ready)

    @property
    def address(self) -> Address:
        """Return where the socket is bound."""
        return address_of(self._socket.getsockname())

    def reach(self, address: Address) -> SocketAddress:
        """Return an address in the form in which answers from it will come. Raises ValueError, OSError."""
        host, is_v6 = address.host, ":" in address.host
        if is_v6 and not self._is_v6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6 here")
        if self._is_v6 and not is_v6:
            host = _MAPPED + host
        family = socket.AF_INET6 if self._is_v6 else socket.AF_INET
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        found = socket.getaddrinfo(host, address.port, family, socket.SOCK_DGRAM, 0, flags)
        sockaddr: SocketAddress = found[0][4]  # type: ignore[assignment]
        return sockaddr

    def send(self, datagrams: Sequence[Datagram]) -> None:
        """Send, or keep for later what the kernel does not take; beyond a bound drop."""
        if self._backlog:
            room = limits.UDP_BACKLOG_DATAGRAMS - len(self._backlog)
            self._backlog.extend(datagrams[:room])
            return
        for position, datagram in enumerate(datagrams):
            if not self._sent(datagram):
                self._backlog.extend(datagrams[position:])
                self._watch_writing(is_wanted=True)
                return

    def close(self) -> None:
        """Close; what waits is lost. Once is enough."""
        if self._socket.fileno() < 0:
            return
        self._backlog.clear()
        self._loop.remove_reader(self._watched)
        if self._poll is None:
            self._loop.remove_writer(self._watched)
        else:
            self._poll.close()
        self._socket.close()

    # -- writing ---------------------------------------------------------------------------------------

    def _sent(self, datagram: Datagram) -> bool:
        """Return whether the kernel has dealt with a datagram: sent it, or refused it for good."""
        data, address = datagram
        for _ in range(2):  # the first try may fail for a refusal of an earlier datagram
            try:
                self._socket.sendto(data, address)
            except _NOT_READY:
                return False
            except ConnectionError:
                self._read_errors()
                continue
            except OSError as error:
                if error.errno in _NOWHERE:
                    self._loop.call_soon(self._user.on_refused, address_of(address))
            return True
        return True

    def _watch_writing(self, *, is_wanted: bool) -> None:
        if self._poll is not None:
            self._poll.modify(self._socket, select.EPOLLIN | (select.EPOLLOUT if is_wanted else 0))
        elif is_wanted:
            self._loop.add_writer(self._watched, self._write_backlog)
        else:
            self._loop.remove_writer(self._watched)

    def _write_backlog(self) -> None:
        while self._backlog:
            if not self._sent(self._backlog[0]):
                return
            self._backlog.popleft()
        self._watch_writing(is_wanted=False)

    # -- reading ---------------------------------------------------------------------------------------

    def _on_ready(self) -> None:
        if self._backlog:
            self._write_backlog()
        batch: list[Datagram] = []
        has_error = False
        receive = self._socket.recvfrom
        for _ in range(limits.UDP_BATCH_DATAGRAMS):
            try:
                batch.append(receive(limits.UDP_DATAGRAM_BYTES))
            except _NOT_READY:
                break
            except OSError:
                has_error = True
        if has_error or not batch:
            self._read_errors()
        if batch:
            self._user.on_datagrams(batch)

    def _read_errors(self) -> None:
        """Empty the socket's queue of errors: while it holds one, the socket counts as ready."""
        if self._poll is None:
            return
        for _ in range(limits.UDP_BATCH_DATAGRAMS):
            try:
                _, details, _, address = self._socket.recvmsg(_ERROR_BYTES, _ERROR_DETAILS_BYTES, socket.MSG_ERRQUEUE)
            except OSError:
                return
            if address and is_refusal(details):
                self._loop.call_soon(self._user.on_refused, address_of(address))


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket bound to an IP address; `::` takes IPv4 too, and is `0.0.0.0` where there is no IPv6.

    Raises OSError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if host == "::" and not socket.has_ipv6:
        host, family = "0.0.0.0", socket.AF_INET  # noqa: S104 - asked for by the caller
    try:
        return _bound(family, host, port)
    except OSError as error:
        if host != "::" or error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            raise
        return _bound(socket.AF_INET, "0.0.0.0", port)  # noqa: S104 - asked for by the caller


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        for direction in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):  # macOS refuses what is above its bound; smaller is slower, not wrong
                sock.setsockopt(socket.SOL_SOCKET, direction, limits.UDP_BUFFER_BYTES)
        for level, option, value in _DO_NOT_FRAGMENT.get(sys.platform, ()):
            with contextlib.suppress(OSError):  # an IPv6 socket that takes no IPv4 need not know it, nor the reverse
                sock.setsockopt(level, option, value)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def is_refusal(details: Sequence[tuple[int, int, bytes]]) -> bool:
    """Tell whether an entry of the socket's queue of errors says that nobody is there.

    Others say that a datagram was too large for the way, which is news for nobody but the search for that size.
    """
    return any(
        len(data) >= _IN_ERROR.size and _IN_ERROR.unpack_from(data)[0] in {errno.ECONNREFUSED, *_NOWHERE}
        for level, kind, data in details
        if (level, kind) in {(socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)}
    )


def address_of(sockaddr: SocketAddress) -> Address:
    """Return an address of the kernel as the mesh says it: IPv4 is IPv4 on any socket."""
    host = sockaddr[0]
    return Address(host=host.removeprefix(_MAPPED) if "." in host else host, port=sockaddr[1])


def _error_poll(sock: socket.socket) -> "select.epoll | None":
    """Ask the kernel for refusals, and return what the loop watches then; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    with contextlib.suppress(OSError):  # an IPv6 socket that takes no IPv4 need not know it
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    poll = select.epoll()
    poll.register(sock, select.EPOLLIN)
    return poll
