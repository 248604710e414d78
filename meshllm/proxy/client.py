"""One client's connection: bytes become requests, in order, and answers go back.

Owns the reading of requests with their deadlines, pipelining, back-pressure and the ways a connection
ends. Decides when a request is complete and when a client is too slow, too fast or gone. Doesn't know
what a request asks for: complete ones go to the `House`.

Invariant: at most one request is being answered; what comes behind it waits in the buffer.
"""

import asyncio
import socket
from time import monotonic
from typing import Protocol, cast

from meshllm.core import limits
from meshllm.proxy.forward import Exchange
from meshllm.proxy.heads import Arrival, Heads
from meshllm.proxy.http1 import HEAD_END, ChunkedBody, ProtocolError, body_too_large, check_partial
from meshllm.proxy.openai import Problem
from meshllm.proxy.problem_answers import problem_answer
from meshllm.proxy.straight import LaneHouse, Phase, StraightLane

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TCP_CLOSED = b"\x07"


class House(LaneHouse, Protocol):
    """What a connection needs of the front door."""

    @property
    def is_leaving(self) -> bool:
        """Tell whether the node takes nothing more."""

    @property
    def times(self) -> "ClientTimes":
        """Return the deadlines."""

    def admit(self, client: "ClientConnection", address: str) -> Problem | None:
        """Count a connection in, or say why there is no room."""

    def forget(self, client: "ClientConnection", address: str) -> None:
        """Count a connection out."""

    def heads(self, local_address: str) -> Heads:
        """Return the memory of heads for connections to a local address."""

    def serve(self, client: "ClientConnection", arrival: Arrival, body: bytes) -> Exchange | None:
        """Answer a complete request: at once, or through the exchange that is returned."""

    def error_lines(self, arrival: Arrival | None) -> bytes:
        """Return our own fields for an answer that no engine had a part in."""


class ClientTimes(Protocol):
    """Deadlines of a connection, in seconds."""

    @property
    def header_timeout_s(self) -> float:
        """Return how long a head may take."""

    @property
    def body_timeout_s(self) -> float:
        """Return how long a body may stand still, and take beyond its size."""

    @property
    def keep_alive_timeout_s(self) -> float:
        """Return how long a connection may rest."""

    @property
    def slow_client_timeout_s(self) -> float:
        """Return how long a client may take nothing."""

    @property
    def linger_s(self) -> float:
        """Return how long input is discarded after a final error."""


_IDLE, _HEAD, _BODY, _LINGER = Phase.IDLE, Phase.HEAD, Phase.BODY, Phase.LINGER
_STRAIGHT, _BUSY = Phase.STRAIGHT, Phase.BUSY


class ClientConnection(StraightLane):
    """One connection from a client: everything beside the straight lane."""

    __slots__ = (
        "_address", "_buffer", "_checked_bytes", "_chunked", "_has_eof", "_is_advancing", "_is_held_back", "_is_probed",
        "_paused_at_s", "_progress_at_s", "_received_bytes",
    )  # fmt: skip

    _house: House

    def __init__(self, house: House) -> None:
        """Belong to a front door."""
        super().__init__(house)
        self._buffer = bytearray()
        self._chunked: ChunkedBody | None = None
        self._checked_bytes = 0
        self._received_bytes = 0
        self._since_s = monotonic()
        self._progress_at_s = 0.0
        self._paused_at_s = 0.0
        self._has_eof = False
        self._is_probed = False
        self._is_advancing = False
        self._is_held_back = False
        self._address = ""

    # -- asyncio.Protocol -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Come in, or be told that the house is full."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(limits.RELAY_HIGH_WATER_BYTES, limits.RELAY_LOW_WATER_BYTES)
        self._address = _address(transport.get_extra_info("peername"))
        self._heads = self._house.heads(_address(transport.get_extra_info("sockname")))
        self._known = self._heads.known
        refusal = self._house.admit(self, self._address)
        if refusal is not None:
            self._refuse(refusal)

    def receive(self, data: bytes) -> None:
        """Take bytes step by step."""
        if self._phase is _LINGER:
            return
        self._buffer += data
        self.leave_lane()
        if self._phase is _BUSY:
            self._hold_back()
        elif not self._is_advancing:
            self._advance()

    def eof_received(self) -> bool:
        """Keep the connection open while an answer is due: the client may only be done sending."""
        self._has_eof = True
        return self.exchange is not None or self._phase is _BUSY

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - how it was lost changes nothing
        """Free the engine's slot if an answer was due."""
        exchange, self._exchange = self.exchange, None
        self._transport = None
        self._phase = _LINGER
        self._house.forget(self, self._address)
        if exchange is not None:
            self._traffic.aborted += 1
            exchange.cancel()

    def pause_writing(self) -> None:
        """Stop the engine's bytes: the client does not keep up."""
        self.is_paused = True
        self._paused_at_s = monotonic()
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """Let the engine's bytes come again."""
        self.is_paused = False
        if self.exchange is not None:
            self.exchange.resume()

    # -- ClientSide: for the exchange -----------------------------------------------------------------

    def exchange_done(self, status: int, *, keeps_alive: bool) -> None:
        """Count the answer; read the next request or close."""
        self._traffic.by_status[status // 100] += 1
        self._exchange = None
        if self._transport is None:
            return
        if not keeps_alive or self._house.is_leaving or (self._has_eof and not self._buffer):
            self._end()
            return
        self._phase = _IDLE
        self._since_s = monotonic()
        if self._buffer:
            if self._is_held_back:
                self._is_held_back = False
                self._transport.resume_reading()
            if not self._is_advancing:
                self._advance()

    def cut(self) -> None:
        """Break the connection."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    # -- for the house --------------------------------------------------------------------------------

    def answer(self, data: bytes, status: int, *, keeps_alive: bool) -> None:
        """Write a whole answer that the house itself gives."""
        self.send(data)
        self.exchange_done(status, keeps_alive=keeps_alive)

    @property
    def address(self) -> str:
        """Return the IP that it comes from; empty for a tunnel."""
        return self._address

    @property
    def ends(self) -> tuple[object, object]:
        """Return the socket names of the connection: the client's end, then ours."""
        transport = self._transport
        if transport is None:
            return None, None
        return transport.get_extra_info("peername"), transport.get_extra_info("sockname")

    @property
    def exchange(self) -> Exchange | None:
        """Return the exchange under way; a request on the straight lane leaves it for that."""
        self.leave_lane()
        return self._exchange

    def leave_lane(self) -> None:
        """Take a request that is on the straight lane to the general path; the next head is looked up again."""
        self._last = None
        if self._phase is _STRAIGHT:
            self.hand_over()

    def close(self) -> None:
        """Close after what is written is out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    def check(self, now_s: float) -> None:
        """Act on deadlines that have passed. Called a few times a second."""
        times, phase = self._house.times, self._phase
        self._since_s = self._since_s or now_s
        waited_s = now_s - self._since_s
        if self.is_paused and now_s - self._paused_at_s > times.slow_client_timeout_s:
            self.abort()
        elif phase is _BUSY or phase is _STRAIGHT:
            if self._has_eof:
                self._check_half_closed()
        elif phase is _HEAD:
            if waited_s >= times.header_timeout_s - limits.HTTP_SWEEP_INTERVAL_S:
                self._refuse(Problem(status=408, code="request_timeout", message="the request's head did not come"))
        elif phase is _BODY:
            slack_s = self._received_bytes / limits.HTTP_BODY_RATE_BYTES_PER_S
            limit_s = times.body_timeout_s - limits.HTTP_SWEEP_INTERVAL_S
            if waited_s >= limit_s + slack_s or now_s - self._progress_at_s >= limit_s:
                self._refuse(Problem(status=408, code="request_timeout", message="the request's body came too slowly"))
        elif phase is _LINGER:
            if waited_s > times.linger_s:
                self.abort()
        elif waited_s > times.keep_alive_timeout_s:
            self.close()

    # -- reading --------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Read and serve what is in the buffer, one request after the other."""
        self._is_advancing = True
        try:
            while self._step():
                pass
        except ProtocolError as error:
            self._refuse(Problem(status=error.status, code=error.code, message=error.message))
        finally:
            self._is_advancing = False
        if self._has_eof and self._phase in {_IDLE, _HEAD, _BODY}:
            self.close()

    def _step(self) -> bool:
        """Take one step; return whether another may follow at once."""
        if self._phase is _IDLE or self._phase is _HEAD:
            return self._take_head()
        return self._take_body() if self._phase is _BODY else False

    def _take_head(self) -> bool:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # RFC 9112 2.2: empty lines before a request are ignored
            del buffer[:2]
        if not buffer or (self._transport is not None and self._transport.is_closing()):
            return False
        if self._phase is _IDLE:
            self._phase, self._since_s, self._checked_bytes = _HEAD, monotonic(), 0
        end = buffer.find(HEAD_END, max(self._checked_bytes - 3, 0)) + 4
        if end == 3 or end > limits.HTTP_HEADER_BLOCK_BYTES:
            if buffer != b"\r":
                check_partial(buffer if end == 3 else buffer[:end], self._checked_bytes)
            self._checked_bytes = len(buffer)
            return False
        block = bytes(buffer[:end])
        del buffer[:end]
        self._begin_body(self._heads.read(block))
        return True

    def _begin_body(self, arrival: Arrival) -> None:
        intake, head = arrival.intake, arrival.intake.head
        self._arrival = arrival
        if intake.refusal is not None:
            if arrival.length or head.is_chunked:
                self._refuse(intake.refusal)
            else:
                self.serve(arrival, b"")
            return
        if arrival.length > intake.body_limit_bytes:
            raise body_too_large(intake.body_limit_bytes)
        self._chunked = ChunkedBody(intake.body_limit_bytes) if head.is_chunked else None
        self._phase, self._received_bytes = _BODY, 0
        self._since_s = self._progress_at_s = monotonic()
        if head.expects_continue and len(self._buffer) < max(arrival.length, 1):
            self.send(_CONTINUE)

    def _take_body(self) -> bool:
        buffer, arrival = self._buffer, self._arrival
        before_bytes = len(buffer)
        if self._chunked is not None:
            body = self._chunked.feed(buffer)
            self._received_bytes += before_bytes - len(buffer)
        else:
            body = _take(buffer, arrival.length)
            self._received_bytes = before_bytes
        if body is None:
            self._progress_at_s = monotonic()
            return False
        self.serve(arrival, body)
        return True

    def serve(self, arrival: Arrival, body: bytes) -> None:
        """Let the house answer a complete request."""
        self._phase, self._arrival, self._is_probed = _BUSY, arrival, False
        self._exchange = self._house.serve(self, arrival, body)

    def _hold_back(self) -> None:
        """Stop reading when enough requests wait behind the one that is being answered."""
        if self._transport is None or self._is_held_back:
            return
        buffer = self._buffer
        if len(buffer) > limits.HTTP_PIPELINE_BYTES or buffer.count(HEAD_END) >= limits.HTTP_PIPELINE_DEPTH:
            self._is_held_back = True
            self._transport.pause_reading()

    # -- ends -----------------------------------------------------------------------------------------

    def _refuse(self, problem: Problem) -> None:
        """Answer with an error and end: what follows in the input cannot be trusted or is not wanted."""
        arrival = self._arrival if self._phase is _BODY else None
        lines = self._house.error_lines(arrival) + b"Connection: close\r\n"
        self.send(problem_answer(problem, arrival.intake if arrival is not None else None, lines))
        self._traffic.by_status[problem.status // 100] += 1
        self._buffer.clear()
        self._phase, self._since_s = _LINGER, monotonic()
        transport = self._transport
        if transport is None:
            return
        if self._has_eof:
            transport.close()
        else:
            transport.write_eof()

    def _end(self) -> None:
        """Close after an answer; at once, since the whole request was read."""
        self._phase, self._since_s = _LINGER, monotonic()
        if self._buffer and not self._has_eof:
            cast("asyncio.Transport", self._transport).write_eof()
        else:
            self.close()

    def _check_half_closed(self) -> None:
        """After the client's FIN, find out whether it still reads: a closed socket answers data with a reset."""
        if not self._is_probed:
            self._is_probed = True
            if self._exchange is not None:
                self._exchange.ask_if_alive()
        elif self._transport is not None and _is_reset(self._transport):
            self.abort()


def _take(buffer: bytearray, length: int) -> bytes | None:
    """Take `length` bytes from the front of a buffer, or None while they are not all there."""
    if len(buffer) < length:
        return None
    if len(buffer) == length:
        body = bytes(buffer)
        buffer.clear()
        return body
    body = bytes(memoryview(buffer)[:length])
    del buffer[:length]
    return body


def _address(name: object) -> str:
    """Return the IP of a socket's name; empty for a Unix socket."""
    return str(name[0]) if isinstance(name, tuple) else ""


def _is_reset(transport: asyncio.Transport) -> bool:
    """Tell whether the other side has reset a connection that is not read any more."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    try:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        if not hasattr(socket, "TCP_INFO"):
            return False
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:
        return True
    return bytes(info[:1]) == _TCP_CLOSED
