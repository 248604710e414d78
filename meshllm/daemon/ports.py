"""Who holds a TCP port, for the message that says so."""

import psutil


def holder_of(port: int) -> str:
    """Return `process 4711 (nginx)` for whoever listens on a port, or that it cannot be seen."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return "another program (not visible to this user)"
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            try:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
            except psutil.Error:
                return f"process {connection.pid}"
    return "another program (not visible to this user)"
