"""Who holds a TCP port, for the messages that say so."""

import psutil

from meshllm.core.redaction import redacted_command


def holder_of(port: int) -> str | None:
    """Return `process 4711 (nginx)` for whoever listens on a port, or None if nobody is seen to."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            return "a process of another user" if connection.pid is None else _named(connection.pid)
    return None


def _named(pid: int) -> str:
    try:
        return f"process {pid} ({redacted_command(psutil.Process(pid).cmdline()[:4]) or psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"
