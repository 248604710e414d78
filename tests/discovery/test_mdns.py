"""Nodes find one another by real multicast DNS over loopback, whatever else is said there."""

import asyncio
import base64
import hashlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from meshllm.core.announcement import Address
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.limits import LAN_RECORDS
from meshllm.discovery.advert import DAY_S, Advert, Heard, day_of, properties
from meshllm.discovery.mdns import SERVICE_TYPE, Mdns, MeshInReach, meshes_in_reach

LOOPBACK, MDNS = "127.0.0.1", ("224.0.0.251", 5353)
NOON_S = 20_000 * DAY_S + DAY_S / 2


def has_multicast() -> bool:
    """Tell whether what is sent to the group on loopback comes back: not in every container."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        try:
            for each in (listener, sender):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("", MDNS[1]))
            group = socket.inet_aton(MDNS[0]) + socket.inet_aton(LOOPBACK)
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            sender.sendto(struct.pack("!12x"), MDNS)
            listener.settimeout(1)
            return bool(listener.recv(9000))
        except OSError:
            return False


needs_multicast = pytest.mark.skipif(not has_multicast(), reason="multicast on loopback does not work here")


def a_node_id(name: str) -> NodeId:
    """Return the id of a node by a name."""
    return NodeId(base64.b32encode(hashlib.sha256(name.encode()).digest()).decode().rstrip("=").lower())


def a_mesh() -> MeshId:
    """Return a mesh that no other test on this machine has."""
    return MeshId(a_node_id(f"mesh of {id(asyncio.current_task())} {asyncio.get_running_loop().time()}"))


def an_advert(mesh: MeshId, name: str, **changes: object) -> Advert:
    """Return what a node says."""
    given = {"mesh": mesh, "node": a_node_id(name), "port": 4000, "addresses": (Address("192.0.2.7", 4000),)}
    return Advert(**(given | changes))


class Ear:
    """Keeps what was found, and waits for it."""

    def __init__(self) -> None:
        self.found: list[tuple[NodeId, tuple[Address, ...]]] = []
        self._came = asyncio.Event()

    def __call__(self, node: NodeId, addresses: tuple[Address, ...]) -> None:
        """Keep one."""
        self.found.append((node, addresses))
        self._came.set()

    async def until(self, is_enough: Callable[[], bool]) -> None:
        """Wait for a condition on what was found."""
        async with asyncio.timeout(45):
            while not is_enough():
                self._came.clear()
                await self._came.wait()


@asynccontextmanager
async def running(*nodes: Mdns) -> AsyncIterator[None]:
    """Run nodes."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node.run()) for node in nodes]
        yield
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def speaking(records: dict[str, dict[str, str | bytes]]) -> AsyncIterator[None]:
    """Let somebody else announce any records, by their names."""
    network = AsyncZeroconf(interfaces=[LOOPBACK], ip_version=IPVersion.V4Only)
    infos = [
        AsyncServiceInfo(
            SERVICE_TYPE, f"{name}.{SERVICE_TYPE}", port=4000, server="elsewhere.local.", properties=values,
            parsed_addresses=["192.0.2.9"],
        )
        for name, values in records.items()
    ]  # fmt: skip
    try:
        for announced in await asyncio.gather(*(network.async_register_service(info) for info in infos)):
            await announced
        yield
    finally:
        await network.async_close()


@needs_multicast
async def test_members_find_one_another() -> None:
    """Each learns the other's identity and addresses, and never hears of itself."""
    mesh, one_hears, two_hears = a_mesh(), Ear(), Ear()
    one = Mdns(lambda: [LOOPBACK], one_hears, mesh=mesh)
    two = Mdns(lambda: [LOOPBACK], two_hears, mesh=mesh)
    one.advertise(an_advert(mesh, "one"))
    two.advertise(an_advert(mesh, "two", port=5000, addresses=(Address("192.0.2.8", 5000), Address("fd00::8", 5000))))

    async with running(one, two):
        await one_hears.until(lambda: bool(one_hears.found))
        await two_hears.until(lambda: bool(two_hears.found))

    assert one_hears.found == [(a_node_id("two"), (Address("192.0.2.8", 5000), Address("fd00::8", 5000)))]
    assert two_hears.found == [(a_node_id("one"), (Address("192.0.2.7", 4000),))]


@needs_multicast
async def test_member_that_moves_is_found_again_and_other_meshes_are_not() -> None:
    """A notebook that changes networks; the neighbours' mesh."""
    mesh, ear = a_mesh(), Ear()
    listener = Mdns(lambda: [LOOPBACK], ear, mesh=mesh)
    mover = Mdns(lambda: [LOOPBACK], Ear(), mesh=mesh)
    neighbour = Mdns(lambda: [LOOPBACK], Ear(), mesh=MeshId("x" * 52))
    mover.advertise(an_advert(mesh, "mover"))
    neighbour.advertise(an_advert(MeshId("x" * 52), "neighbour"))

    async with running(listener, mover, neighbour):
        await ear.until(lambda: bool(ear.found))
        mover.advertise(an_advert(mesh, "mover", addresses=(Address("192.0.2.77", 4000),)))
        await ear.until(lambda: len(ear.found) > 1)

    assert {node for node, _ in ear.found} == {a_node_id("mover")}
    assert ear.found[-1][1] == (Address("192.0.2.77", 4000),)


@needs_multicast
async def test_nonsense_does_not_hide_a_member() -> None:
    """Whoever is in the network can say anything, under our service's name too."""
    mesh, ear = a_mesh(), Ear()
    listener = Mdns(lambda: [LOOPBACK], ear, mesh=mesh)
    member = Mdns(lambda: [LOOPBACK], Ear(), mesh=mesh)
    member.advertise(an_advert(mesh, "member"))
    good = properties(an_advert(mesh, "member"), "other", day_of(0))

    async with (
        running(listener),
        speaking({"garbage": {"v": b"\xff" * 200}, "half": {**good, "n": b"short"}, "a b\u2028c": {}}),
        running(member),
    ):
        await ear.until(lambda: bool(ear.found))

    assert [node for node, _ in ear.found] == [a_node_id("member")]


@needs_multicast
async def test_stranger_sees_the_meshes_in_reach() -> None:
    """`--join lan` lists them: how many nodes, and a name where somebody gave one."""
    mesh, ear = a_mesh(), Ear()
    nodes = [Mdns(lambda: [LOOPBACK], ear, mesh=mesh) for _ in range(2)]
    for name, node in zip(("one", "two"), nodes, strict=True):
        node.advertise(an_advert(mesh, name, mesh_name="home"))

    async with running(*nodes):
        await ear.until(lambda: len(ear.found) > 1)
        seen: list[tuple[str, int]] = []
        for listen_s in (1, 2, 4, 8):  # however long a busy machine takes to answer
            meshes = await meshes_in_reach([LOOPBACK], listen_s)
            seen = [(each.name, each.nodes) for each in meshes if each.name == "home"]
            if seen == [("home", 2)]:
                break

    assert seen == [("home", 2)]


@pytest.mark.parametrize("hosts", [[], ["203.0.113.200"]], ids=["no network", "an address that is gone"])
async def test_without_multicast_one_line_says_so(hosts: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Nothing else of the node depends on it; the next tries are quiet until something changes."""
    tried = asyncio.Event()

    def interfaces() -> list[str]:
        tried.set()
        return hosts

    node = Mdns(interfaces, Ear())
    with caplog.at_level(logging.INFO, logger="meshllm"):
        async with running(node), asyncio.timeout(30):
            for _ in range(3):
                await tried.wait()
                tried.clear()
                node.look_again()

    assert [record.getMessage() for record in caplog.records] == [
        "nodes on the local network are not found by themselves: no network interface takes multicast"
    ]


def a_record(instance: int, tag: str = "t") -> Heard:
    """Return something heard."""
    return Heard(instance=str(instance), tag=tag, hidden_node=b"n" * 32, addresses=(Address("192.0.2.9", 1),))


async def test_flood_of_records_is_bounded() -> None:
    """Memory does not grow with what strangers say."""
    node = Mdns(lambda: [LOOPBACK], Ear())

    for number in range(LAN_RECORDS * 2):
        node._hear(a_record(number))

    assert node.meshes() == (MeshInReach(tag="t", name="", nodes=LAN_RECORDS),)


async def test_records_of_others_take_no_room_in_a_mesh() -> None:
    """A node remembers members only."""
    mesh = a_mesh()
    node = Mdns(lambda: [LOOPBACK], Ear(), mesh=mesh, unix_s=lambda: NOON_S)

    node._hear(a_record(1))

    assert node.meshes() == ()
