"""Connections to engines of other nodes: each a tunnel, opened for one request and closed after its answer.

Owns the entry side of tunnels: the request goes in as the far end takes it, what comes back is read as an engine's
answer is. Decides when a tunnel is over. Doesn't know how tunnels are made: a `TunnelOpener` is handed in; nor where
a request goes after a refusal.

Invariant: a tunnel carries one request; nothing rests here, so the straight lane never comes by.
"""

import asyncio
from collections.abc import Set as AbstractSet
from math import inf
from typing import Protocol, cast

from meshllm.core import limits
from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import NodeId
from meshllm.proxy.pool import EngineConnection, Errand, Relay, TunnelEnd
from meshllm.proxy.traffic import ModelTraffic
from meshllm.wire.tunnel_errors import TunnelFailed, TunnelRefused
from meshllm.wire.tunnel_frames import TunnelHead, TunnelProgress, TunnelRefusal

STILL = "still"
"""In the place of a refusal's code, and of this node's own making: the host lives, its engine does not get on."""


class TunnelOpener(Protocol):
    """Who opens tunnels: the transport."""

    async def open_tunnel(self, peer: NodeId, head: TunnelHead, user: asyncio.Protocol, /) -> asyncio.Transport:
        """Open a tunnel to a peer and connect `user` to it. Raises OSError, TimeoutError included.

        Returns as soon as the head is on its way. A far end that refuses ends the tunnel by `connection_lost` with
        an error whose `refusal` is a `TunnelRefusal` (as may be an error that is raised here), one that breaks off
        with one whose `failure` is a `TunnelFailure`; what it says while no byte is there comes as
        `tunnel_progress`. Of the transport are used: `write`, `write_eof` (END after the request), `pause_reading`,
        `resume_reading`, `is_reading`, `close` (the answer was taken), `abort` (CANCEL); of the protocol also
        `pause_writing` and `resume_writing`.
        """


class NoTunnels:
    """Opens nothing: a node without a mesh."""

    async def open_tunnel(self, peer: NodeId, head: TunnelHead, user: asyncio.Protocol, /) -> asyncio.Transport:  # noqa: ARG002
        """Raise OSError."""
        msg = "this node opens no tunnels"
        raise OSError(msg)


class TunnelRelay(Relay, Protocol):
    """Who waits for an answer through a tunnel."""

    def on_refused(self, refusal: TunnelRefusal) -> None:
        """The far end does not take the request."""

    def on_progress(self, progress: TunnelProgress) -> None:
        """The far end works on it."""


def refusal_of(error: Exception | None) -> TunnelRefusal | None:
    """Return the refusal that an error tells of, or None."""
    return error.refusal if isinstance(error, TunnelRefused) else None


class PathReports(Protocol):
    """Who is told how it goes between here and a node."""

    def answered(self, peer: NodeId) -> None:
        """Something came back through a tunnel, if only a refusal."""

    def failed(self, peer: NodeId, reason: str) -> None:
        """A tunnel could not be opened, or broke."""

    def keep(self, peers: AbstractSet[NodeId]) -> None:
        """Forget every node but these."""


class TunnelConnection(EngineConnection):
    """One tunnel with one request."""

    __slots__ = (
        "_error",
        "_has_answered",
        "_is_over",
        "_is_writing_paused",
        "_leave_after_s",
        "_request",
        "_sent_bytes",
        "_tunnels",
    )

    def __init__(self, pool: "TunnelPool", *, leave_after_s: float = inf) -> None:
        """Belong to a pool. Leave a far end whose engine stands still for so long."""
        super().__init__(pool)
        self._leave_after_s = leave_after_s
        self._tunnels = pool
        self._has_answered = False
        self._request = memoryview(b"")
        self._sent_bytes = 0
        self._is_writing_paused = False
        self._is_over = False
        self._error: Exception | None = None

    def send(self, relay: Relay, request: bytes) -> None:
        """Write a request as fast as the far end takes it; its answer goes to `relay`."""
        self.relay = relay
        self._request = memoryview(request)
        if self._is_over:  # between opening and this
            asyncio.get_running_loop().call_soon(self.connection_lost, self._error)
            return
        self._write()

    def _write(self) -> None:
        request, transport = self._request, self.transport
        while self._sent_bytes < len(request) and not self._is_writing_paused and transport is not None:
            piece = request[self._sent_bytes : self._sent_bytes + limits.TUNNEL_FRAME_BYTES]
            self._sent_bytes += len(piece)
            transport.write(bytes(piece))
            if self._sent_bytes == len(request):
                transport.write_eof()
                self._request = memoryview(b"")
                self._sent_bytes = 0
                return

    def pause_writing(self) -> None:
        """Keep the rest of the request here."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """Go on with the request."""
        self._is_writing_paused = False
        self._write()

    def data_received(self, data: bytes) -> None:
        """Read on where the last bytes ended; the first ones say that the path is good."""
        if not self._has_answered:
            self._has_answered = True
            self._tunnels.answered()
        super().data_received(data)

    @property
    def has_lost_engine(self) -> bool:
        """Tell whether it was the far end's engine that broke off, not the path."""
        return isinstance(self._error, TunnelFailed)

    def tunnel_progress(self, progress: TunnelProgress) -> None:
        """Count what the far end says of its work as progress; leave it where that stands still for long."""
        self._traffic.has_moved = True
        relay = self.relay
        if relay is None:
            return
        if progress.still_s < self._leave_after_s or self._has_answered:
            cast("TunnelRelay", relay).on_progress(progress)
            return
        self.cancel()
        self._tunnels.answered()  # the path is good
        message = f"nothing has moved at its engine for {progress.still_s:.0f} s"
        cast("TunnelRelay", relay).on_refused(TunnelRefusal(code=STILL, message=message))

    def connection_lost(self, error: Exception | None) -> None:
        """Leave the pool; tell the relay, if it still waits, what happened."""
        self._is_over, self._error = True, error
        super().connection_lost(error)

    def _lose(self, relay: Relay) -> None:
        refusal = refusal_of(self._error)
        if refusal is not None and not self._has_answered:
            self._tunnels.answered()
            cast("TunnelRelay", relay).on_refused(refusal)
            return
        if isinstance(self._error, TunnelFailed):
            self._tunnels.answered()  # its engine broke off, not the path
        else:
            self._tunnels.failed(str(self._error or "the answer broke off"))
        super()._lose(relay)

    def _hang_up(self) -> None:
        """End the tunnel: in order, or by a cancellation where not even the whole request was wanted."""
        if len(self._request) and self.transport is not None:
            self.transport.abort()
            return
        super()._hang_up()


class TunnelPool:
    """The tunnels to one model at another node."""

    __slots__ = ("_opener", "_reports", "_to", "connections", "endpoint", "idle", "idle_max", "opening", "traffic")

    def __init__(self, to: TunnelEnd, opener: TunnelOpener, reports: PathReports, traffic: ModelTraffic) -> None:
        """Open tunnels through `opener`."""
        self._reports = reports
        self.endpoint: EngineEndpoint | TunnelEnd = to
        self._to = to
        self._opener = opener
        self.traffic = traffic
        self.idle: list[EngineConnection] = []
        self.idle_max = 0
        self.connections: set[EngineConnection] = set()
        self.opening = 0

    def take(self) -> EngineConnection | None:
        """Return None: no tunnel rests."""
        return None

    def keep(self, connection: EngineConnection) -> bool:  # noqa: ARG002 - whichever it is
        """Return False: no tunnel rests."""
        return False

    async def connect(self, errand: Errand) -> EngineConnection:
        """Open a tunnel. Raises OSError, TimeoutError included."""
        to = self._to
        head = TunnelHead(
            request_id=errand.request_id, model=to.model, digest=to.digest, deadline_s=errand.deadline_s,
            attempt=errand.attempt, traceparent=errand.traceparent, priority=errand.priority,
        )  # fmt: skip
        connection = TunnelConnection(self, leave_after_s=errand.leave_after_s)
        self.opening += 1
        try:
            async with asyncio.timeout(limits.TUNNEL_OPEN_TIMEOUT_S):
                await self._opener.open_tunnel(to.node, head, connection)
        except BaseException as error:
            connection.cancel()
            if isinstance(error, OSError) and refusal_of(error) is None:
                self.failed(str(error) or "no tunnel could be opened")
            raise
        finally:
            self.opening -= 1
        return connection

    def answered(self) -> None:
        """Say that the path is good."""
        self._reports.answered(self._to.node)

    def failed(self, reason: str) -> None:
        """Say that the path is not good."""
        self._reports.failed(self._to.node, reason)

    def leave(self, connection: EngineConnection) -> None:
        """Do nothing: no tunnel rests."""

    def forget(self, connection: EngineConnection) -> None:
        """Drop a tunnel that is gone."""
        self.connections.discard(connection)

    def retire(self) -> None:
        """Do nothing: requests in flight go on."""

    def close(self) -> None:
        """Hang up everywhere."""
        for connection in tuple(self.connections):
            connection.cancel()
