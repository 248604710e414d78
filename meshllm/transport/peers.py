"""Every peer of this node, as events for the core and orders from it.

Owns the links, the dials under way, and who waits for a link. Decides nothing about members: it tells what has
happened, and does what it is told. Doesn't know views, models or routes.

Every authenticated connection is told as `PeerConnected`, and its end once as `PeerLost` with the same number, so that
the end of a replaced connection is never taken for that of the living one. Which of two stays, the core says.
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from time import monotonic, time

from meshllm.core import events as ev
from meshllm.core import limits
from meshllm.core.announcement import Address
from meshllm.core.credentials import Claim, RejectCode
from meshllm.core.events import Event
from meshllm.core.ids import ConnectionId, NodeId, short
from meshllm.core.lines import is_near
from meshllm.core.messages import Message
from meshllm.core.rights import Rights
from meshllm.transport.certificates import CertificateError, Grant, Issuer, issue
from meshllm.transport.codes import CloseCode, Priority
from meshllm.transport.connection import Connection
from meshllm.transport.control import MessageCodec
from meshllm.transport.dial_error import DialCode, DialError
from meshllm.transport.dialling import dial_any
from meshllm.transport.door import CLOSES, Door, DoorUser
from meshllm.transport.endpoint import Endpoint, dial_code
from meshllm.transport.greeting import AcceptorGreeting, DiallerGreeting
from meshllm.transport.handshake import Credentials, DiallerHandshake, HandshakeError, Terms, Welcomed
from meshllm.transport.line import LineStream
from meshllm.transport.lines import Lines
from meshllm.transport.link import Link, LinkPeer, LinkUser
from meshllm.transport.stream import Stream, StreamLost
from meshllm.transport.tunnels import NearTunnel, TunnelHandler
from meshllm.wire.errors import WireError
from meshllm.wire.tunnel_errors import TunnelLost
from meshllm.wire.tunnel_frames import TunnelHead

log = logging.getLogger(__name__)

_DIALS = {RejectCode.VERSION_MISMATCH: DialCode.VERSION_MISMATCH, RejectCode.SELF: DialCode.SELF}
_BY_NAME = {code.name.lower(): code for code in CloseCode}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersUser:
    """What the rest of the daemon does for the peers."""

    post: Callable[[Event], None]
    """Takes every event."""
    start_task: Callable[[str, Coroutine[object, object, None]], asyncio.Task[None]]
    """Runs a coroutine and keeps it."""
    joined: Callable[[Credentials, Welcomed], None] | None = None
    """Learns what a WELCOME brought: a certificate or the mesh's root to keep, and where the peer sees this node."""
    wanted: Callable[[NodeId], None] | None = None
    """A tunnel needs a connection to a peer."""
    revoked: Callable[[], Collection[NodeId]] = tuple
    """Returns the nodes that were expelled."""
    handler: TunnelHandler | None = None
    """Serves other nodes' tunnels."""
    lines: Lines | None = None
    """Faster ways to near peers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersSettings:
    """How this node presents itself, and what tests change."""

    name: str
    features: tuple[str, ...] = ()
    allow_loopback: bool = False
    """Take loopback addresses in announcements: for several nodes on one machine."""
    dial_timeout_s: float = limits.DIAL_TIMEOUT_S
    now_unix_s: Callable[[], float] = time
    random_bytes: Callable[[int], bytes] = secrets.token_bytes


class Peers:
    """All connections of a node, by peer."""

    def __init__(
        self, endpoint: Endpoint, credentials: Credentials, user: PeersUser, settings: PeersSettings,
        issuer: Issuer | None = None,
    ) -> None:  # fmt: skip
        """Take over an endpoint. `issuer` signs certificates for those who join here; None on nodes that may not."""
        self.issuer = issuer
        self._endpoint = endpoint
        self._user = user
        self._settings = settings
        self._codec = MessageCodec(
            credentials, settings.now_unix_s, revoked=user.revoked, allow_loopback=settings.allow_loopback
        )
        self._links: dict[NodeId, list[Link]] = {}
        """Active links, the newest last."""
        self._retired: set[Link] = set()
        self._dialling: set[NodeId] = set()
        self._banned: dict[NodeId, float] = {}
        self._waiting: dict[NodeId, list[asyncio.Future[Link]]] = {}
        self._path_failed_s: dict[NodeId, float] = {}
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.call_later(limits.QUIC_KEEP_ALIVE_S, self._sweep)
        self._door = Door(
            DoorUser(
                credentials=lambda: self.credentials, terms=self._terms, issue=self._issue, post=user.post,
                is_banned=lambda node: self._banned.get(node, 0.0) > monotonic(), connected=self._connected,
            )
        )  # fmt: skip
        if user.lines is not None:
            user.lines.on_stream = self._on_line_stream
        endpoint.on_accept = self._door.on_accept
        endpoint.on_path_failed = self._on_path_failed

    # -- what others ask -----------------------------------------------------------------------------------------

    @property
    def credentials(self) -> Credentials:
        """Return what this node shows."""
        return self._codec.credentials

    @credentials.setter
    def credentials(self, credentials: Credentials) -> None:
        self._codec.credentials = credentials

    def is_connected(self, peer: NodeId) -> bool:
        """Tell whether new work can go to a peer at once."""
        return bool(self._links.get(peer))

    def remote(self, peer: NodeId) -> Address | None:
        """Return where a connected peer is."""
        links = self._links.get(peer)
        return links[-1].connection.remote if links else None

    def tunnels(self, peer: NodeId) -> int:
        """Return how many exchanges with a peer are under way, in both directions, on any connection."""
        retired = [link for link in self._retired if link.peer.node == peer]
        return sum(link.tunnels for link in [*self._links.get(peer, ()), *retired])

    # -- orders of the core --------------------------------------------------------------------------------------

    def dial(self, peer: NodeId, addresses: Sequence[Address]) -> None:
        """Connect to a peer. Answer: PeerConnected or DialFailed; none of its own while a dial is under way."""
        if peer == self.credentials.identity.node:
            self._dial_failed(peer, DialCode.SELF, "that is this node")
            return
        if peer in self._dialling:
            return
        self._dialling.add(peer)
        self._user.start_task(f"dial:{short(peer)}", self._dial(peer, tuple(addresses)))

    def send(self, peer: NodeId, message: Message) -> None:
        """Say something on the newest connection to a peer; nothing happens without one."""
        if links := self._links.get(peer):
            links[-1].send(message)

    def disconnect(self, peer: NodeId, connection: ConnectionId, code: str) -> None:
        """Give a connection up. Answer: PeerLost with this code. Nothing happens when it is gone already."""
        for link in self._links.get(peer, ()):
            if link.connection.id == connection:
                link.end(_BY_NAME.get(code, CloseCode.DONE))
                return

    def admit(self, ticket: int, rights: Rights, *, issues: bool) -> None:
        """Let somebody in, with a certificate if it `issues` one. Answer: PeerConnected, unless it is gone."""
        self._door.admit(ticket, rights, issues=issues)

    def refuse(self, ticket: int, code: RejectCode, *, is_silent: bool) -> None:
        """Turn somebody away, or not even that."""
        self._door.refuse(ticket, code, is_silent=is_silent)

    async def open_tunnel(self, peer: NodeId, head: TunnelHead, user: asyncio.Protocol) -> NearTunnel:
        """Begin an exchange with a peer, connecting first where that is needed.

        Raises TunnelRefused when too many are under way, TunnelLost when the peer cannot be reached in time.
        """
        links = self._links.get(peer)
        link = links[-1] if links else await self._wait_for(peer)
        return link.open_tunnel(head, user)

    def close(self, code: CloseCode = CloseCode.LEAVING, reason: str = "") -> None:
        """End every connection and close the socket. No events follow."""
        self._sweeper.cancel()
        self._door.close()
        for waiting in self._waiting.values():
            for future in waiting:
                future.cancel()
        for link in [*itertools.chain.from_iterable(self._links.values()), *self._retired]:
            link.is_active = False
        self._links.clear()
        self._retired.clear()
        self._endpoint.close(code, reason)

    # -- dialling ------------------------------------------------------------------------------------------------

    async def _dial(self, peer: NodeId, addresses: Sequence[Address]) -> None:
        try:
            async with asyncio.timeout(self._settings.dial_timeout_s):
                await self._join(peer, addresses)
        except DialError as error:
            self._dial_failed(peer, error.code, error.message)
        except TimeoutError:
            self._dial_failed(peer, DialCode.TIMEOUT, "the peer does not answer in time")
        finally:
            self._dialling.discard(peer)

    async def _join(self, peer: NodeId, addresses: Sequence[Address]) -> None:
        """Reach a peer and be welcomed. Raises DialError."""
        connection = await dial_any(self._endpoint, peer, addresses, self._settings.dial_timeout_s)
        try:
            welcomed, greeting, stream = await self._greet(connection, peer)
        except HandshakeError as error:
            connection.close(CLOSES[error.code])
            raise DialError(_DIALS.get(error.code, DialCode.REJECTED), error.message) from error
        except StreamLost as error:
            raise DialError(dial_code(error.code), str(error)) from error
        except (WireError, ConnectionError) as error:
            connection.close(CloseCode.PROTOCOL)
            raise DialError(DialCode.REJECTED, f"the peer does not keep to the handshake: {error}") from error
        except asyncio.CancelledError:
            connection.close(CloseCode.DONE)
            raise
        if connection.is_closed:
            raise DialError(DialCode.UNREACHABLE, "the peer closed the connection")  # after it had let this node in
        self._welcomed(welcomed)
        facts = welcomed.peer_certificate
        self._connected(connection, LinkPeer(node=peer, rights=facts.rights, issuers=facts.issuers), stream, greeting)

    async def _greet(self, connection: Connection, peer: NodeId) -> tuple[Welcomed, DiallerGreeting, Stream]:
        handshake = DiallerHandshake(self.credentials, peer, connection.peer_public or b"", self._terms())
        stream = connection.open_stream(Priority.CONTROL)
        greeting = DiallerGreeting(stream, handshake)
        return await greeting.welcomed, greeting, stream

    def _welcomed(self, welcomed: Welcomed) -> None:
        mine = self.credentials
        certificate = welcomed.certificate or mine.certificate
        self.credentials = replace(mine, certificate=certificate, root_public=welcomed.root_public)
        if self._user.joined is not None:
            self._user.joined(self.credentials, welcomed)

    def _dial_failed(self, peer: NodeId, code: DialCode, message: str) -> None:
        self._user.post(ev.DialFailed(peer=peer, code=str(code), message=message))
        for future in self._waiting.pop(peer, ()):
            if not future.done():
                future.set_exception(TunnelLost(str(code), message))

    # -- who this node is ----------------------------------------------------------------------------------------

    def _issue(self, claim: Claim, rights: Rights) -> bytes:
        """Return a certificate for whoever joins. Raises WireError when this node cannot issue one."""
        if self.issuer is None:
            raise CertificateError("this node issues no certificates")
        serial = int.from_bytes(self._settings.random_bytes(8), "big") >> 1
        grant = Grant(node=claim.node, rights=rights, name=claim.name, serial=serial)
        return issue(self.issuer, grant, self._settings.now_unix_s())

    def _terms(self) -> Terms:
        settings = self._settings
        return Terms(
            now_unix_s=settings.now_unix_s(), random_bytes=settings.random_bytes, name=settings.name,
            features=settings.features,
        )  # fmt: skip

    # -- links ---------------------------------------------------------------------------------------------------

    def _connected(
        self, connection: Connection, peer: LinkPeer, stream: Stream, greeting: DiallerGreeting | AcceptorGreeting
    ) -> None:
        user = LinkUser(
            on_message=self._on_message, on_lost=self._on_lost, on_abuse=self._on_abuse, on_silence=self._on_silence,
            handler=self._user.handler, line=self._line,
        )  # fmt: skip
        link = Link(connection, peer, stream, self._codec, user, (greeting.reader, greeting.behind))
        self._links.setdefault(peer.node, []).append(link)
        self._user.post(
            ev.PeerConnected(
                peer=peer.node, connection=connection.id, address=connection.remote, rights=peer.rights,
                is_dialled=connection.is_dialled, rtt_s=connection.rtt_s, issuers=peer.issuers,
            )
        )  # fmt: skip
        for future in self._waiting.pop(peer.node, ()):
            if not future.done():
                future.set_result(link)

    def _line(self, link: Link) -> LineStream | None:
        """Return a stream on a line to a near peer, where one rests."""
        lines = self._user.lines
        return lines.take(link.peer.node) if lines is not None and is_near(link.connection.least_rtt_s) else None

    def _on_line_stream(self, peer: NodeId, stream: LineStream) -> None:
        """Serve what a peer begins on a line, with the rights that it has on its connection; nothing without one."""
        if links := self._links.get(peer):
            links[-1].take_stream(stream)
        else:
            stream.abort()

    def _on_message(self, link: Link, message: Message) -> None:
        self._user.post(ev.MessageReceived(peer=link.peer.node, connection=link.connection.id, message=message))

    def _on_lost(self, link: Link, code: str, message: str) -> None:
        peer = link.peer.node
        links = self._links.get(peer, [])
        if link in links:
            links.remove(link)
            if not links:
                del self._links[peer]
                if self._user.lines is not None and not link.is_draining:
                    self._user.lines.cut(peer, code, message)
        if not link.connection.is_closed:
            self._retired.add(link)
        self._user.post(ev.PeerLost(peer=peer, connection=link.connection.id, code=code, message=message))

    def _on_abuse(self, link: Link) -> None:
        log.warning("a peer is sent away for a while node=%s", short(link.peer.node))
        now_s = monotonic()
        self._banned = {node: until_s for node, until_s in self._banned.items() if until_s > now_s}
        self._banned[link.peer.node] = now_s + limits.ABUSE_BAN_S

    def _on_silence(self, link: Link) -> None:
        self._path_failed(link.peer.node, "silent")

    async def _wait_for(self, peer: NodeId) -> Link:
        """Wait for a link to a peer. Raises TunnelLost."""
        future: asyncio.Future[Link] = self._loop.create_future()
        self._waiting.setdefault(peer, []).append(future)
        if self._user.wanted is not None:
            self._user.wanted(peer)
        try:
            async with asyncio.timeout(self._settings.dial_timeout_s):
                return await future
        except TimeoutError as error:
            raise TunnelLost("unreachable", "there is no connection to the peer") from error
        finally:
            if future in (waiting := self._waiting.get(peer, [])):
                waiting.remove(future)
                if not waiting:
                    del self._waiting[peer]

    # -- what is looked after ------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Keep connections open, and tell round trips that have changed."""
        self._sweeper = self._loop.call_later(limits.QUIC_KEEP_ALIVE_S, self._sweep)
        now_s = monotonic()
        self._retired = {link for link in self._retired if not link.connection.is_closed}
        for link in [*itertools.chain.from_iterable(self._links.values()), *self._retired]:
            link.check(now_s)
            rtt_s = link.connection.rtt_s
            if link.is_active and abs(rtt_s - link.told_rtt_s) > limits.ROUND_TRIP_CHANGE * link.told_rtt_s:
                link.told_rtt_s = rtt_s
                self._user.post(ev.RoundTripMeasured(peer=link.peer.node, rtt_s=rtt_s))

    def _on_path_failed(self, address: Address) -> None:
        for peer, links in tuple(self._links.items()):
            doubtful = [link for link in links if link.connection.remote == address]
            for link in doubtful:
                link.doubt("its machine says that nobody listens there")
            if doubtful:
                self._path_failed(peer, "refused")

    def _path_failed(self, peer: NodeId, reason: str) -> None:
        now_s = monotonic()
        if now_s - self._path_failed_s.get(peer, -limits.PATH_FAILURE_INTERVAL_S) < limits.PATH_FAILURE_INTERVAL_S:
            return
        if len(self._path_failed_s) >= limits.PATH_FAILURES:
            self._path_failed_s.clear()
        self._path_failed_s[peer] = now_s
        self._user.post(ev.PathFailed(peer=peer, reason=reason))
