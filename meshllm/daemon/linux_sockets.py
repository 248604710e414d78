"""What Linux itself says of TCP sockets on this machine, asked for exactly: one connection, or all that listen.

Owns nothing. Decides nothing. Doesn't know whom it is asked about: it says inodes, and which inodes a process has.

Reading the table of all connections and looking for one takes 10 to 30 ms on a machine with a thousand of them, and a
lent server is connected to ten times while a model loads; the kernel's own look-up takes 20 µs (sock_diag(7)).
"""

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

LOOPBACK = socket.inet_aton("127.0.0.1")

_SOCK_DIAG = 4
_BY_FAMILY = 20
_REQUEST, _DUMP = 0x001, 0x300
_ERROR, _DONE = 2, 3
_LISTENING = 1 << 10
_ANY = 0xFFFFFFFF
_ANSWER_S = 1.0
_READ_BYTES = 64 * 1024
_HEAD = struct.Struct("=IHHII")
"""Length, kind, flags, sequence, port: of every message."""
_ASKED = struct.Struct("=BBBxI")
"""Family, protocol, extensions, states: before the socket's name."""
_NAME = struct.Struct("!HH16s16s")
"""Ports and addresses, the socket's own first."""
_REST = struct.Struct("=III")
"""Interface and cookie: none of them."""
_UID_AT, _INODE_AT = 64, 68
"""In an answer after its head."""
_NAME_AT = 4


class _Ends(NamedTuple):
    """Ports and addresses of a connection."""

    near_port: int
    far_port: int
    near: bytes
    far: bytes


_NO_ENDS = _Ends(0, 0, b"", b"")


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that listens."""

    address: bytes
    """As the kernel has it: four bytes, or sixteen."""
    port: int
    inode: int


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection."""

    uid: int
    """Of the user who made it; 0 where it is closed."""
    inode: int
    """0 where it is closed."""


def end(near: tuple[object, ...], far: tuple[object, ...]) -> End | None:
    """Return one end of a connection by the socket names of both, itself first; None: there is none.

    Raises OSError where the kernel does not say, ValueError where these are no addresses.
    """
    hosts = [ipaddress.ip_address(str(name[0]).partition("%")[0]) for name in (near, far)]
    plain = [(host.ipv4_mapped or host) if isinstance(host, ipaddress.IPv6Address) else host for host in hosts]
    family = socket.AF_INET if all(host.version == 4 for host in plain) else socket.AF_INET6
    for answer in _asked(family, _ANY, _Ends(int(str(near[1])), int(str(far[1])), plain[0].packed, plain[1].packed)):
        (uid,) = struct.unpack_from("=I", answer, _UID_AT)
        return End(int(uid), _inode(answer))
    return None


def connection(from_port: int, to_port: int) -> int:
    """Return the inode of the end of a connection over loopback that has the first port; 0: there is none.

    Raises OSError where the kernel does not say.
    """
    for answer in _asked(socket.AF_INET, _ANY, _Ends(from_port, to_port, LOOPBACK, LOOPBACK)):
        return _inode(answer)
    return 0


def listening() -> tuple[Listening, ...]:
    """Return every TCP socket that listens. Raises OSError where the kernel does not say."""
    found = []
    for family, length in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        for answer in _asked(family, _LISTENING):
            port, _, address, _ = _NAME.unpack_from(answer, _NAME_AT)
            found.append(Listening(address[:length], port, _inode(answer)))
    return tuple(found)


def inodes(pid: int) -> Iterator[int]:
    """Yield the inodes of a process's sockets, then of its children's. Raises OSError where Linux is silent."""
    yield from _sockets(pid)
    for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - a tenth of what paths cost, for each thread of an engine
        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:  # noqa: PTH123
            for child in children.read().split():
                yield from inodes(int(child))


def _sockets(pid: int) -> Iterator[int]:
    """Yield the inodes of a process's own sockets. Raises OSError."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kind, _, inode = os.readlink(f"{folder}/{name}").partition(":")  # noqa: PTH115
            if kind == "socket":
                yield int(inode[1:-1])


def _inode(answer: bytes) -> int:
    (inode,) = struct.unpack_from("=I", answer, _INODE_AT)
    return int(inode)


def _asked(family: int, states: int, ends: "_Ends | None" = None) -> Iterator[bytes]:
    """Yield what the kernel says of one connection, or of all sockets in some states. Raises OSError."""
    is_exact = ends is not None
    name = _NAME.pack(*(ends or _NO_ENDS)) + _REST.pack(0, _ANY, _ANY)
    body = _ASKED.pack(family, socket.IPPROTO_TCP, 0, states) + name
    flags = _REQUEST if is_exact else _REQUEST | _DUMP
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(_ANSWER_S)
        kernel.send(_HEAD.pack(_HEAD.size + len(body), _BY_FAMILY, flags, 1, 0) + body)
        while True:
            data = kernel.recv(_READ_BYTES)
            while data:
                length, kind, *_ = _HEAD.unpack_from(data)
                message, data = data[_HEAD.size : length], data[(length + 3) & ~3 :]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", message)
                    if is_exact and -code == errno.ENOENT:
                        return
                    raise OSError(-code, os.strerror(-code))
                yield message
            if is_exact:
                return
