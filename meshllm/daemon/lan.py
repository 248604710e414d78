"""The local network as the daemon uses it: through which interfaces, and a look at what is there.

Owns the choice of interfaces. Doesn't know what is said there: `discovery` does.
"""

from collections.abc import Sequence

from meshllm.core.limits import LAN_LOOK_S
from meshllm.discovery import mdns
from meshllm.inventory.addresses import InterfaceAddress, interface_addresses


def multicast_hosts(bind_ip: str, found: Sequence[InterfaceAddress] | None = None) -> list[str]:
    """Return the IPv4 addresses of this machine through which other machines can be heard.

    With an address to bind to it is that one alone; otherwise bridges to containers are left out.
    """
    if bind_ip:
        return [bind_ip] if "." in bind_ip else []
    found = interface_addresses() if found is None else found
    return [each.host for each in found if not each.is_virtual and "." in each.host]


async def meshes(hosts: Sequence[str], look_s: float = LAN_LOOK_S) -> tuple[tuple[str, str, int], ...]:
    """Listen for a moment; return (tag, name, nodes) of each mesh on the local network."""
    return tuple((mesh.tag, mesh.name, mesh.nodes) for mesh in await mdns.meshes_in_reach(hosts, look_s))
