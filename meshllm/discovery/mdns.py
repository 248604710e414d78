"""Finds members of the mesh on the local network by multicast DNS, and lets itself be found.

Owns everything that touches zeroconf: sockets, our record, other nodes' records within bounds. Decides when the
record is made anew: with every change and every day. Doesn't know what a record says (`advert` does), nor whether it
is true (the handshake finds out).

Where multicast does not work, one line says so and it is tried again later; nothing else depends on it.
"""

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from meshllm.core.announcement import Address
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.limits import (
    LAN_ANSWER_TIMEOUT_S,
    LAN_CLOSE_TIMEOUT_S,
    LAN_RECORDS,
    LAN_RESOLVERS,
    LAN_RETRY_S,
)
from meshllm.discovery.advert import DAY_S, Advert, Heard, day_of, heard, node_of, properties

log = logging.getLogger(__name__)

SERVICE_TYPE = "_mesh-llm._udp.local."
_INSTANCE_BYTES = 6
_GROUP = "224.0.0.251"

# Its sentences about sockets are for its developers; ours say what people can do.
logging.getLogger("zeroconf").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshInReach:
    """A mesh on the local network, as a stranger sees it."""

    tag: str
    name: str
    """What its people called it; empty for most."""
    nodes: int


class Mdns:
    """Announces one node and listens for others while `run` runs."""

    def __init__(
        self,
        interfaces: Callable[[], Sequence[str]],
        on_found: Callable[[NodeId, tuple[Address, ...]], None],
        *,
        mesh: MeshId | None = None,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """Use the interfaces with these IPv4 addresses. `on_found` hears of members of `mesh`, again when they move."""
        self._interfaces = interfaces
        self._on_found = on_found
        self._mesh = mesh
        self._unix_s = unix_s
        self._advert: Advert | None = None
        self._changed = asyncio.Event()
        self._records: dict[str, Heard] = {}
        self._own = ""
        self._names: asyncio.Queue[str] = asyncio.Queue(LAN_RECORDS)
        self._said = ""

    def advertise(self, advert: Advert | None) -> None:
        """Say this from now on; None to listen only, as clients do."""
        if advert != self._advert:
            self._advert = advert
            self._changed.set()

    def look_again(self) -> None:
        """Begin anew: the machine's interfaces have changed."""
        self._changed.set()

    def meshes(self) -> tuple[MeshInReach, ...]:
        """Return the meshes that were heard of, the largest first. Complete only without a mesh of one's own."""
        counted = Counter(record.tag for record in self._records.values())
        names = {record.tag: record.mesh_name for record in self._records.values() if record.mesh_name}
        return tuple(
            MeshInReach(tag=tag, name=names.get(tag, ""), nodes=count)
            for tag, count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        )

    async def run(self) -> None:
        """Announce and listen until cancelled. Never fails: without multicast it tries again now and then."""
        while True:
            self._changed.clear()
            try:
                await self._session()
            except (OSError, ZeroconfError, RuntimeError) as error:
                self._say(f"nodes on the local network are not found by themselves: {error or type(error).__name__}")
                await self._change_within(LAN_RETRY_S)

    async def _session(self) -> None:
        """Announce and listen until something changes or the day ends. Raises OSError and zeroconf's errors."""
        interfaces = [host for host in self._interfaces() if _takes_multicast(host)]
        if not interfaces:
            msg = "no network interface takes multicast"
            raise OSError(msg)
        network = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)
        try:
            await network.zeroconf.async_wait_for_start()
            await self._announce(network)
            browser = AsyncServiceBrowser(network.zeroconf, SERVICE_TYPE, handlers=[self._on_change])
            self._say(f"looking for nodes on the local network through {', '.join(interfaces)}")
            try:
                await self._listen(network)
            finally:
                await browser.async_cancel()
        finally:
            with contextlib.suppress(TimeoutError, OSError, ZeroconfError):
                async with asyncio.timeout(LAN_CLOSE_TIMEOUT_S):
                    await network.async_close()

    async def _announce(self, network: AsyncZeroconf) -> None:
        advert = self._advert
        # A name that nobody can connect with the last one, and no machine's name in it.
        self._own = secrets.token_hex(_INSTANCE_BYTES)
        if advert is None:
            return
        info = AsyncServiceInfo(
            SERVICE_TYPE, f"{self._own}.{SERVICE_TYPE}", port=advert.port, server=f"{self._own}.local.",
            properties=properties(advert, self._own, day_of(self._unix_s())),
            parsed_addresses=[address.host for address in advert.addresses],
        )  # fmt: skip
        async with asyncio.timeout(LAN_CLOSE_TIMEOUT_S + LAN_ANSWER_TIMEOUT_S):
            await (await network.async_register_service(info))

    async def _listen(self, network: AsyncZeroconf) -> None:
        """Ask for the contents of the records that are heard of, until something changes or the day ends."""
        async with asyncio.TaskGroup() as group:
            workers = [
                group.create_task(self._resolve(network), name=f"mdns-{number}") for number in range(LAN_RESOLVERS)
            ]
            await self._change_within(DAY_S - self._unix_s() % DAY_S + 1.0)
            for worker in workers:
                worker.cancel()

    async def _change_within(self, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()

    def _on_change(self, *, name: str, state_change: ServiceStateChange, **_: object) -> None:
        instance = name.removesuffix(f".{SERVICE_TYPE}")
        if state_change is ServiceStateChange.Removed:
            self._records.pop(instance, None)
        elif instance != self._own:
            with contextlib.suppress(asyncio.QueueFull):  # a flood: what still lives is announced again
                self._names.put_nowait(name)

    async def _resolve(self, network: AsyncZeroconf) -> None:
        """Take up one record after the other."""
        while True:
            name = await self._names.get()
            try:
                info = AsyncServiceInfo(SERVICE_TYPE, name)
                if await info.async_request(network.zeroconf, LAN_ANSWER_TIMEOUT_S * 1000):
                    hosts = info.parsed_addresses(IPVersion.All)
                    self._hear(heard(name.removesuffix(f".{SERVICE_TYPE}"), info.port, hosts, info.properties))
            except (OSError, ZeroconfError) as error:
                log.debug("a record of the local network could not be read name=%r error=%s", name[:80], error)

    def _hear(self, record: Heard | None) -> None:
        """Remember a record that is new and of interest, and tell of a member."""
        if record is None or self._records.get(record.instance) == record:
            return
        node = None if self._mesh is None else node_of(record, self._mesh, self._unix_s())
        if self._mesh is not None and node is None:
            return
        if len(self._records) >= LAN_RECORDS and record.instance not in self._records:
            return
        self._records[record.instance] = record
        if node is not None:
            self._on_found(node, record.addresses)

    def _say(self, sentence: str) -> None:
        """Log a sentence, once until another is said."""
        if sentence != self._said:
            self._said = sentence
            log.info("%s", sentence)


def _takes_multicast(host: str) -> bool:
    """Tell whether an interface can be used. zeroconf would leave a socket open on finding out that it cannot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
            probe.setsockopt(
                socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(_GROUP) + socket.inet_aton(host)
            )
        except OSError as error:
            log.debug("no multicast through address=%s: %s", host, error)
            return False
    return True


async def meshes_in_reach(interfaces: Sequence[str], for_s: float) -> tuple[MeshInReach, ...]:
    """Listen for a while and return the meshes on the local network."""
    mdns = Mdns(lambda: interfaces, lambda *_: None)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            await mdns.run()
    return mdns.meshes()
