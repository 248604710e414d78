"""Linux says which socket a connection is, and whose."""

import os
import socket
import subprocess
import sys

import pytest

from meshllm.daemon import linux_sockets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")

HOLDS = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()
"""


def inode(of: socket.socket) -> int:
    """Return a socket's own number."""
    return os.fstat(of.fileno()).st_ino


def test_a_connection_is_found_by_its_two_ports() -> None:
    """Each end by its own port first; one that is not there is none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as near, listener.accept()[0] as far:
            mine = near.getsockname()[1]

            assert linux_sockets.connection(mine, port) == inode(near)
            assert linux_sockets.connection(port, mine) == inode(far)
            assert linux_sockets.connection(mine, mine) == 0


def test_all_that_listen_are_told_with_their_addresses() -> None:
    """Of both kinds of addresses; nobody who is only connected."""
    with (
        socket.create_server(("127.0.0.1", 0)) as four, socket.create_server(("::", 0), family=socket.AF_INET6) as six,
        socket.create_connection(four.getsockname()) as near,
    ):  # fmt: skip
        told = linux_sockets.listening()

        assert linux_sockets.Listening(linux_sockets.LOOPBACK, four.getsockname()[1], inode(four)) in told
        assert linux_sockets.Listening(bytes(16), six.getsockname()[1], inode(six)) in told
        assert inode(near) not in {one.inode for one in told}


def test_a_process_has_its_own_sockets_and_those_of_its_children() -> None:
    """A guard may stand between a daemon and its engine."""
    child = subprocess.Popen((sys.executable, "-c", HOLDS), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child, socket.create_server(("127.0.0.1", 0)) as ours:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        (theirs,) = (one.inode for one in linux_sockets.listening() if one.port == port)
        all_ours, of_child = set(linux_sockets.inodes(os.getpid())), set(linux_sockets.inodes(child.pid))
        own = inode(ours)
        child.communicate()

    assert {theirs, own} <= all_ours
    assert theirs in of_child
    assert own not in of_child


def test_a_process_that_is_not_there_is_an_error() -> None:
    """Whoever asks then asks otherwise."""
    with pytest.raises(OSError, match="No such file"):
        next(linux_sockets.inodes(2**22 + 1))


@pytest.mark.rows("SEC-1")
@pytest.mark.parametrize(
    ("listens", "family", "host"),
    [
        ("127.0.0.1", socket.AF_INET, "127.0.0.1"), ("::1", socket.AF_INET6, "::1"),
        ("::", socket.AF_INET6, "127.0.0.1"),
    ],
)  # fmt: skip
def test_an_end_is_told_with_its_user_while_it_is_open(listens: str, family: int, host: str) -> None:
    """Over both kinds of addresses, and over the one that holds the other."""
    listener = socket.create_server((listens, 0), family=family, dualstack_ipv6=listens == "::")
    near = socket.create_connection((host, listener.getsockname()[1]))
    with listener, near, listener.accept()[0] as far:
        names = far.getpeername(), far.getsockname()
        number = inode(near)

        assert linux_sockets.end(*names) == linux_sockets.End(os.geteuid(), number)
        near.close()

        left = linux_sockets.end(*names)
        assert left is not None
        assert left.inode == 0


def test_an_end_that_nobody_has_is_none() -> None:
    """Neither by its port nor by its address."""
    assert linux_sockets.end(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    with pytest.raises(ValueError, match="does not appear"):
        linux_sockets.end(("nowhere", 1), ("127.0.0.1", 2))
