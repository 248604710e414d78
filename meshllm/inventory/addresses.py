"""Measures where this machine stands in networks: the addresses of its interfaces, the most useful first.

Owns the reading of psutil. Decides which interfaces are no way to other machines: loopback, those that are down, and
link-local addresses; bridges of containers and virtual machines come last, as other machines have the same
addresses on theirs. Doesn't know ports, nor what peers see.
"""

import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from meshllm.core.limits import INTERFACE_ADDRESSES

_VIRTUAL = re.compile(
    r"(docker|br-|veth|virbr|vmnet|vboxnet|vEthernet|cni|flannel|cali|lxc|lxd|incus|podman|bridge|kube|nerdctl|dummy|ifb)"
)
_TUNNEL = re.compile(r"(tailscale|zt|wg|utun|tun|tap|ppp|nebula|ham)")
"""Networks over the internet: they reach far, but slower than a wire."""


class _Place(Protocol):
    """What psutil says of one address."""

    @property
    def family(self) -> int:
        """Return the kind of address."""

    @property
    def address(self) -> str:
        """Return its text."""


class _Link(Protocol):
    """What psutil says of one interface."""

    @property
    def isup(self) -> bool:
        """Tell whether it can be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceAddress:
    """An address of this machine that others may use."""

    host: str
    interface: str
    is_virtual: bool
    """Of a bridge for containers or virtual machines on this machine."""


def interface_addresses(
    places: Mapping[str, Sequence[_Place]] | None = None, links: Mapping[str, _Link] | None = None
) -> tuple[InterfaceAddress, ...]:
    """Return this machine's addresses in the order in which others should try them. Empty without a network.

    IPv4 comes before IPv6 on the same kind of interface: fewer networks drop it.
    """
    places = psutil.net_if_addrs() if places is None else places
    links = psutil.net_if_stats() if links is None else links
    found = [
        (address, name)
        for name, entries in places.items()
        if name in links and links[name].isup
        for entry in entries
        if (address := _usable(entry)) is not None
    ]
    found.sort(key=lambda item: (_distance(item[1]), item[0].version, not item[0].is_private))
    return tuple(
        InterfaceAddress(host=str(address), interface=name, is_virtual=_VIRTUAL.match(name) is not None)
        for address, name in found[:INTERFACE_ADDRESSES]
    )


def _usable(entry: _Place) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if entry.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        address = ipaddress.ip_address(entry.address.partition("%")[0])
    except ValueError:
        return None
    useless = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    return None if useless else address


def _distance(name: str) -> int:
    if _VIRTUAL.match(name):
        return 2
    return 1 if _TUNNEL.match(name) else 0
