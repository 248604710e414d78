"""An admitted peer on one connection: its control stream, its tunnels, and what it may open.

Owns the streams of one connection once both sides are who they should be. Decides what becomes of a stream by its first
byte and the peer's rights, and when a connection that was given up ends. Doesn't know other connections, nor when one
is to be given up.

Invariant: `on_lost` is called exactly once, at the moment from which the link carries no new work.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from meshllm.core import limits
from meshllm.core.budget import Budget
from meshllm.core.ids import NodeId
from meshllm.core.messages import Message
from meshllm.core.rights import Rights
from meshllm.transport.codes import CloseCode, Priority, StreamCode, StreamKind
from meshllm.transport.connection import Closing, Connection
from meshllm.transport.control import Control, ControlUser, MessageCodec
from meshllm.transport.line import LineStream
from meshllm.transport.stream import Stream, StreamLost
from meshllm.transport.tunnels import FarTunnel, NearTunnel, Tunnel, TunnelHandler, TunnelStream
from meshllm.wire.frames import FrameReader
from meshllm.wire.tunnel_errors import TunnelLost, TunnelRefused
from meshllm.wire.tunnel_frames import TunnelHead, TunnelRefusal

_GIVEN_UP = {CloseCode.REPLACED: StreamCode.REPLACED, CloseCode.SPARE: StreamCode.SPARE}
"""Ends that leave a connection to its last tunnel, and how the control stream says so."""
_BUSY = TunnelRefusal(code="busy", message="too many requests of one node at a time", retry_after_s=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUser:
    """Who is told what happens on a link."""

    on_message: Callable[["Link", Message], None]
    on_lost: Callable[["Link", str, str], None]
    """The link carries no new work: a code and words."""
    on_abuse: Callable[["Link"], None]
    on_silence: Callable[["Link"], None]
    """A tunnel's far end has not been heard, though it should have been."""
    handler: TunnelHandler | None
    """Who serves the peer's tunnels; None while nobody does."""
    line: Callable[["Link"], LineStream | None]
    """Returns a faster way for a tunnel, where there is one at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPeer:
    """Who is at the other end."""

    node: NodeId
    rights: Rights
    issuers: tuple[NodeId, ...] = ()


class Link:
    """One connection to an admitted peer."""

    def __init__(
        self, connection: Connection, peer: LinkPeer, stream: Stream, codec: MessageCodec, user: LinkUser,
        already: tuple[FrameReader, Sequence[bytes]],
    ) -> None:  # fmt: skip
        """Take over a connection from the handshake, with its stream and with what was read of it `already`."""
        self.connection = connection
        self.peer = peer
        self.is_active = True
        """New work may go over it."""
        self.told_rtt_s = connection.rtt_s
        self._user = user
        self._tunnels: set[Tunnel] = set()
        self._forbidden = Budget(
            limits.FORBIDDEN_STREAMS / limits.ABUSE_WINDOW_S, limits.FORBIDDEN_STREAMS, monotonic()
        )
        self._drain: asyncio.TimerHandle | None = None
        self._given_up_as: CloseCode | None = None
        self._doubted_s: float | None = None
        """Since when the peer has to show that it lives."""
        connection.on_closed = self._on_closed
        connection.on_stream = self.take_stream
        connection.admit()
        stream.prefer(Priority.CONTROL)
        self._stream = stream
        control = ControlUser(on_message=self._on_message, on_abuse=self.expel, on_ended=self._on_control_ended)
        self._control = Control(stream, codec, control, *already)

    @property
    def tunnels(self) -> int:
        """Return how many exchanges are under way, in both directions."""
        return len(self._tunnels)

    @property
    def is_draining(self) -> bool:
        """Tell whether it was given up for another connection, and only its last tunnels keep it."""
        return self._given_up_as is not None

    def send(self, message: Message) -> None:
        """Say something on the control stream."""
        self._control.send(message)

    def open_tunnel(self, head: TunnelHead, user: asyncio.Protocol) -> NearTunnel:
        """Begin an exchange. Raises TunnelRefused when there are too many, TunnelLost when the link is gone."""
        if not self.is_active:
            raise TunnelLost("replaced", "the connection takes no new work")
        if len(self._tunnels) >= limits.TUNNELS_PER_PEER:
            raise TunnelRefused(_BUSY)
        try:
            stream = self._user.line(self) or self.connection.open_stream(Priority.TOKENS)
        except StreamLost as error:
            raise TunnelLost(error.code, str(error)) from error
        tunnel = NearTunnel(stream, head, user, self._on_tunnel_over, on_silence=self._on_silence)
        self._tunnels.add(tunnel)
        return tunnel

    def end(self, code: CloseCode, reason: str = "") -> None:
        """Give the connection up: at once, or once its tunnels are over where another connection stays."""
        told = _GIVEN_UP.get(code)
        if told is not None and self._tunnels:
            self._control.give_up()
            self._stream.abort(told)
            self._retire(code, reason)
        else:
            self._lost(code.name.lower(), reason)
            self.connection.close(code, reason)

    def expel(self, code: CloseCode, reason: str) -> None:
        """End at once, because the peer broke a rule."""
        if code is CloseCode.ABUSE:
            self._user.on_abuse(self)
        self._lost(code.name.lower(), reason)
        self.connection.close(code, reason)

    def check(self, now_s: float) -> None:
        """Look after time limits and keep the connection open."""
        self.connection.keep_alive(now_s, limits.QUIC_KEEP_ALIVE_S)
        if self.is_active:
            self._control.check(now_s)

    def doubt(self, reason: str) -> None:
        """Find out at once whether the peer lives, since something says that it does not.

        Whoever says so may lie, so the peer is asked. Without a sign of life its exchanges are over: they can begin
        elsewhere. The connection stays, for membership to judge.
        """
        if self._doubted_s is None and self._tunnels and not self.connection.is_closed:
            self._doubted_s = monotonic()
            self.connection.keep_alive(self._doubted_s, 0.0)
            asyncio.get_running_loop().call_later(limits.LINK_DOUBT_S, self._settle_doubt, reason)

    def _settle_doubt(self, reason: str) -> None:
        doubted_s, self._doubted_s = self._doubted_s, None
        if doubted_s is None or self.connection.heard_s > doubted_s:
            return
        for tunnel in tuple(self._tunnels):
            if isinstance(tunnel, NearTunnel):
                tunnel.give_up(reason)

    # -- streams of the peer -------------------------------------------------------------------------------------

    def forbid(self, stream: TunnelStream, code: StreamCode) -> None:
        """Refuse a stream, and count it."""
        stream.abort(code)
        if not self._forbidden.take(monotonic()):
            self.expel(CloseCode.ABUSE, "too many streams that are refused")

    def take_stream(self, stream: TunnelStream) -> None:
        """Serve what the peer has begun, on the connection or on a line."""
        _Opening(stream, self._on_kind)

    def _on_kind(self, stream: TunnelStream, kind: int, data: bytes) -> None:
        if kind != StreamKind.TUNNEL:
            is_known = kind in set(StreamKind)
            self.forbid(stream, StreamCode.FORBIDDEN if is_known else StreamCode.UNKNOWN_STREAM)
        elif Rights.INFER not in self.peer.rights:
            self.forbid(stream, StreamCode.FORBIDDEN)
        else:
            tunnel = FarTunnel(stream, self._choose, self._on_tunnel_over)
            self._tunnels.add(tunnel)
            if data:
                tunnel.data_received(data)

    def _choose(self, head: TunnelHead) -> asyncio.Protocol | TunnelRefusal:
        if self._user.handler is None:
            return TunnelRefusal(code="not_hosting", message="this node serves nothing")
        if len(self._tunnels) > limits.TUNNELS_PER_PEER:
            return _BUSY
        return self._user.handler(self.peer.node, self.peer.rights, head)

    def _on_tunnel_over(self, tunnel: Tunnel) -> None:
        self._tunnels.discard(tunnel)
        if self._given_up_as is not None and not self._tunnels:
            self.connection.close_when_sent(self._given_up_as, "", limits.QUIC_CLOSE_LINGER_S)

    def _on_silence(self) -> None:
        self._user.on_silence(self)

    # -- the end -------------------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        if self.is_active:
            self._user.on_message(self, message)

    def _on_control_ended(self, code: str, message: str) -> None:
        """The peer ended the control stream alone. Two of the codes mean that another connection stays."""
        if self.connection.is_closed:
            return
        given_up = next((close for close in _GIVEN_UP if close.name.lower() == code), None)
        if given_up is None:
            self.expel(CloseCode.PROTOCOL, f"the control stream was ended: {message}")
        elif self._tunnels:
            self._retire(given_up, message)
        else:
            self.end(given_up, message)

    def _retire(self, code: CloseCode, reason: str) -> None:
        self._given_up_as = code
        self.connection.on_stream = None
        self._lost(code.name.lower(), reason)
        loop = asyncio.get_running_loop()
        self._drain = loop.call_later(limits.CONNECTION_DRAIN_S, self.connection.close, code, reason)

    def _on_closed(self, closing: Closing) -> None:
        if self._drain is not None:
            self._drain.cancel()
        self._lost(closing.code, closing.message)

    def _lost(self, code: str, message: str) -> None:
        if self.is_active:
            self.is_active = False
            self._control.give_up()
            self._user.on_lost(self, code, message)


class _Opening(asyncio.Protocol):
    """A stream whose first byte has not come."""

    def __init__(self, stream: TunnelStream, on_kind: Callable[[TunnelStream, int, bytes], None]) -> None:
        self._stream = stream
        self._on_kind = on_kind
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(limits.TUNNEL_HEAD_TIMEOUT_S, stream.abort, StreamCode.TIMEOUT)
        stream.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Hand the stream on, by its first byte."""
        self._timer.cancel()
        self._on_kind(self._stream, data[0], data[1:])

    def eof_received(self) -> bool:
        """Refuse a stream without a byte."""
        self._stream.abort(StreamCode.MALFORMED)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the stream."""
        self._timer.cancel()
