"""Whose a connection on this machine is: which process listens at a port, and which one has connected to it.

Owns nothing. Decides nothing but that; a process counts with its children, since a guard may be between. Doesn't know
what is spoken. Blocks: on Linux for less than a millisecond, elsewhere for some.

Linux is asked for the one connection first. Only its yes counts, and that nobody listens: for a no, and where it does
not say, all connections of the process are read.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

import psutil

from meshllm.daemon import linux_sockets

LOOPBACK = "127.0.0.1"
ROOT = 0


def listens(pid: int, port: int) -> bool:
    """Tell whether a process listens at a port of loopback, and at nothing else."""
    if (told := _told_to_listen(pid, port)) is not None:
        return told
    listening = [connection.laddr for connection in _connections(pid) if connection.status == psutil.CONN_LISTEN]
    return listening == [(LOOPBACK, port)]


def is_stranger(pid: int, from_port: int, to_port: int) -> bool:
    """Tell whether somebody else than a process connected from one port of loopback to another.

    Where the system does not say what a process has open, nobody is one.
    """
    if _is_told_to_be_its(pid, from_port, to_port):
        return False
    try:
        return not any(
            connection.laddr == (LOOPBACK, from_port) and connection.raddr == (LOOPBACK, to_port)
            for connection in _seen(pid)
        )
    except psutil.AccessDenied:
        return False
    except (psutil.Error, OSError):
        return True


def is_own(theirs: object, ours: object) -> bool | None:
    """Tell by the socket names of both ends whether this process's user, or root, connected; None where nobody says.

    A connection whose other end was closed meanwhile has no owner any more: the kernel says root then, and is not
    believed.
    """
    if sys.platform != "linux" or not isinstance(theirs, tuple) or not isinstance(ours, tuple):
        return None
    try:
        end = linux_sockets.end(theirs, ours)
    except (OSError, ValueError):
        return None
    return end is not None and bool(end.inode) and end.uid in {ROOT, os.geteuid()}


def _told_to_listen(pid: int, port: int) -> bool | None:
    """Return whether Linux says that a process listens at a port alone; None where that is not certain."""
    if sys.platform != "linux":
        return None
    try:
        all_listening = linux_sockets.listening()
        if not any(one.port == port for one in all_listening):
            return False
        own = set(linux_sockets.inodes(pid))
    except OSError:
        return None
    found = [(one.address, one.port) for one in all_listening if one.inode in own]
    return True if found == [(linux_sockets.LOOPBACK, port)] else None


def _is_told_to_be_its(pid: int, from_port: int, to_port: int) -> bool:
    """Tell whether Linux says that a process has one end of a connection."""
    if sys.platform != "linux":
        return False
    try:
        inode = linux_sockets.connection(from_port, to_port)
        return bool(inode) and inode in linux_sockets.inodes(pid)
    except OSError:
        return False


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
