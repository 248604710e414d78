"""Those who dial this node, until they are let in or turned away.

Owns the tickets of everybody who waits. Decides nothing about them: a claim becomes an event, and an order with its
ticket is carried out. Doesn't know peers that are in.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from meshllm.core import events as ev
from meshllm.core import limits
from meshllm.core.credentials import Claim, RejectCode
from meshllm.core.events import Event
from meshllm.core.ids import NodeId
from meshllm.core.rights import Rights
from meshllm.transport.certificates import read_certificate
from meshllm.transport.codes import CloseCode, StreamCode, StreamKind
from meshllm.transport.connection import Connection
from meshllm.transport.greeting import AcceptorGreeting
from meshllm.transport.handshake import AcceptorHandshake, Credentials, HandshakeError, Terms
from meshllm.transport.link import LinkPeer
from meshllm.transport.stream import Stream
from meshllm.wire.errors import WireError
from meshllm.wire.frames import frame

log = logging.getLogger(__name__)

CLOSES = {
    RejectCode.MALFORMED: CloseCode.PROTOCOL, RejectCode.WRONG_MESH: CloseCode.WRONG_MESH,
    RejectCode.VERSION_MISMATCH: CloseCode.VERSION_MISMATCH, RejectCode.SELF: CloseCode.SELF,
    RejectCode.UNAUTHORIZED: CloseCode.UNAUTHORIZED,
}  # fmt: skip
"""With which code a connection is closed after a handshake that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorUser:
    """What the door needs of the house."""

    credentials: Callable[[], Credentials]
    terms: Callable[[], Terms]
    issue: Callable[[Claim, Rights], bytes]
    """Signs a certificate. Raises WireError when this node may not."""
    is_banned: Callable[[NodeId], bool]
    post: Callable[[Event], None]
    connected: Callable[[Connection, LinkPeer, Stream, AcceptorGreeting], None]
    """Takes over a connection whose peer was just welcomed."""


@dataclass(frozen=True, slots=True)
class _Ticket:
    """Somebody at the door."""

    connection: Connection
    greeting: AcceptorGreeting
    claim: Claim | None


class Door:
    """Lets strangers say who they are, and waits for the verdict."""

    def __init__(self, user: DoorUser) -> None:
        """Expect nobody yet."""
        self._user = user
        self._tickets: dict[int, _Ticket] = {}
        self._numbers = itertools.count(1)

    @property
    def waiting(self) -> int:
        """Return how many wait for a verdict."""
        return len(self._tickets)

    def on_accept(self, connection: Connection) -> None:
        """Take a stranger's connection."""

        def on_stream(stream: Stream) -> None:
            connection.on_stream = None  # a stranger has one stream
            stream.set_protocol(_Doormat(lambda data: self._on_first(connection, stream, data)))

        connection.on_stream = on_stream

    def admit(self, number: int, rights: Rights, *, issues: bool) -> None:
        """Let somebody in, with a certificate if it `issues` one. Nothing happens when it is gone."""
        ticket = self._tickets.pop(number, None)
        if ticket is None or ticket.claim is None:
            return
        held = ticket.claim.certificate
        try:
            issued = self._user.issue(ticket.claim, rights) if issues else None
            if issued is not None:
                held = read_certificate(issued, self._user.credentials().mesh, self._user.terms().now_unix_s)
            welcome = ticket.greeting.handshake.welcome(issued=issued, observed=ticket.connection.remote)
        except (WireError, ValueError) as error:
            log.warning("nobody can be let in here: %s", error)
            self._turn_away(ticket, RejectCode.UNAUTHORIZED)
            return
        ticket.greeting.stream.write(frame(welcome))
        peer = LinkPeer(node=ticket.claim.node, rights=rights, issuers=() if held is None else held.issuers)
        self._user.connected(ticket.connection, peer, ticket.greeting.stream, ticket.greeting)

    def refuse(self, number: int, code: RejectCode, *, is_silent: bool) -> None:
        """Turn somebody away, or not even that."""
        ticket = self._tickets.pop(number, None)
        if ticket is not None and is_silent:
            ticket.connection.abandon()
        elif ticket is not None:
            self._turn_away(ticket, code)

    def close(self) -> None:
        """Forget everybody who waits."""
        self._tickets.clear()

    def _on_first(self, connection: Connection, stream: Stream, data: bytes) -> None:
        """Begin the handshake with whoever has said a first byte."""
        if data[0] != StreamKind.CONTROL:
            stream.abort(StreamCode.FORBIDDEN)
            connection.close_when_sent(CloseCode.PROTOCOL, "the handshake comes first", limits.QUIC_CLOSE_LINGER_S)
            return
        number = next(self._numbers)

        def on_claim(greeting: AcceptorGreeting, claim: Claim) -> None:
            self._on_claim(number, _Ticket(connection, greeting, claim), claim)

        def on_failed(greeting: AcceptorGreeting, error: HandshakeError) -> None:
            self._on_failed(number, _Ticket(connection, greeting, None), error)

        def on_closed(_: object) -> None:
            self._tickets.pop(number, None)

        connection.on_closed = on_closed
        handshake = AcceptorHandshake(self._user.credentials(), self._user.terms())
        greeting = AcceptorGreeting(stream, handshake, on_claim, on_failed)
        stream.set_protocol(greeting)
        if data[1:]:
            greeting.data_received(data[1:])

    def _on_claim(self, number: int, ticket: _Ticket, claim: Claim) -> None:
        if self._user.is_banned(claim.node):
            self._turn_away(ticket, RejectCode.UNAUTHORIZED)
            return
        self._tickets[number] = ticket
        now_unix_s = self._user.terms().now_unix_s
        address = ticket.connection.remote
        self._user.post(ev.AdmissionAsked(ticket=number, claim=claim, address=address, now_unix_s=now_unix_s))

    def _on_failed(self, number: int, ticket: _Ticket, error: HandshakeError) -> None:
        self._tickets[number] = ticket
        self._user.post(
            ev.HandshakeFailed(
                ticket=number, address=ticket.connection.remote, code=error.code, reason=error.reason,
                message=error.message,
            )
        )  # fmt: skip

    def _turn_away(self, ticket: _Ticket, code: RejectCode) -> None:
        ticket.greeting.stream.write(frame(ticket.greeting.handshake.refuse(code)))
        ticket.greeting.stream.close()
        ticket.connection.close_when_sent(CLOSES[code], "", limits.QUIC_CLOSE_LINGER_S)


class _Doormat(asyncio.Protocol):
    """A stranger's stream until its first byte."""

    def __init__(self, on_first: Callable[[bytes], None]) -> None:
        self._on_first = on_first

    def data_received(self, data: bytes) -> None:
        """Hand on what has come."""
        self._on_first(data)
