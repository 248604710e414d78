"""Addresses as people write them and as networks mean them: reading, sorting, and which are worth a try.

Owns the grammar of `host:port` and `host:port#nodeid`, and the order in which a node's addresses are tried. Decides
which addresses nobody ever dials. Doesn't know where an address came from.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from meshllm.core.announcement import Address
from meshllm.core.ids import ID_CHARS, NodeId

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_NODE = re.compile(rf"[a-z2-7]{{{ID_CHARS}}}")
_NAME_CHARS = 253
_SHARED = ipaddress.ip_network("100.64.0.0/10")
"""What carriers and VPNs such as Tailscale use behind their own translation."""


@dataclass(frozen=True, slots=True)
class PeerPlace:
    """A peer as somebody named it: its id, and a host that may be a name."""

    node: NodeId
    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written on the command line."""
        return f"{Address(self.host, self.port)}#{self.node}"


def parse_peer(text: str) -> PeerPlace:
    """Return what `host:port#nodeid` says. Raises ValueError for people."""
    place, mark, node = text.strip().partition("#")
    if not mark or not node:
        raise ValueError(f"expected host:port#nodeid, not {_shown(text)}: the id of the node has to stand behind a '#'")
    if not _NODE.fullmatch(node.lower()):
        raise ValueError(f"{_shown(node)} is no node id: it has {ID_CHARS} letters a to z and digits 2 to 7")
    host, port = _split(place, None)
    return PeerPlace(NodeId(node.lower()), host, port)


def parse_address(text: str, default_port: int | None = None) -> Address:
    """Return the address that `192.0.2.7:4000`, `[2001:db8::7]:4000` or, with a default, `192.0.2.7` means.

    Raises ValueError for people; also for names, because an address is what other machines are given.
    """
    host, port = _split(text.strip(), default_port)
    try:
        return Address(str(ipaddress.ip_address(host)), port)
    except ValueError:
        raise ValueError(f"expected an IP address, not the name {_shown(host)}") from None


def is_dialable(address: Address) -> bool:
    """Tell whether another machine could be at this address at all."""
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    useless = ip.is_loopback or ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip.is_reserved
    return not useless and str(ip) != "255.255.255.255" and 0 < address.port < 65_536


def sorted_addresses(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Return addresses without repetition: the local network first, public ones last, otherwise as they came."""
    return tuple(sorted(dict.fromkeys(addresses), key=_distance))


def _distance(address: Address) -> int:
    ip = ipaddress.ip_address(address.host)
    if ip.version == 4 and ip in _SHARED:
        return 1
    return 0 if ip.is_private else 2


def _split(place: str, default_port: int | None) -> tuple[str, int]:
    """Return host and port; the host is an IP address in plain form, or a name."""
    host, port = _apart(place)
    if not port and default_port is not None:
        return _host(host, place), default_port
    if not port:
        raise ValueError(f"expected host:port, not {_shown(place)}: the port is missing")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65_536):
        raise ValueError(f"expected a port from 1 to 65535, not {_shown(port)}")
    return _host(host, place), int(port)


def _apart(place: str) -> tuple[str, str]:
    if place.startswith("["):
        host, closing, rest = place[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            raise ValueError(f"expected [IPv6 address]:port, not {_shown(place)}")
        return host, rest[1:]
    if place.count(":") > 1:
        raise ValueError(f"an IPv6 address needs brackets: [{place[:60]}]:port")
    host, _, port = place.partition(":")
    return host, port


def _host(host: str, place: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    looks_numeric = bool(host) and all(part.isdigit() for part in host.split("."))
    if looks_numeric or len(host) > _NAME_CHARS or not _NAME.fullmatch(host):
        raise ValueError(f"{_shown(host or place)} is no host: expected an IP address or a name")
    return host.lower().rstrip(".")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
