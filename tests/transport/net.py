"""Two endpoints in one process, over real sockets on loopback; and a path between them that can be bent."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from meshllm.core.announcement import Address
from meshllm.transport.codes import Priority
from meshllm.transport.connection import Closing, Connection
from meshllm.transport.endpoint import Endpoint, EndpointSettings
from meshllm.transport.identity import Identity
from meshllm.transport.stream import Stream

WITHIN_S = 30.0
LOOPBACK = "127.0.0.1"
LOOK_S = 0.002


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until something is so."""
    nothing = asyncio.Event()
    try:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await nothing.wait()
    except TimeoutError:
        raise AssertionError(f"{what} did not come true in {WITHIN_S} s") from None


async def ended(*takers: "Taker") -> None:
    """Wait until streams are over for their users."""
    await until(lambda: all(taker.is_lost for taker in takers), "the end of a stream")


async def asked(taker: "Taker") -> None:
    """Wait until the other side has ended its direction."""
    await until(lambda: taker.has_end, "the end of the other side's words")


async def came(taker: "Taker", data: bytes) -> None:
    """Wait until exactly this has come."""
    await until(lambda: taker.data == data, repr(data))


class Taker(asyncio.Protocol):
    """Records what a stream brings."""

    def __init__(self, *, keeps_half_open: bool = True) -> None:
        self.data = bytearray()
        self.taken_bytes = 0
        self.has_end = False
        self.is_held_back = False
        self.held_back = 0
        self.lost: list[Any] = []
        self.keeps_half_open = keeps_half_open

    def data_received(self, data):
        """Keep the bytes."""
        self.data += data
        self.taken_bytes += len(data)

    def eof_received(self):
        """Keep that the end has come."""
        self.has_end = True
        return self.keeps_half_open

    def pause_writing(self):
        """Keep that there is no room."""
        assert not self.is_held_back
        self.is_held_back = True
        self.held_back += 1

    def resume_writing(self):
        """Keep that there is room."""
        assert self.is_held_back
        self.is_held_back = False

    def connection_lost(self, exc):
        """Keep how it ended."""
        self.lost.append(exc)

    @property
    def is_lost(self) -> bool:
        """Tell whether it is over; it must not be told twice."""
        assert len(self.lost) < 2
        return bool(self.lost)


class Counter(Taker):
    """Counts what comes, and keeps none of it."""

    def data_received(self, data):
        """Count."""
        self.taken_bytes += len(data)


@dataclass
class Side:
    """One end of a connection, and what the other end opened on it."""

    connection: Connection
    make: Callable[[], Taker] = Taker
    streams: list[tuple[Stream, Taker]] = field(default_factory=list)
    closings: list[Closing] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection.on_stream = self.take
        self.connection.on_closed = self.closings.append

    def take(self, stream: Stream) -> None:
        """Record a stream that the other side opened."""
        taker = self.make()
        stream.set_protocol(taker)
        self.streams.append((stream, taker))

    def open(self, taker: Taker | None = None, priority: Priority = Priority.TOKENS) -> tuple[Stream, Taker]:
        """Open a stream."""
        stream, taker = self.connection.open_stream(priority), taker or self.make()
        stream.set_protocol(taker)
        return stream, taker


@dataclass
class Pair:
    """Two endpoints and the connection between them. `near` dialled."""

    near: Side
    far: Side
    near_end: Endpoint
    far_end: Endpoint

    async def opened(self, data: bytes = b"x") -> tuple[Stream, Taker, Stream, Taker]:
        """Open a stream with a first write; return both of its ends."""
        known = len(self.far.streams)
        stream, taker = self.near.open()
        stream.write(data)
        await until(lambda: len(self.far.streams) > known, "a stream at the other side")
        return stream, taker, *self.far.streams[known]


def listening(opened: Endpoint) -> list[Side]:
    """Take whoever dials, and return who did."""
    sides: list[Side] = []
    opened.on_accept = lambda connection: sides.append(Side(connection))
    return sides


@asynccontextmanager
async def endpoint(host: str = LOOPBACK, **settings) -> AsyncIterator[Endpoint]:
    """An open endpoint with a key of its own."""
    opened = await Endpoint.open(Identity.generate(), host, 0, EndpointSettings(**settings))
    try:
        yield opened
    finally:
        opened.close()
        for relay in tuple(
            Relay.opened
        ):  # a socket that a failed test leaves would hold up the end of its loop for ever
            relay.close()


@asynccontextmanager
async def pair(
    *, make: Callable[[], Taker] = Taker, is_admitted: bool = True, through: "Relay | None" = None, **settings
) -> AsyncIterator[Pair]:
    """Two connected endpoints. `through`: a relay that stands between them."""
    async with endpoint(**settings) as far_end, endpoint(**settings) as near_end:
        accepted: list[Side] = []
        far_end.on_accept = lambda connection: accepted.append(Side(connection, make))
        address = far_end.address if through is None else await through.open(far_end.address)
        try:
            dialled = await near_end.dial(address, far_end.node, WITHIN_S)
            found = Pair(Side(dialled, make), accepted[0], near_end, far_end)
            if is_admitted:
                found.near.connection.admit()
                found.far.connection.admit()
            yield found
        finally:
            if through is not None:
                through.close()


class Relay(asyncio.DatagramProtocol):
    """A path between a dialler and an acceptor. `rebind` gives the dialler another port, as a router may."""

    opened: ClassVar[list["Relay"]] = []
    """Those that are not closed."""

    def __init__(self) -> None:
        self.passes: Callable[[bytes, bool], bool] = lambda data, is_forth: True
        """Asked of every datagram."""
        self.seen: list[tuple[bytes, bool]] = []
        self._forth: Any = None
        self._back: Any = None
        self._server: Any = None
        self._client: Any = None

    async def open(self, server: Address) -> Address:
        """Listen for the dialler."""
        self.opened.append(self)
        self._server = (server.host, server.port)
        loop = asyncio.get_running_loop()
        self._back, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(LOOPBACK, 0))
        await self.rebind()
        return Address(*self._back.get_extra_info("sockname")[:2])

    async def rebind(self) -> None:
        """Go on from another port."""
        relay = self

        class Answers(asyncio.DatagramProtocol):
            def datagram_received(self, data, addr):
                relay.seen.append((data, False))
                if relay.passes(data, False):
                    relay._back.sendto(data, relay._client)

        loop = asyncio.get_running_loop()
        old, (self._forth, _) = self._forth, await loop.create_datagram_endpoint(Answers, local_addr=(LOOPBACK, 0))
        if old is not None:
            old.close()

    def datagram_received(self, data, addr):
        """Pass a datagram of the dialler on."""
        self._client = addr
        self.seen.append((data, True))
        if self.passes(data, True):
            self._forth.sendto(data, self._server)

    def close(self) -> None:
        """Pass nothing any more."""
        if self in self.opened:
            self.opened.remove(self)
        for transport in (self._forth, self._back):
            if transport is not None:
                transport.close()


def closed_port() -> Address:
    """Return an address where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        return Address(LOOPBACK, sock.getsockname()[1])
