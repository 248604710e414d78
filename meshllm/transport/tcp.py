"""How TCP between nodes is set up.

Owns the options of such sockets. Decides nothing. Doesn't know what runs over them.
"""

import contextlib
import socket

from meshllm.core.limits import TCP_PROBE_AFTER_S, TCP_PROBE_EVERY_S, TCP_PROBES

_OPTIONS = (
    ("TCP_KEEPIDLE", TCP_PROBE_AFTER_S),
    ("TCP_KEEPINTVL", TCP_PROBE_EVERY_S),
    ("TCP_KEEPCNT", TCP_PROBES),
    ("TCP_USER_TIMEOUT", 1000 * (TCP_PROBE_AFTER_S + TCP_PROBE_EVERY_S * TCP_PROBES)),
)
"""What a system calls them, as far as it has them; the last one in milliseconds."""


def prepare(sock: socket.socket) -> None:
    """Let a socket never wait, send small messages at once, and notice when nobody is there any more."""
    sock.setblocking(False)
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    options += [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _OPTIONS if hasattr(socket, name)]
    for level, option, value in options:
        with contextlib.suppress(OSError):  # not every kind of socket has it
            sock.setsockopt(level, option, value)
