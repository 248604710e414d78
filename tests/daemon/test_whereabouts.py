"""What the core hears of addresses: this node's own, and those of others."""

import asyncio
from collections.abc import Sequence

from meshllm.core.addresses import PeerPlace
from meshllm.core.announcement import Address
from meshllm.core.events import AddressFound, Event, OwnAddressesChanged
from meshllm.core.ids import MeshId, NodeId
from meshllm.daemon.whereabouts import Reach, Whereabouts
from meshllm.discovery.bootstrap import Contact
from meshllm.inventory.addresses import InterfaceAddress

ME, PEER = NodeId("m" * 51 + "a"), NodeId("p" * 51 + "a")
REACH = {"node": ME, "mesh": MeshId("x" * 51 + "a"), "port": 4000, "uses_mdns": False}


class Core:
    """Keeps what it is told, and waits for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._came = asyncio.Event()

    def __call__(self, event: Event) -> None:
        """Keep one."""
        self.events.append(event)
        self._came.set()

    async def heard(self, count: int) -> list[Event]:
        """Wait for so many events."""
        async with asyncio.timeout(30):
            while len(self.events) < count:
                self._came.clear()
                await self._came.wait()
        return self.events


class Machine:
    """Interfaces that change."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts

    def __call__(self) -> Sequence[InterfaceAddress]:
        """Return those of this moment."""
        return [InterfaceAddress(host=host, interface="eth0", is_virtual=False) for host in self.hosts]


async def test_own_addresses_are_told_when_they_change() -> None:
    """A notebook that moves from one network to another."""
    core, machine = Core(), Machine("10.0.0.7")
    where = Whereabouts(Reach(**REACH), core, interfaces=machine)

    await where.look()
    await where.look()
    machine.hosts = ("192.168.1.7",)
    await where.look()

    assert core.events == [
        OwnAddressesChanged(addresses=(Address("10.0.0.7", 4000),)),
        OwnAddressesChanged(addresses=(Address("192.168.1.7", 4000),)),
    ]
    assert where.own == (Address("192.168.1.7", 4000),)


async def test_what_peers_see_and_people_say_is_added() -> None:
    """Behind a router both are needed; only the newest sights are kept."""
    core = Core()
    where = Whereabouts(
        Reach(**REACH, advertise=(Address("8.8.8.8", 0), Address("8.8.4.4", 5))), core, interfaces=Machine("10.0.0.7")
    )
    await where.look()

    for number in range(1, 7):
        where.observed(Address(f"1.1.1.{number}", 9))
    where.observed(Address("1.1.1.6", 9))

    assert where.own == (
        Address("10.0.0.7", 4000), Address("8.8.8.8", 4000), Address("8.8.4.4", 5),
        *(Address(f"1.1.1.{number}", 9) for number in (6, 5, 4, 3)),
    )  # fmt: skip
    assert len(core.events) == 7


async def test_node_that_is_bound_to_one_address_says_no_other() -> None:
    """Loopback too: that is how two nodes on one machine are tried out."""
    core = Core()
    where = Whereabouts(Reach(**REACH, bind_ip="127.0.0.1"), core, interfaces=Machine("10.0.0.7"))

    await where.look()

    assert where.own == (Address("127.0.0.1", 4000),)


async def test_contacts_are_told_with_their_source() -> None:
    """The core dials whom it wants."""
    core = Core()
    where = Whereabouts(Reach(**REACH), core, interfaces=Machine())

    where.first([Contact(node=PEER, addresses=(Address("192.0.2.1", 1),), source="token")])

    assert core.events == [AddressFound(peer=PEER, addresses=(Address("192.0.2.1", 1),), source="token")]


async def test_named_peers_are_looked_up_while_it_runs() -> None:
    """With the addresses of this moment."""

    async def lookup(host: str, port: int) -> Sequence[Address]:
        assert host == "desk"
        return (Address("192.0.2.1", port),)

    core = Core()
    where = Whereabouts(
        Reach(**REACH, peers=(PeerPlace(PEER, "desk", 7),)), core, interfaces=Machine("10.0.0.7"), lookup=lookup
    )
    running = asyncio.get_running_loop().create_task(where.run())

    events = await core.heard(2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert AddressFound(peer=PEER, addresses=(Address("192.0.2.1", 7),), source="flag") in events
    assert OwnAddressesChanged(addresses=(Address("10.0.0.7", 4000),)) in events


async def test_node_on_the_local_network_is_told_but_never_oneself() -> None:
    """An echo of one's own record is no news."""
    core = Core()
    where = Whereabouts(Reach(**REACH), core, interfaces=Machine())

    where._on_found(ME, (Address("192.0.2.1", 1),))
    where._on_found(PEER, (Address("192.0.2.1", 1),))

    assert core.events == [AddressFound(peer=PEER, addresses=(Address("192.0.2.1", 1),), source="lan")]
