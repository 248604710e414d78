"""Whose a connection on this machine is."""

import os
import socket

from meshllm.daemon.socket_owner import has_connected, listens

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

            assert has_connected(os.getpid(), mine, port)
            assert not has_connected(NOBODY, mine, port)
            assert not has_connected(os.getpid(), mine, port + 1)
