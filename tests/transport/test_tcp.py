"""Sockets between nodes never wait, send at once, and notice when nobody is there any more."""

import socket

from meshllm.core.limits import TCP_PROBE_AFTER_S, TCP_PROBE_EVERY_S, TCP_PROBES
from meshllm.transport.tcp import prepare


def test_a_connection_has_all_options_that_the_system_has() -> None:
    """A machine that is switched off says nothing: TCP has to ask."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        prepare(sock)

        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in (
            ("TCP_KEEPIDLE", TCP_PROBE_AFTER_S), ("TCP_KEEPINTVL", TCP_PROBE_EVERY_S), ("TCP_KEEPCNT", TCP_PROBES),
        ):  # fmt: skip
            if (option := getattr(socket, name, None)) is not None:
                assert sock.getsockopt(socket.IPPROTO_TCP, option) == value


def test_a_socket_that_is_not_tcp_is_taken_as_it_is() -> None:
    """Programs on this machine are reached over sockets in the file system, too."""
    one, other = socket.socketpair()
    with one, other:
        prepare(one)

        assert not one.getblocking()
