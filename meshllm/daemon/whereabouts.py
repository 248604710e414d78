"""Keeps track of where this node can be reached and where others may be, and tells the core.

Owns the rhythm of looking at interfaces, names and the local network. Decides nothing: what is found becomes an
`OwnAddressesChanged` or an `AddressFound`. Doesn't dial.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshllm.core.addresses import PeerPlace
from meshllm.core.announcement import Address
from meshllm.core.events import AddressFound, Event, OwnAddressesChanged
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.limits import INTERFACES_INTERVAL_S, NAME_LOOKUP_INTERVAL_S, OBSERVED_ADDRESSES
from meshllm.daemon.lan import multicast_hosts
from meshllm.discovery.advert import Advert
from meshllm.discovery.bootstrap import Contact, Lookup, look_up, named_contacts, own_addresses
from meshllm.discovery.mdns import Mdns
from meshllm.inventory.addresses import InterfaceAddress, interface_addresses

log = logging.getLogger(__name__)

Interfaces = Callable[[], Sequence[InterfaceAddress]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How a node is to be reached, as it was told."""

    node: NodeId
    mesh: MeshId
    port: int
    """UDP port of its QUIC endpoint."""
    mesh_name: str = ""
    bind_ip: str = ""
    advertise: tuple[Address, ...] = ()
    """Port 0 stands for `port`."""
    peers: tuple[PeerPlace, ...] = ()
    is_client: bool = False
    """A client listens on the local network and says nothing there."""
    uses_mdns: bool = True
    bulk_port: int = 0
    """TCP port of its bulk plane; 0 without one."""


class Whereabouts:
    """One node's own addresses and first contacts, while `run` runs."""

    def __init__(
        self, reach: Reach, post: Callable[[Event], None], *, interfaces: Interfaces = interface_addresses,
        lookup: Lookup = look_up,
    ) -> None:  # fmt: skip
        """Tell `post` what is found."""
        self._reach = reach
        self._post = post
        self._interfaces = interfaces
        self._lookup = lookup
        self._found: tuple[InterfaceAddress, ...] = ()
        self._observed: tuple[Address, ...] = ()
        self._own: tuple[Address, ...] = ()
        self._mdns = Mdns(lambda: multicast_hosts(reach.bind_ip, self._found), self._on_found, mesh=reach.mesh)

    @property
    def own(self) -> tuple[Address, ...]:
        """Return where this node can be reached, the most useful first: what a token carries too."""
        return self._own

    def observed(self, address: Address) -> None:
        """Take note of where a peer saw this node: behind a router it does not know by itself."""
        if address not in self._observed:
            self._observed = (address, *self._observed)[:OBSERVED_ADDRESSES]
            self._tell()

    def first(self, contacts: Sequence[Contact]) -> None:
        """Tell the core of contacts from tokens and the roster."""
        for contact in contacts:
            self._post(AddressFound(peer=contact.node, addresses=contact.addresses, source=contact.source))

    async def look(self) -> None:
        """Look at the interfaces once; `run` does it again and again."""
        found = tuple(await asyncio.to_thread(self._interfaces))
        if found != self._found:
            self._found = found
            self._mdns.look_again()
        self._tell()

    async def run(self) -> None:
        """Look at interfaces, names and the local network until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="own-addresses")
            if self._reach.peers:
                group.create_task(self._look_up(), name="named-peers")
            if self._reach.uses_mdns:
                group.create_task(self._mdns.run(), name="mdns")

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(INTERFACES_INTERVAL_S)

    async def _look_up(self) -> None:
        """Look up named peers now and then: a home's address changes."""
        while True:
            self.first(await named_contacts(self._reach.node, self._reach.peers, self._lookup))
            await asyncio.sleep(NAME_LOOKUP_INTERVAL_S)

    def _tell(self) -> None:
        """Tell the core and the local network, where something has changed."""
        reach = self._reach
        hosts = [reach.bind_ip] if reach.bind_ip else [each.host for each in self._found]
        advertised = [Address(address.host, address.port or reach.port) for address in reach.advertise]
        own = own_addresses(hosts, reach.port, observed=self._observed, advertised=advertised)
        if own == self._own:
            return
        self._own = own
        log.info("reachable at addresses=%s", ", ".join(map(str, own)) or "none")
        self._post(OwnAddressesChanged(addresses=own, bulk_port=reach.bulk_port))
        if not reach.is_client and own:
            self._mdns.advertise(
                Advert(mesh=reach.mesh, node=reach.node, port=reach.port, addresses=own, mesh_name=reach.mesh_name)
            )

    def _on_found(self, node: NodeId, addresses: tuple[Address, ...]) -> None:
        if node != self._reach.node:
            self._post(AddressFound(peer=node, addresses=addresses, source="lan"))
