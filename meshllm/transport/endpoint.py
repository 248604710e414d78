"""One UDP socket on which a node dials and is dialled: datagrams find their connections here.

Owns the socket, the table of connection ids, and the count of strangers. Decides which first datagrams become
connections: that is all that an unknown sender can cost. Doesn't know the mesh; a dialled node is the key it was
expected to have, and one that dials is a stranger until somebody says otherwise.
"""

import asyncio
import ipaddress
import itertools
import logging
import os
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler
from aioquic.tls import CipherSuite

from meshllm.core import limits
from meshllm.core.announcement import Address
from meshllm.core.budget import Budget
from meshllm.core.ids import ConnectionId, NodeId
from meshllm.transport.codes import ALPN, CloseCode, Ending
from meshllm.transport.connection import Connection
from meshllm.transport.dial_error import DialCode, DialError
from meshllm.transport.identity import Identity, node_id_of
from meshllm.transport.quic_private import MeshQuic
from meshllm.transport.stream import StreamLost
from meshllm.transport.udp import Datagram, SocketAddress, UdpSocket, address_of, bound_socket

_CID_BYTES = 8
_LONG_HEADER = 0x80
_SERVER_NAME = "meshllm"
"""Travels in the clear, so it names nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """What tests and presets change."""

    idle_timeout_s: float = limits.QUIC_IDLE_TIMEOUT_S
    admission_timeout_s: float = limits.HANDSHAKE_TIMEOUT_S
    strangers: int = limits.UNADMITTED_CONNECTIONS
    strangers_per_address: int = limits.UNADMITTED_CONNECTIONS_PER_ADDRESS
    retry_above: int = limits.RETRY_ABOVE_CONNECTIONS
    is_loopback_limited: bool = False
    """Hold loopback to `strangers_per_address` too."""


class Endpoint:
    """A node's place on the network."""

    def __init__(self, identity: Identity, settings: EndpointSettings) -> None:
        """Use `Endpoint.open`."""
        self.on_accept: Callable[[Connection], None] | None = None
        """Takes connections of strangers; without one nobody can dial this node."""
        self.on_path_failed: Callable[[Address], None] | None = None
        """Learns of addresses where nobody listens. May be forged."""
        self._identity = identity
        self._settings = settings
        self._socket: UdpSocket
        self._accepting = _configuration(identity, settings, is_client=False)
        self._dialling = _configuration(identity, settings, is_client=True)
        self._by_id: dict[bytes, Connection] = {}
        self._ids: dict[Connection, set[bytes]] = {}
        self._strangers: dict[Connection, str] = {}
        self._numbers = itertools.count(1)
        self._retry = QuicRetryTokenHandler()
        self._looks = Budget(limits.STRANGERS_PER_S, limits.STRANGERS_BURST, monotonic())
        self._retries = Budget(limits.RETRIES_PER_S, limits.RETRIES_BURST, monotonic())
        self._refusals: dict[Address, Callable[[], None]] = {}
        self._refused: set[Address] = set()

    @classmethod
    async def open(
        cls, identity: Identity, host: str, port: int, settings: EndpointSettings | None = None
    ) -> "Endpoint":
        """Bind a UDP port on the running loop; 0 takes any. Raises OSError."""
        logging.getLogger("quic").setLevel(logging.ERROR)  # a line for each stranger's mistake is a way to fill a disk
        endpoint = cls(identity, settings or EndpointSettings())
        endpoint._socket = UdpSocket(bound_socket(host, port), endpoint)
        return endpoint

    @property
    def address(self) -> Address:
        """Return where the socket is bound."""
        return self._socket.address

    @property
    def node(self) -> NodeId:
        """Return the id of the node whose key this endpoint shows."""
        return self._identity.node

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Return every connection that has not ended."""
        return tuple(connection for connection in self._ids if not connection.is_closed)

    @property
    def strangers(self) -> int:
        """Return how many connections were accepted and not admitted."""
        return len(self._strangers)

    async def dial(self, address: Address, expected: NodeId, timeout_s: float) -> Connection:
        """Connect to a node at an address. Raises DialError.

        The connection that is returned leads to the owner of `expected`'s key, and to nobody else.
        """
        try:
            target = self._socket.reach(address)
        except (OSError, ValueError) as error:
            raise DialError(DialCode.UNREACHABLE, f"{address}: {error}") from error
        quic = MeshQuic(configuration=self._dialling, pin=lambda public: node_id_of(public) == expected)
        connection = self._adopt(quic, target, is_dialled=True)
        quic.connect(target, monotonic())
        connection.flush()
        is_up = False
        try:
            await self._until_ready(connection, address, timeout_s)
            is_up = True
        except TimeoutError as error:
            code = DialCode.UNREACHABLE if address in self._refused else DialCode.TIMEOUT
            raise DialError(code, f"{address} does not answer") from error
        except StreamLost as error:
            raise _dial_error(address, quic, error) from error
        finally:
            self._refused.discard(address)
            if not is_up:  # also when whoever dials has given up
                connection.close(CloseCode.DONE)
        return connection

    def close(self, code: CloseCode = CloseCode.LEAVING, reason: str = "") -> None:
        """End every connection, telling the other sides, and close the socket."""
        for connection in tuple(self._ids):
            connection.close(code, reason)
        self._by_id.clear()
        self._ids.clear()
        self._socket.close()

    # -- for the socket --------------------------------------------------------------------------------------

    def on_datagrams(self, batch: Sequence[Datagram]) -> None:
        """Route a batch, then let every connection that got something answer once."""
        now_s = monotonic()
        touched: dict[Connection, None] = {}
        for data, address in batch:
            connection = self._find(data, address, now_s)
            if connection is not None:
                connection.receive(data, address, now_s)
                touched[connection] = None
        for connection in touched:
            if connection.quic.is_begun or connection.is_dialled:
                connection.settle()
            else:
                connection.abandon()  # its first datagram only looked like one

    def on_refused(self, address: Address) -> None:
        """Tell whoever dials there, and whoever cares."""
        if (hurry := self._refusals.get(address)) is not None:
            self._refused.add(address)
            hurry()
        if self.on_path_failed is not None:
            self.on_path_failed(address)

    # -- for connections -------------------------------------------------------------------------------------

    def send(self, datagrams: Sequence[Datagram]) -> None:
        """Hand datagrams to the socket."""
        self._socket.send(datagrams)

    def register(self, connection: Connection, connection_id: bytes) -> None:
        """Route datagrams with this connection id there."""
        if connection in self._ids:
            self._by_id[connection_id] = connection
            self._ids[connection].add(connection_id)

    def unregister(self, connection_id: bytes) -> None:
        """Route datagrams with this connection id nowhere."""
        connection = self._by_id.pop(connection_id, None)
        if connection is not None:
            self._ids[connection].discard(connection_id)

    def on_admitted(self, connection: Connection) -> None:
        """Count a connection among the strangers no more."""
        self._strangers.pop(connection, None)

    def on_over(self, connection: Connection) -> None:
        """Forget an ended connection after a while in which late datagrams are answered by its close."""
        self._strangers.pop(connection, None)
        asyncio.get_running_loop().call_later(limits.QUIC_CLOSE_LINGER_S, self._forget, connection)

    # -- inside ----------------------------------------------------------------------------------------------

    async def _until_ready(self, connection: Connection, address: Address, timeout_s: float) -> None:
        """Wait for TLS. A refusal by ICMP leaves little time for an answer that would belie it. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s) as limit:

                def hurry() -> None:
                    soon = loop.time() + limits.DIAL_REFUSED_GRACE_S
                    if not connection.ready.done() and soon < (limit.when() or soon):
                        limit.reschedule(soon)

                self._refusals[address] = hurry
                await asyncio.shield(connection.ready)
        finally:
            self._refusals.pop(address, None)

    def _find(self, data: bytes, address: SocketAddress, now_s: float) -> Connection | None:
        if not data:
            return None
        if not data[0] & _LONG_HEADER:
            return self._by_id.get(data[1 : 1 + _CID_BYTES])
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=_CID_BYTES)
        except ValueError:
            return None
        connection = self._by_id.get(header.destination_cid)
        if connection is None and _is_first(header, data):
            connection = self._accept(header, address, now_s)
        return connection

    def _accept(self, header: QuicHeader, address: SocketAddress, now_s: float) -> Connection | None:
        """Make a connection of a stranger's first datagram, unless there are too many of them."""
        settings, source = self._settings, _source(address, is_loopback_limited=self._settings.is_loopback_limited)
        if self.on_accept is None or len(self._strangers) >= settings.strangers:
            return None
        if source and Counter(self._strangers.values())[source] >= settings.strangers_per_address:
            return None
        original, retried = header.destination_cid, None
        if header.token:
            try:
                original = self._retry.validate_token(
                    address=address, destination_cid=header.destination_cid, token=header.token, now=now_s
                )
            except ValueError:
                return None
            retried = header.destination_cid
        elif len(self._strangers) >= settings.retry_above or not self._looks.take(now_s):
            self._ask_again(header, address, now_s)
            return None
        quic = MeshQuic(
            configuration=self._accepting,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        connection = self._adopt(quic, address, is_dialled=False)
        self.register(connection, header.destination_cid)
        self._strangers[connection] = source
        connection.limit_life(settings.admission_timeout_s, CloseCode.AUTH_TIMEOUT)
        self.on_accept(connection)
        return connection

    def _ask_again(self, header: QuicHeader, address: SocketAddress, now_s: float) -> None:
        """Have the sender show that its address is its own before it costs more than a datagram."""
        if not self._retries.take(now_s):
            return
        source_id = os.urandom(_CID_BYTES)
        token = self._retry.create_token(
            address=address, original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_id, now=now_s,
        )  # fmt: skip
        retry = encode_quic_retry(
            version=QuicProtocolVersion.VERSION_1, source_cid=source_id, destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid, retry_token=token,
        )  # fmt: skip
        self._socket.send([(retry, address)])

    def _adopt(self, quic: MeshQuic, address: SocketAddress, *, is_dialled: bool) -> Connection:
        connection = Connection(self, quic, ConnectionId(next(self._numbers)), address, is_dialled=is_dialled)
        self._ids[connection] = set()
        self.register(connection, quic.host_cid)
        return connection

    def _forget(self, connection: Connection) -> None:
        for connection_id in self._ids.pop(connection, ()):
            self._by_id.pop(connection_id, None)


def _configuration(identity: Identity, settings: EndpointSettings, *, is_client: bool) -> QuicConfiguration:
    """Return how connections are made: see reference figures in docs/decisions for each choice."""
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        server_name=_SERVER_NAME if is_client else None,
        verify_mode=ssl.CERT_NONE if is_client else None,  # no chain; possession of the key is checked all the same
        certificate=None if is_client else identity.tls_certificate,
        private_key=None if is_client else identity.private_key,
        cipher_suites=[CipherSuite.AES_128_GCM_SHA256, CipherSuite.CHACHA20_POLY1305_SHA256],
        congestion_control_algorithm="cubic",
        connection_id_length=_CID_BYTES,
        idle_timeout=settings.idle_timeout_s,
        max_datagram_size=limits.QUIC_DATAGRAM_BYTES,
        max_datagram_frame_size=65_535,
        max_data=limits.QUIC_UNADMITTED_WINDOW_BYTES,
        max_stream_data=limits.QUIC_STREAM_WINDOW_BYTES,
        supported_versions=[QuicProtocolVersion.VERSION_1],
    )


def _is_first(header: QuicHeader, data: bytes) -> bool:
    """Tell whether a datagram may begin a connection: RFC 9000, 14.1, and the one version that nodes speak."""
    return (
        header.packet_type == QuicPacketType.INITIAL
        and header.version == QuicProtocolVersion.VERSION_1
        and len(data) >= limits.QUIC_DATAGRAM_BYTES
    )


def _source(address: SocketAddress, *, is_loopback_limited: bool) -> str:
    """Return what counts as one sender: an IPv4 address or an IPv6 network of 64 bits; empty for this machine."""
    host = ipaddress.ip_address(address_of(address).host.partition("%")[0])
    if host.is_loopback and not is_loopback_limited:
        return ""
    return str(host if host.version == 4 else ipaddress.ip_network((host, 64), strict=False))


_DIAL_CODES = {
    Ending.TIMEOUT.value: DialCode.TIMEOUT,
    Ending.WRONG_IDENTITY.value: DialCode.WRONG_IDENTITY,
    CloseCode.AUTH_TIMEOUT.name.lower(): DialCode.TIMEOUT,
    CloseCode.VERSION_MISMATCH.name.lower(): DialCode.VERSION_MISMATCH,
    CloseCode.SELF.name.lower(): DialCode.SELF,
    # It lets this node in, and another time it may have room for it: no reason to stay away for long.
    CloseCode.REPLACED.name.lower(): DialCode.UNREACHABLE,
    CloseCode.SPARE.name.lower(): DialCode.UNREACHABLE,
    CloseCode.LEAVING.name.lower(): DialCode.UNREACHABLE,
}


def dial_code(closing: str) -> DialCode:
    """Return what the end of a connection means for whoever dialled it."""
    return _DIAL_CODES.get(closing, DialCode.REJECTED)


def _dial_error(address: Address, quic: MeshQuic, error: StreamLost) -> DialError:
    if quic.has_wrong_key:
        return DialError(DialCode.WRONG_IDENTITY, f"{address} is another node")
    return DialError(dial_code(error.code), f"{address}: {error}")
