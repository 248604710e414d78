"""What a node says of itself on the local network, as the values of a DNS-SD record; and what it hears there.

Owns the tag that members of one mesh recognise and the hiding of node ids from everybody else. Decides which
records are worth nothing. Doesn't know sockets: `mdns` does. See docs/decisions/0012.

Nothing heard here is believed: it says where to dial, and the handshake proves who answers.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshllm.core.addresses import is_dialable, sorted_addresses
from meshllm.core.announcement import Address
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.limits import LAN_ADDRESSES, LAN_NAME_BYTES, LAN_RECORD_BYTES
from meshllm.wire.ids import ID_BYTES, id_bytes, id_text

DAY_S = 86_400
_TAG_BYTES = 12
_VERSION = b"1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advert:
    """What a node tells members of its mesh on the local network."""

    mesh: MeshId
    node: NodeId
    port: int
    """UDP port of its QUIC endpoint."""
    addresses: tuple[Address, ...]
    mesh_name: str = ""
    """Shown in clear to everybody on the network; empty unless somebody gave the mesh a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A record of somebody else, within bounds but unproven."""

    instance: str
    tag: str
    """The same for all nodes of a mesh on one day; says nothing to strangers."""
    hidden_node: bytes
    addresses: tuple[Address, ...]
    mesh_name: str = ""


def day_of(unix_s: float) -> int:
    """Return the UTC day, counted from 1970."""
    return int(unix_s // DAY_S)


def mesh_tag(mesh: MeshId, day: int) -> str:
    """Return what the nodes of a mesh are recognised by on one day."""
    return hashlib.sha256(f"meshllm lan tag\0{mesh}\0{day}".encode()).hexdigest()[: _TAG_BYTES * 2]


def properties(advert: Advert, instance: str, day: int) -> dict[str, str | bytes]:
    """Return the TXT values of an advert under an instance name."""
    values: dict[str, str | bytes] = {
        "v": _VERSION, "t": mesh_tag(advert.mesh, day), "n": _pad(id_bytes(advert.node), advert.mesh, instance),
    }  # fmt: skip
    if advert.mesh_name:
        values["m"] = advert.mesh_name.encode()[:LAN_NAME_BYTES].decode(errors="ignore")
    return values


def heard(instance: str, port: int | None, hosts: Sequence[str], values: Mapping[bytes, bytes | None]) -> Heard | None:
    """Return a record that was received, or None when it is not one of ours or is out of bounds."""
    if sum(len(key) + len(value or b"") for key, value in values.items()) > LAN_RECORD_BYTES:
        return None
    tag, hidden, name = values.get(b"t") or b"", values.get(b"n") or b"", values.get(b"m") or b""
    if values.get(b"v") != _VERSION or len(hidden) != ID_BYTES or len(tag) != _TAG_BYTES * 2 or not tag.isalnum():
        return None
    addresses = [Address(host, port or 0) for host in hosts[: LAN_ADDRESSES * 4]]
    usable = sorted_addresses(address for address in addresses if is_dialable(address))[:LAN_ADDRESSES]
    if not usable:
        return None
    text = name[:LAN_NAME_BYTES].decode(errors="ignore")
    shown = "".join(char for char in text if char.isprintable())
    return Heard(instance=instance, tag=tag.decode(), hidden_node=hidden, addresses=usable, mesh_name=shown)


def node_of(record: Heard, mesh: MeshId, unix_s: float) -> NodeId | None:
    """Return which node of my mesh a record speaks of, or None when it is of another mesh.

    Clocks may be hours apart, so the days before and after count too.
    """
    day = day_of(unix_s)
    if record.tag not in {mesh_tag(mesh, near) for near in (day - 1, day, day + 1)}:
        return None
    raw = _pad(record.hidden_node, mesh, record.instance)
    return NodeId(id_text(raw))


def _pad(raw: bytes, mesh: MeshId, instance: str) -> bytes:
    """Hide or reveal a node id: whoever knows the mesh can, and an instance name is used once."""
    pad = hashlib.sha256(f"meshllm lan node\0{mesh}\0{instance}".encode()).digest()
    return bytes(left ^ right for left, right in zip(raw, pad, strict=True))
