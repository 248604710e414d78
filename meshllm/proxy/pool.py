"""Connections to engines: opened, kept while idle, and read for framing alone.

Owns the HTTP/1.1 client side of one Unix socket or loopback port. Decides where an answer ends, whether
its connection can serve again, and holds small answers until they are whole. Doesn't know what a request
means nor who asked; a `Relay` is told what came.

Invariant: a connection has at most one relay, and one that has answered out of turn is never used again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Protocol, cast

from meshllm.core import limits
from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import ModelId, NodeId
from meshllm.proxy.framing import AnswerError, AnswerHead, ChunkRelay, parse_answer_head
from meshllm.proxy.http1 import HEAD_END
from meshllm.proxy.traffic import ModelTraffic

_heads: dict[bytes, AnswerHead] = {}
"""Heads by their exact bytes: an engine repeats a few; reading one is pure. Emptied when full."""


def _remembered_head(block: bytes) -> AnswerHead:
    """Read a head once, however often it comes. Raises AnswerError."""
    head = _heads.get(block)
    if head is None:
        head = parse_answer_head(block)
        if len(_heads) >= limits.ENGINE_HEADS_REMEMBERED:
            _heads.clear()
        _heads[block] = head
    return head


class Relay(Protocol):
    """Who waits for an answer: one request's exchange."""

    is_head: bool
    """The request's method is HEAD: its answer has no body, whatever its head says."""

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        """Take a complete answer."""

    def on_head(self, head: AnswerHead) -> "Relay":
        """Take the head of an answer whose body follows; return who takes that."""

    def on_piece(self, data: bytes) -> None:
        """Take a piece of the body: whole chunks of a chunked one, else bytes."""

    def on_suspect_piece(self, data: bytes) -> None:
        """Take whole chunks of an event stream, among whose events there may be the engine's own error."""

    def on_end(self) -> None:
        """The answer is complete."""

    def on_lost(self, *, was_stale: bool, is_between: bool, chunks: int) -> None:
        """The engine is gone before the end.

        `was_stale`: an idle connection that the engine had closed meanwhile. `is_between`: all pieces
        together end between events. `chunks`: how many there were.
        """


class EngineConnection(asyncio.Protocol):
    """One connection to an engine, one request at a time."""

    __slots__ = (
        "_chunks", "_head", "_held", "_interim", "_is_fresh", "_last", "_left", "_parts", "_pool", "_read",
        "_traffic", "_was_used", "relay", "transport",
    )  # fmt: skip

    def __init__(self, pool: "Pool") -> None:
        """Belong to a pool."""
        self._pool = pool
        self._traffic = pool.traffic
        self.transport: asyncio.Transport | None = None
        self.relay: Relay | None = None
        self._read: Callable[[bytes], None] = self._read_head
        self._is_fresh = True
        """No byte of the answer has come."""
        self._head: AnswerHead | None = None
        self._last: AnswerHead | None = None
        """The last head of a whole answer: until the clock's next second an engine says the same again."""
        self._held = b""
        self._parts: list[bytes] = []
        self._left = 0
        self._chunks: ChunkRelay | None = None
        self._interim = 0
        self._was_used = False

    # -- for the pool and the relay -------------------------------------------------------------------

    def send(self, relay: Relay, request: bytes) -> None:
        """Write a request; its answer goes to `relay`."""
        self.relay = relay
        transport = self.transport
        if transport is not None:
            transport.write(request)

    def pause(self) -> None:
        """Stop reading: the client does not keep up."""
        if self.transport is not None and self.transport.is_reading():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.transport is not None and not self.transport.is_reading():
            self.transport.resume_reading()

    def cancel(self) -> None:
        """Forget the relay and hang up at once: the engine's slot becomes free."""
        self.relay = None
        self._pool.leave(self)
        if self.transport is not None:
            self.transport.abort()

    @property
    def is_between_events(self) -> bool:
        """Tell whether what was handed out so far ends between events."""
        return self._chunks is not None and self._chunks.is_between

    @property
    def has_lost_engine(self) -> bool:
        """Tell whether the other side said that an engine broke off there."""
        return False

    # -- asyncio.Protocol -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self._pool.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read on where the last bytes ended."""
        relay = self.relay
        if relay is None:
            self.cancel()  # bytes that nobody asked for: out of step
            return
        self._traffic.has_moved = True
        if self._is_fresh:
            head = self._last
            if head is None or not data.startswith(head.block):
                end = data.find(b"{")  # a guess, which the memory confirms
                head = self._last = _heads.get(data[:end])
            if head is not None and head.length == len(body := data[len(head.block) :]) and not relay.is_head:
                self.relay = None
                self._was_used = True
                pool = self._pool
                if head.keeps_alive and len(pool.idle) < pool.idle_max:
                    pool.idle.append(self)
                else:
                    self._hang_up()
                relay.on_whole(head, body)
                return
            self._is_fresh = False
        try:
            chunks = self._chunks
            if chunks is None:
                self._read(data)
                return
            piece = chunks.take(data)
            if piece:
                if chunks.may_have_error:
                    chunks.may_have_error = False
                    relay.on_suspect_piece(piece)
                else:
                    relay.on_piece(piece)
            if chunks.is_complete:
                self._release(cast("AnswerHead", self._head))
                relay.on_end()
        except AnswerError:
            relay = cast("Relay", self.relay)
            self.cancel()
            self._lose(relay)

    def eof_received(self) -> bool:
        """End an answer that only EOF ends; anything else is a loss."""
        relay, head = self.relay, self._head
        if relay is not None and head is not None and head.length is None and not head.is_chunked:
            self.relay = None
            relay.on_end()
        self._pool.leave(self)
        return False

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - how it was lost changes nothing
        """Leave the pool; tell the relay if it still waits."""
        self.transport = None
        self._pool.forget(self)
        relay, self.relay = self.relay, None
        if relay is not None:
            self._lose(relay)

    # -- framing --------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        end = data.find(HEAD_END) + 4
        if end == 3 or end > limits.ENGINE_HEAD_BYTES:
            if len(data) > limits.ENGINE_HEAD_BYTES:
                msg = "the head of the answer is too long"
                raise AnswerError(msg)
            self._held = data
            return
        head = _remembered_head(data[:end])
        self._interim = 0 if head.status >= 200 else self._interim
        relay = cast("Relay", self.relay)
        length = head.length
        if head.status < 200:
            self._skip_interim(data[end:])
        elif relay.is_head or length == 0:
            self._whole(relay, head, b"", len(data) - end)
        elif length is None:
            self._begin_open_body(relay, head, data[end:])
        elif len(data) - end >= length:
            self._whole(relay, head, data[end:], len(data) - end - length)
        else:
            self._begin_sized_body(relay, head, data[end:], length)

    def _skip_interim(self, rest: bytes) -> None:
        self._interim += 1
        if self._interim > limits.ENGINE_INTERIM_ANSWERS:
            msg = "too many interim answers"
            raise AnswerError(msg)
        if rest:
            self._read_head(rest)

    def _whole(self, relay: Relay, head: AnswerHead, body: bytes, surplus: int) -> None:
        """Hand over an answer that is complete; bytes after its end make it void."""
        if surplus:
            msg = "the answer goes on after its end"
            raise AnswerError(msg)
        self._release(head)
        relay.on_whole(head, body)

    def _begin_sized_body(self, relay: Relay, head: AnswerHead, start: bytes, length: int) -> None:
        self._head = head
        self._left = length - len(start)
        if length <= limits.ENGINE_ANSWER_HELD_BYTES:
            self._parts = [start]
            self._read = self._read_held
            return
        self._read = self._read_sized
        relay = self.relay = relay.on_head(head)
        if start:
            relay.on_piece(start)

    def _read_held(self, data: bytes) -> None:
        self._left -= len(data)
        self._parts.append(data)
        if self._left <= 0:
            body, self._parts = b"".join(self._parts), []
            self._whole(cast("Relay", self.relay), cast("AnswerHead", self._head), body, -self._left)

    def _read_sized(self, data: bytes) -> None:
        relay = cast("Relay", self.relay)
        self._left -= len(data)
        if self._left < 0:
            msg = "the answer goes on after its end"
            raise AnswerError(msg)
        relay.on_piece(data)
        if self._left == 0:
            self._release(cast("AnswerHead", self._head))
            relay.on_end()

    def _begin_open_body(self, relay: Relay, head: AnswerHead, start: bytes) -> None:
        """Begin a body whose length is not known: chunked, or ended by EOF."""
        self._head = head
        relay = self.relay = relay.on_head(head)
        if head.is_chunked:
            self._chunks = ChunkRelay(by_event=head.is_event_stream)
            if start:
                self.data_received(start)
            return
        self._read = relay.on_piece
        if start:
            relay.on_piece(start)

    # -- end ------------------------------------------------------------------------------------------

    def _release(self, head: AnswerHead) -> None:
        """Be free for the next request, or hang up. The client whose turn it was may not have kept up to the end."""
        self.resume()
        self.relay = self._head = self._chunks = None
        self._read = self._read_head
        self._is_fresh = True
        self._was_used = True
        if not (head.keeps_alive and self._pool.keep(self)):
            self._hang_up()

    def _hang_up(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def _lose(self, relay: Relay) -> None:
        """Tell the relay that nothing more comes."""
        chunks = self._chunks
        got_nothing = self._head is None and not self._held
        relay.on_lost(
            was_stale=self._was_used and got_nothing,
            is_between=chunks is not None and chunks.is_between,
            chunks=chunks.chunks if chunks is not None else 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What a connection is opened for; a local engine need not know, the far end of a tunnel does."""

    request_id: str
    attempt: int
    deadline_s: float
    """What is left of the request's time."""
    traceparent: str = ""
    leave_after_s: float = inf
    """Seconds for which an engine may stand still before the first byte of its answer: then it goes elsewhere."""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelEnd:
    """Where tunnels lead: one file of a model at another node."""

    node: NodeId
    model: ModelId
    digest: str


class Pool(Protocol):
    """The connections to one place where a model answers."""

    endpoint: EngineEndpoint | TunnelEnd
    traffic: ModelTraffic
    idle: list[EngineConnection]
    """Those that can take a request, the one used last at the end."""
    idle_max: int
    connections: set[EngineConnection]
    opening: int
    """Connections that are being opened: each has a request already that nobody counts yet."""

    def take(self) -> EngineConnection | None:
        """Return an idle connection, or None."""

    def keep(self, connection: EngineConnection) -> bool:
        """Take a connection back; return whether there is room for it."""

    async def connect(self, errand: Errand) -> EngineConnection:
        """Open a connection. Raises OSError, TimeoutError included."""

    def leave(self, connection: EngineConnection) -> None:
        """Use a connection no more that is about to close."""

    def forget(self, connection: EngineConnection) -> None:
        """Drop a connection that is gone."""

    def retire(self) -> None:
        """Keep nothing from now on; requests in flight go on."""

    def close(self) -> None:
        """Hang up everywhere."""


class EnginePool:
    """The connections to one endpoint, which one model has."""

    __slots__ = ("_endpoint", "connections", "endpoint", "idle", "idle_max", "opening", "traffic")

    def __init__(self, endpoint: EngineEndpoint, idle_max: int, traffic: ModelTraffic) -> None:
        """Keep at most `idle_max` connections open without a request.

        An idle connection costs llama.cpp's server a thread for seconds, and it has few more threads
        than slots: more idle ones than slots would keep queued requests waiting.
        """
        self.endpoint: EngineEndpoint | TunnelEnd = endpoint
        self._endpoint = endpoint
        self.traffic = traffic
        self.idle: list[EngineConnection] = []
        """Those that can take a request, the one used last at the end. Read directly on the straight lane."""
        self.idle_max = max(1, min(idle_max, limits.ENGINE_IDLE_CONNECTIONS))
        self.connections: set[EngineConnection] = set()
        self.opening = 0

    def take(self) -> EngineConnection | None:
        """Return an idle connection, the one used last, or None."""
        return self.idle.pop() if self.idle else None

    def keep(self, connection: EngineConnection) -> bool:
        """Take a connection back; return whether there is room for it."""
        idle = self.idle
        if len(idle) >= self.idle_max:
            return False
        idle.append(connection)
        return True

    async def connect(self, errand: Errand | None = None) -> EngineConnection:  # noqa: ARG002 - engines are told by HTTP
        """Open a connection. Raises OSError, TimeoutError included."""
        loop = asyncio.get_running_loop()
        endpoint = self._endpoint
        self.opening += 1
        try:
            async with asyncio.timeout(limits.ENGINE_CONNECT_TIMEOUT_S):
                if endpoint.address is not None:
                    host, port = endpoint.address
                    _, connection = await loop.create_connection(lambda: EngineConnection(self), host, port)
                else:
                    path = endpoint.socket_path
                    _, connection = await loop.create_unix_connection(lambda: EngineConnection(self), path)
        finally:
            self.opening -= 1
        return connection

    def leave(self, connection: EngineConnection) -> None:
        """Use a connection no more that is about to close."""
        if connection in self.idle:
            self.idle.remove(connection)

    def forget(self, connection: EngineConnection) -> None:
        """Drop a connection that is gone."""
        self.connections.discard(connection)
        self.leave(connection)

    def retire(self) -> None:
        """Close what is idle and keep nothing from now on; requests in flight go on."""
        self.idle_max = 0
        for connection in tuple(self.idle):
            connection.cancel()

    def close(self) -> None:
        """Hang up everywhere."""
        self.retire()
        for connection in tuple(self.connections):
            connection.cancel()
