"""Whose a connection on this machine is."""

import os
import socket
import sys

import psutil
import pytest

from meshllm.daemon import linux_sockets
from meshllm.daemon.socket_owner import is_own, is_stranger, listens

NOBODY = 2**22 + 1
"""No process has such a number: it is beyond what the kernel gives."""


def test_a_listener_belongs_to_its_process() -> None:
    """And to no other one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        assert listens(os.getpid(), port)
        assert not listens(NOBODY, port)
    assert not listens(os.getpid(), port)


def test_a_process_that_also_listens_elsewhere_is_not_what_was_wanted() -> None:
    """Nothing but the one port may be open."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)):
        assert not listens(os.getpid(), listener.getsockname()[1])


def test_a_connection_belongs_to_whoever_made_it() -> None:
    """Both its ports count."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as ours:
            mine = ours.getsockname()[1]

            assert not is_stranger(os.getpid(), mine, port)
            assert is_stranger(NOBODY, mine, port)
            assert is_stranger(os.getpid(), mine, port + 1)


def test_where_the_system_does_not_say_nobody_is_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine must not be locked out of its own tunnels."""

    def hidden(_: psutil.Process, __: str) -> None:
        raise psutil.AccessDenied

    def forbidden(_: int) -> frozenset[int]:
        raise PermissionError

    monkeypatch.setattr(psutil.Process, "net_connections", hidden)
    monkeypatch.setattr(linux_sockets, "inodes", forbidden)

    assert not is_stranger(os.getpid(), 1, 2)
    assert not listens(os.getpid(), 1)


@pytest.mark.parametrize("is_silent", [False, True], ids=["Linux says", "nobody says"])
def test_what_linux_says_is_what_all_connections_say(monkeypatch: pytest.MonkeyPatch, *, is_silent: bool) -> None:
    """The quick answer and the slow one are equal."""

    def silent() -> tuple[linux_sockets.Listening, ...]:
        raise OSError

    if is_silent:
        monkeypatch.setattr(linux_sockets, "listening", silent)
        monkeypatch.setattr(linux_sockets, "connection", lambda *_: 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as ours:
            own = is_stranger(os.getpid(), ours.getsockname()[1], port)
            found = (listens(os.getpid(), port), listens(os.getpid(), port + 1), listens(1, port))

    assert (own, found) == (False, (True, False, False))


@pytest.mark.rows("SEC-1")
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_connection_is_its_users_own_until_it_is_closed() -> None:
    """The kernel calls closed ones root's: who closed early would be believed to be root."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        with listener.accept()[0] as far:
            names = far.getpeername(), far.getsockname()

            assert is_own(*names) is True
            ours.close()

            assert is_own(*names) is False


@pytest.mark.rows("SEC-1")
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can be somebody else")
def test_a_connection_of_another_user_is_not_our_own() -> None:
    """Whoever made the socket counts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.seteuid(65_534)
        try:
            theirs = socket.create_connection(listener.getsockname())
        finally:
            os.seteuid(0)
        with theirs, listener.accept()[0] as far:
            assert is_own(far.getpeername(), far.getsockname()) is False


@pytest.mark.parametrize("names", [(None, None), (("nowhere", 1), ("127.0.0.1", 2))])
def test_nobody_says_whose_something_is_that_has_no_address(names: tuple[object, object]) -> None:
    """Then it is unknown, not a stranger's."""
    assert is_own(*names) is None


def test_nobody_says_where_the_kernel_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may hide it."""

    def hidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(linux_sockets, "end", hidden)

    assert is_own(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
