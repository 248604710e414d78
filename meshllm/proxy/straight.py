"""The straight lane: the way of most requests, from one read to one write, and back from one read to one write.

Owns a client's request while it is plain: it came whole, its head was met before, its body is plain text,
its model is ready, its engine has room and a connection that rests; and its answer is whole or a stream of
events. Decides nothing of its own: each verdict was made by the general path and is remembered (`heads`,
`targets`), or comes from the function that the general path asks too (`peek`). Doesn't know what to do when
anything is unusual: then it makes the `Exchange` that the general path would have by then, and hands over.

Invariant: what goes to the engine and to the client is what the general path would have sent, byte for byte.

Speed is the only reason for this module, and calls are what Python is slow at: so what others do in a
method of a line or two (`ModelTraffic.begin` and `end`, `EnginePool.take`) is written out here.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Iterator
from enum import IntEnum
from itertools import chain, count
from time import monotonic
from typing import Protocol, cast

from meshllm.core import limits
from meshllm.proxy.forward import Exchange
from meshllm.proxy.framing import AnswerHead
from meshllm.proxy.heads import Arrival, Heads
from meshllm.proxy.http1 import HEAD_END, ProtocolError
from meshllm.proxy.journal import Journal
from meshllm.proxy.peek import NOTHING_SEEN, plain_chat
from meshllm.proxy.pool import EngineConnection, Relay
from meshllm.proxy.sides import Recovery
from meshllm.proxy.target import Target
from meshllm.proxy.targets import Targets
from meshllm.proxy.traffic import Traffic

_LAST_DIGITS = tuple(b"%02x" % number for number in range(256))


def request_ids(start: bytes) -> Iterator[bytes]:
    """Return ids that begin alike and are never the same: `start` and a number of two hexadecimal digits or more.

    Each is the sum of two texts that are there already, since formatting a number takes longer than finding a route.
    """
    return chain.from_iterable(map((start + (b"%x" % high if high else b"")).__add__, _LAST_DIGITS) for high in count())


class Phase(IntEnum):
    """What a client's connection does."""

    IDLE = 0  # between requests; nothing is in the buffer
    HEAD = 1  # a head is incomplete
    BODY = 2  # a body is incomplete
    STRAIGHT = 3  # a request is being answered, on the lane
    BUSY = 4  # a request is being answered, through an exchange
    LINGER = 5  # the last answer is out; input is discarded so that the client can read it


_IDLE, _STRAIGHT, _BUSY = Phase.IDLE, Phase.STRAIGHT, Phase.BUSY
Underway = tuple[Arrival, Target, bytes, bytes, EngineConnection, float]
"""A request on the lane: its head, where it goes, its body and id, the connection, and when a stream was sent.

A plain tuple: it is made and read in one step, which is what six fields cost most with.
"""


class LaneHouse(Recovery, Protocol):
    """What the lane needs of the front door."""

    traffic: Traffic
    request_ids: Iterator[bytes]
    routes: Targets


class StraightLane(asyncio.Protocol):
    """A client's connection as far as plain requests need it; `client.ClientConnection` adds everything else.

    It is the relay of an engine's connection as long as a request is on the lane, and so there is no
    object for the request: what is known of it stands in the fields of the connection.
    """

    __slots__ = (
        "_arrival", "_exchange", "_has_begun", "_head", "_heads", "_house", "_journal", "_known", "_last",
        "_last_block", "_last_bytes", "_phase", "_request_ids", "_routes", "_since_s", "_traffic", "_transport",
        "_underway", "is_paused",
    )  # fmt: skip

    is_head = False

    def __init__(self, house: LaneHouse) -> None:
        """Belong to a front door."""
        self._house = house
        self._traffic = house.traffic
        self._routes = house.routes
        self._request_ids = house.request_ids
        self._transport: asyncio.Transport | None = None
        self._heads: Heads
        self._known: dict[bytes, Arrival] = {}
        self._phase = _IDLE
        self._since_s = 0.0
        """Since when it is in its phase, as a monotonic time; 0: since a moment ago, see `check`."""
        self.is_paused = False
        self._arrival: Arrival
        self._last: Arrival | None = None
        """The last head that came whole: a client whose requests are as long says the same again."""
        self._last_block = b""
        self._last_bytes = 0
        self._exchange: Exchange | None = None
        # Only while the phase is STRAIGHT:
        self._underway: Underway | None = None
        self._head: AnswerHead | None = None
        """Of a stream that has not begun."""
        self._has_begun = False
        """Events of the answer are out."""
        self._journal: Journal | None = None

    def data_received(self, data: bytes) -> None:
        """Serve a request that came whole with a head met before at once; leave anything else to `receive`."""
        self._traffic.bytes_in += len(data)
        if self._phase is _IDLE:
            arrival = self._last
            if arrival is None or not data.startswith(self._last_block):
                arrival = self._look_up(data)
            body = data[self._last_bytes :]
            if arrival is not None and len(body) == arrival.plain_length:
                if not (arrival.is_straight and self._go(arrival, body)):
                    self.serve(arrival, body)
                return
        self.receive(data)

    @abstractmethod
    def receive(self, data: bytes) -> None:
        """Take bytes that are not simply the next request."""

    @abstractmethod
    def serve(self, arrival: Arrival, body: bytes) -> None:
        """Serve a complete request on the general path."""

    def _look_up(self, data: bytes) -> Arrival | None:
        """Return the verdict on a head that came whole, and remember it as the last one.

        None where something is wrong or odd with it, so that it is read again.
        """
        end = data.find(HEAD_END) + 4
        if end == 3 or end > limits.HEAD_REMEMBERED_BYTES:
            return None
        block = data[:end]
        arrival = self._known.get(block)
        if arrival is None:
            try:
                arrival = self._heads.read(block)
            except ProtocolError:
                return None
        self._last, self._last_block, self._last_bytes = arrival, block, end
        return arrival

    def _go(self, arrival: Arrival, body: bytes) -> bool:
        """Send a request on if everything about it is plain; tell whether it was."""
        document = plain_chat(body)
        routes = self._routes
        if document is None or self.is_paused or routes.view is not routes.views.newest:
            return False
        target = routes.chats.get(document.get("model"))
        if target is None or arrival.length > target.unasked_bytes:
            return False
        traffic, idle = target.traffic, target.pool.idle
        in_flight = traffic.in_flight
        if in_flight >= target.at_once or not idle:
            return False
        if not in_flight:
            traffic.has_moved = True
        traffic.in_flight = in_flight + 1
        self._phase = _STRAIGHT
        request_id = arrival.request_id or next(self._request_ids)
        connection = idle.pop()
        sent_s = monotonic() if document.get("stream") is True else 0.0
        self._underway = (arrival, target, body, request_id, connection, sent_s)
        connection.relay = self
        connection.transport.write(  # type: ignore[union-attr]  # a connection that is lost does not rest
            b"".join((arrival.engine_start, target.engine_lines, request_id, b"\r\n\r\n", body))
        )
        return True

    # -- Relay: from the engine -----------------------------------------------------------------------

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        """Pass a complete answer on in one write, and be ready for the next request."""
        if head.status != 200:
            self.hand_over().on_whole(head, body)
            return
        arrival, target, _, request_id, _, _ = cast("Underway", self._underway)
        answer = b"".join((head.answer_start, request_id, target.answer_lines, arrival.intake.answer_end, body))
        traffic = target.traffic
        traffic.in_flight -= 1
        traffic.finished_since += 1
        if traffic.waiters:
            traffic.wake()
        self._traffic.bytes_out += len(answer)
        self._phase, self._since_s, self._underway = _IDLE, 0.0, None
        self._transport.write(answer)  # type: ignore[union-attr]  # a connection that is lost leaves the lane

    def on_head(self, head: AnswerHead) -> Relay:
        """Keep the head of a stream until its first events come; hand over what comes in pieces otherwise."""
        is_plain = head.is_event_stream and head.is_chunked and head.status == 200
        arrival, _, _, _, _, sent_s = cast("Underway", self._underway)
        if is_plain and sent_s and arrival.intake.head.minor:
            self._head = head
            return self
        return self.hand_over().on_head(head)

    def on_piece(self, data: bytes) -> None:
        """Pass events on as they came."""
        if not self._has_begun:
            data = self._opening(data)
        elif self._journal is not None:
            self._journal.keep(data)
        self._traffic.bytes_out += len(data)
        self._transport.write(data)  # type: ignore[union-attr]  # a connection that is lost leaves the lane

    def _opening(self, data: bytes) -> bytes:
        """Begin the answer with its first events; keep them where another engine could go on with them."""
        arrival, target, _, request_id, _, sent_s = cast("Underway", self._underway)
        head, intake = cast("AnswerHead", self._head), arrival.intake
        self._head, self._has_begun = None, True
        target.traffic.first_token(monotonic() - sent_s)
        journal = self._journal = self._house.journal(intake, NOTHING_SEEN, target)
        if journal is not None:
            journal.keep(data)
        start = b"Transfer-Encoding: chunked\r\nX-Request-ID: "
        return b"".join((head.lines, start, request_id, target.answer_lines, intake.answer_end, data))

    def on_suspect_piece(self, data: bytes) -> None:
        """Hand over: somebody has to look for an error among the events."""
        self.hand_over().on_suspect_piece(data)

    def on_end(self) -> None:
        """Count a stream, and be ready for the next request."""
        if self._phase is not _STRAIGHT or not self._has_begun:
            exchange = self._exchange if self._phase is _BUSY else self.hand_over()
            cast("Exchange", exchange).on_end()  # its last events made it leave the lane
            return
        traffic = cast("Underway", self._underway)[1].traffic
        traffic.in_flight -= 1
        traffic.finished_since += 1
        if traffic.waiters:
            traffic.wake()
        self._phase, self._since_s, self._underway = _IDLE, 0.0, None
        self._has_begun, self._journal = False, None

    def on_lost(self, *, was_stale: bool, is_between: bool, chunks: int) -> None:
        """Hand over: the engine is gone."""
        self.hand_over().on_lost(was_stale=was_stale, is_between=is_between, chunks=chunks)

    # -- off the lane ---------------------------------------------------------------------------------

    def hand_over(self) -> Exchange:
        """Leave the lane: make the exchange that has the request from here on."""
        arrival, target, body, request_id, connection, sent_s = cast("Underway", self._underway)
        exchange = Exchange(self, arrival.intake, body, request_id, self._house, target)
        exchange.is_stream, exchange.trace, exchange.sent_s = sent_s > 0.0, arrival.trace, sent_s
        exchange.take_over(connection)
        if self._has_begun:
            exchange.go_on_with(self._journal)
        elif self._head is not None:
            exchange.on_head(self._head)
        self._has_begun, self._head, self._journal = False, None, None
        if connection.relay is self:
            connection.relay = exchange
        self._arrival = arrival
        self._phase, self._exchange, self._underway = _BUSY, exchange, None
        return exchange

    # -- ClientSide: for an exchange ------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write bytes of the answer."""
        transport = self._transport
        if transport is not None:
            transport.write(data)
            self._traffic.bytes_out += len(data)

    @abstractmethod
    def exchange_done(self, status: int, *, keeps_alive: bool) -> None:
        """Count the answer; read the next request or close."""

    @abstractmethod
    def cut(self) -> None:
        """Break the connection."""
