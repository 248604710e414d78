"""Whose a connection on this machine is."""

import os
import socket

import psutil
import pytest

from meshllm.daemon.socket_owner import is_stranger, listens

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

    monkeypatch.setattr(psutil.Process, "net_connections", hidden)

    assert not is_stranger(os.getpid(), 1, 2)
    assert not listens(os.getpid(), 1)
