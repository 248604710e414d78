"""How many clients a process has room for.

Owns what the system says about that. Decides the share of open files that is left for clients, and which addresses
are this machine's own. Doesn't know connections.
"""

from ipaddress import ip_address

from meshllm.core import limits


def descriptors_for_clients() -> int:
    """Return how many connections the limit on open files leaves for clients; each may need a second one."""
    try:
        import resource  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return limits.CONNECTIONS_TOTAL
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.CONNECTIONS_TOTAL
    return max(soft // limits.DESCRIPTORS_SHARE, 1)


def is_loopback(address: str) -> bool:
    """Tell whether an address, empty for a Unix socket, is of this machine."""
    try:
        return address == "" or ip_address(address).is_loopback
    except ValueError:
        return False
