"""First addresses: whom a node knows before anybody has told it anything, and where it says it can be reached.

Owns joining what tokens, the roster and flags say, and looking up the names among them. Decides the order: a
node's own addresses with the local network first. Doesn't dial, doesn't read files or tokens.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from meshllm.core.addresses import PeerPlace, is_dialable, sorted_addresses
from meshllm.core.announcement import Address
from meshllm.core.ids import NodeId
from meshllm.core.limits import LAN_ADDRESSES, NAME_LOOKUP_TIMEOUT_S, OWN_ADDRESSES

log = logging.getLogger(__name__)

Known = tuple[NodeId, tuple[Address, ...]]
Lookup = Callable[[str, int], Awaitable[Sequence[Address]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A node that may be dialled, and where."""

    node: NodeId
    addresses: tuple[Address, ...]
    source: str
    """`token`, `roster` or `flag`: as in `AddressFound`."""


def first_contacts(me: NodeId, tokens: Iterable[Known], roster: Iterable[Known]) -> tuple[Contact, ...]:
    """Return whom tokens and the roster name, once for each node and source; never this node itself."""
    contacts: dict[tuple[NodeId, str], tuple[Address, ...]] = {}
    for source, entries in (("token", tokens), ("roster", roster)):
        for node, addresses in entries:
            if node != me and addresses:
                key = (node, source)
                contacts[key] = tuple(dict.fromkeys((*contacts.get(key, ()), *addresses)))
    return tuple(
        Contact(node=node, addresses=addresses, source=source) for (node, source), addresses in contacts.items()
    )


async def named_contacts(me: NodeId, peers: Sequence[PeerPlace], lookup: Lookup | None = None) -> tuple[Contact, ...]:
    """Return the peers of `--peer` with their addresses; one whose name nobody knows is left out, and said."""
    found = await asyncio.gather(*(_addresses_of(peer, lookup or look_up) for peer in peers if peer.node != me))
    by_node: dict[NodeId, tuple[Address, ...]] = {}
    for peer, addresses in zip((peer for peer in peers if peer.node != me), found, strict=True):
        by_node[peer.node] = tuple(dict.fromkeys((*by_node.get(peer.node, ()), *addresses)))
    return tuple(
        Contact(node=node, addresses=addresses, source="flag") for node, addresses in by_node.items() if addresses
    )


async def look_up(host: str, port: int) -> tuple[Address, ...]:
    """Return the addresses of a host's name; an address stands for itself. Raises OSError."""
    async with asyncio.timeout(NAME_LOOKUP_TIMEOUT_S):
        answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    return tuple(dict.fromkeys(Address(str(place[0]), port) for *_, place in answers))[:LAN_ADDRESSES]


def own_addresses(
    interfaces: Sequence[str], port: int, *, observed: Sequence[Address] = (), advertised: Sequence[Address] = ()
) -> tuple[Address, ...]:
    """Return where this node says that it can be reached, at most eight: what is advertised is never left out.

    `interfaces` are the machine's addresses, the most useful first; `observed` is where peers saw this node.
    A node that was bound to loopback says so: it can be reached from its machine only.
    """
    own = [Address(host, port) for host in interfaces]
    near = [address for address in own if is_dialable(address)] or own
    kept = dict.fromkeys((*near, *(address for address in observed if is_dialable(address))))
    others = [address for address in kept if address not in advertised]
    room = max(OWN_ADDRESSES - len(advertised), 0)
    return sorted_addresses((*advertised[:OWN_ADDRESSES], *others[:room]))


async def _addresses_of(peer: PeerPlace, lookup: Lookup) -> Sequence[Address]:
    try:
        return await lookup(peer.host, peer.port)
    except OSError as error:
        reason = "the lookup took too long" if isinstance(error, TimeoutError) else error.strerror or str(error)
        log.warning("no address is known for %s: %s", peer.host, reason)
        return ()
