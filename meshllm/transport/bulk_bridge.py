"""Joins a connection of the bulk plane to a plain one on this machine: bytes go both ways until either side ends.

Owns both sockets while it runs, on one thread. Decides when it is over, and which side ended it. Doesn't know what
the bytes are, nor who is at either end.

Nothing is read from a side whose last bytes the other has not taken: what is held is bounded, and back pressure goes
through. A side may be silent for days; whether it is still there TCP's own probes find out.
"""

import contextlib
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from meshllm.core.limits import (
    BRIDGE_BUFFER_BYTES,
    BRIDGE_FLUSH_S,
    BRIDGE_PROBE_AFTER_S,
    BRIDGE_PROBE_EVERY_S,
    BRIDGE_PROBES,
    BRIDGE_SWITCH_S,
)
from meshllm.transport.bulk_channel import BulkChannel

RECORD_BYTES = 16 * 1024
"""The most that TLS gives at once; with room for it nothing stays where a poll cannot see it."""
_READ, _WRITE = select.POLLIN, select.POLLOUT


class BridgeEnd(StrEnum):
    """Which side ended a bridge."""

    NEAR = "near"
    """The program on this machine."""
    FAR = "far"
    """The other machine, or the way there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridged:
    """How a bridge went."""

    end: BridgeEnd
    message: str
    """What the socket said, for a failure; empty where a side just ended."""
    to_far_bytes: int
    to_near_bytes: int


class BulkBridge:
    """One bridge. `run` blocks its thread; only `abort` and the counts may be used from another one."""

    def __init__(self, channel: BulkChannel, near: socket.socket) -> None:
        """Take a greeted connection and a connected socket. Both stay the caller's to close."""
        self._channel = channel
        self._near = near
        far = channel.bare
        _prepare(far)
        _prepare(near)
        self._out = _Flow(near, far)
        self._in = _Flow(far, near)

    @property
    def to_far_bytes(self) -> int:
        """Return how many bytes went to the other machine."""
        return self._out.passed_bytes

    @property
    def to_near_bytes(self) -> int:
        """Return how many bytes came from the other machine."""
        return self._in.passed_bytes

    def abort(self) -> None:
        """End it, from another thread."""
        self._channel.abort()
        with contextlib.suppress(OSError):
            self._near.shutdown(socket.SHUT_RDWR)

    def run(self) -> Bridged:
        """Pass bytes until a side ends; its last ones are delivered."""
        end, message = BridgeEnd.NEAR, ""
        try:
            with _PACE:
                end = self._pass_on()
        except _SideError as error:
            end, message = BridgeEnd.NEAR if error.side is self._near else BridgeEnd.FAR, error.message
        return Bridged(end=end, message=message, to_far_bytes=self.to_far_bytes, to_near_bytes=self.to_near_bytes)

    def _pass_on(self) -> BridgeEnd:
        """Pass bytes on; return which side ended. Raises _SideError."""
        flows = (self._out, self._in)
        poll = select.poll()
        over_s = 0.0
        while True:
            wanted = {self._near.fileno(): 0, self._channel.bare.fileno(): 0}
            for flow in flows:
                flow.turn()
                if flow.is_over and flow.is_empty:
                    return self._end_of(flow.source.fileno())
                wanted[flow.waits_for.fileno()] |= flow.waits
                over_s = over_s or (time.monotonic() + BRIDGE_FLUSH_S if flow.is_over else 0.0)
            for descriptor, events in wanted.items():
                poll.register(descriptor, events)
            left_s = max(over_s - time.monotonic(), 0.0) if over_s else None
            happened = poll.poll(left_s and left_s * 1000)
            for descriptor, events in happened:
                if not wanted[descriptor] and events & (select.POLLHUP | select.POLLERR):
                    return self._end_of(descriptor)  # gone, while its last bytes wait for the other side
            if over_s and not happened:
                return self._end_of((self._out if self._out.is_over else self._in).source.fileno())

    def _end_of(self, descriptor: int) -> BridgeEnd:
        return BridgeEnd.NEAR if descriptor == self._near.fileno() else BridgeEnd.FAR


class _Pace:
    """Lets threads of this process take turns often, while there is any bridge.

    A message waits at each side for whatever else computes in the interpreter; unasked, that gives way after 5 ms,
    which is most of a token. Measured with a busy interpreter at both sides: 40 ms for a round trip, and 4 ms so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bridges = 0
        self._usual_s = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._bridges:
                self._usual_s = sys.getswitchinterval()
                sys.setswitchinterval(BRIDGE_SWITCH_S)
            self._bridges += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._bridges -= 1
            if not self._bridges:
                sys.setswitchinterval(self._usual_s)


_PACE = _Pace()


class _SideError(Exception):
    """A side broke."""

    def __init__(self, side: socket.socket, message: str) -> None:
        super().__init__(message)
        self.side = side
        self.message = message


class _Flow:
    """One direction: what was read and not yet taken, and which readiness would let it go on."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.passed_bytes = 0
        self.is_over = False
        self.waits_for = source
        self.waits = _READ
        self._buffer = memoryview(bytearray(BRIDGE_BUFFER_BYTES))
        self._held = self._buffer[:0]

    @property
    def is_empty(self) -> bool:
        """Tell whether everything that was read has been taken."""
        return not self._held

    def turn(self) -> None:
        """Move what can be moved without waiting, a bounded amount. Raises _SideError."""
        if not self._held and not self.is_over:
            self._fill()
        if self._held:
            self._drain()

    def _fill(self) -> None:
        filled = 0
        with _blamed(self.source):
            while len(self._buffer) - filled >= RECORD_BYTES:
                try:
                    count = self.source.recv_into(self._buffer[filled:])
                except (BlockingIOError, ssl.SSLWantReadError):
                    self._wait(self.source, _READ)
                    break
                except ssl.SSLWantWriteError:  # TLS itself has something to say first
                    self._wait(self.source, _WRITE)
                    break
                filled += count
                self.is_over = not count
                if count != RECORD_BYTES:  # no full record: most likely nothing more is there
                    break
        self._held = self._buffer[:filled]
        if not filled:
            return
        self._wait(self.source, _READ)

    def _drain(self) -> None:
        with _blamed(self.sink):
            while self._held:
                try:
                    count = self.sink.send(self._held)
                except (BlockingIOError, ssl.SSLWantWriteError):
                    self._wait(self.sink, _WRITE)
                    return
                except ssl.SSLWantReadError:
                    self._wait(self.sink, _READ)
                    return
                self._held = self._held[count:]
                self.passed_bytes += count
        self._wait(self.source, _READ)

    def _wait(self, side: socket.socket, events: int) -> None:
        self.waits_for, self.waits = side, events


@contextlib.contextmanager
def _blamed(side: socket.socket) -> Iterator[None]:
    """Say which side a failure was of."""
    try:
        yield
    except ssl.SSLError as error:
        raise _SideError(side, f"TLS failed: {error.reason or type(error).__name__}") from error
    except OSError as error:
        raise _SideError(side, f"the connection was lost: {error.strerror or error}") from error


def _prepare(side: socket.socket) -> None:
    """Let a socket never wait, send small messages at once, and notice when nobody is there any more."""
    side.setblocking(False)
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    for name, value in (
        ("TCP_KEEPIDLE", BRIDGE_PROBE_AFTER_S), ("TCP_KEEPINTVL", BRIDGE_PROBE_EVERY_S), ("TCP_KEEPCNT", BRIDGE_PROBES),
        ("TCP_USER_TIMEOUT", 1000 * (BRIDGE_PROBE_AFTER_S + BRIDGE_PROBE_EVERY_S * BRIDGE_PROBES)),
    ):  # fmt: skip
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    for level, option, value in options:
        with contextlib.suppress(OSError):  # not every kind of socket has it
            side.setsockopt(level, option, value)
