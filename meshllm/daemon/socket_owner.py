"""Whose a connection on this machine is: which process listens at a port, and which one has connected to it.

Owns nothing. Decides nothing but that; a process counts with its children, since a guard may be between. Doesn't know
what is spoken. Blocks for some milliseconds.
"""

from collections.abc import Iterator
from typing import Any

import psutil

LOOPBACK = "127.0.0.1"


def listens(pid: int, port: int) -> bool:
    """Tell whether a process listens at a port of loopback, and at nothing else."""
    listening = [connection.laddr for connection in _connections(pid) if connection.status == psutil.CONN_LISTEN]
    return listening == [(LOOPBACK, port)]


def is_stranger(pid: int, from_port: int, to_port: int) -> bool:
    """Tell whether somebody else than a process connected from one port of loopback to another.

    Where the system does not say what a process has open, nobody is one.
    """
    try:
        return not any(
            connection.laddr == (LOOPBACK, from_port) and connection.raddr == (LOOPBACK, to_port)
            for connection in _seen(pid)
        )
    except psutil.AccessDenied:
        return False
    except (psutil.Error, OSError):
        return True


def _connections(pid: int) -> Iterator[Any]:
    try:
        yield from _seen(pid)
    except (psutil.Error, OSError):
        return


def _seen(pid: int) -> Iterator[Any]:
    """Yield the connections of a process. Raises psutil.Error, OSError."""
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        yield from one.net_connections("tcp")
