"""Joins a connection of the bulk plane to a plain one on this machine: bytes go both ways until either side ends.

Owns both sockets while it runs, on one thread. Decides when it is over, and which side ended it. Doesn't know what
the bytes are, nor who is at either end.

Nothing is read from a side whose last bytes the other has not taken: what is held is bounded, and back pressure goes
through. A side may be silent for days; whether it is still there TCP's own probes find out.
"""

import contextlib
import select
import socket
import sys
import threading
import time
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
from meshllm.transport.bulk_channel import BulkChannel, BulkError

_READ, _WRITE, _GONE = select.POLLIN, select.POLLOUT, select.POLLHUP | select.POLLERR


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
        _prepare(channel.bare)
        _prepare(near)
        self._out = _Out(near, channel)
        self._in = _In(near, channel)

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
        except _NearError as error:
            message = error.message
        except BulkError as error:
            end, message = BridgeEnd.FAR, error.message
        return Bridged(end=end, message=message, to_far_bytes=self.to_far_bytes, to_near_bytes=self.to_near_bytes)

    def _pass_on(self) -> BridgeEnd:
        """Pass bytes on; return which side ended. Raises BulkError, _NearError."""
        near, far = self._near.fileno(), self._channel.bare.fileno()
        flows = (self._out, self._in)
        poll = select.poll()
        over_s, ready = 0.0, {near, far}
        while True:
            wanted = {near: 0, far: 0}
            for flow in flows:
                if flow.waits_for.fileno() in ready:
                    flow.turn()
                if flow.is_over and flow.is_empty:
                    return BridgeEnd.NEAR if flow is self._out else BridgeEnd.FAR
                wanted[flow.waits_for.fileno()] |= flow.waits
                over_s = over_s or (time.monotonic() + BRIDGE_FLUSH_S if flow.is_over else 0.0)
            for descriptor, events in wanted.items():
                poll.register(descriptor, events)
            left_s = max(over_s - time.monotonic(), 0.0) if over_s else None
            happened = poll.poll(left_s and left_s * 1000)
            ready = {descriptor for descriptor, _ in happened}
            for descriptor, events in happened:
                if not wanted[descriptor] and events & _GONE:  # while its last bytes wait for the other side
                    return BridgeEnd.NEAR if descriptor == near else BridgeEnd.FAR
            if over_s and not happened:
                return BridgeEnd.NEAR if self._out.is_over else BridgeEnd.FAR


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


class _NearError(Exception):
    """The program on this machine is gone."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.message = f"the connection was lost: {error.strerror or error}"


class _Out:
    """What goes to the other machine."""

    def __init__(self, near: socket.socket, channel: BulkChannel) -> None:
        self.passed_bytes = 0
        self.is_over = False
        self.is_empty = True
        self.waits_for, self.waits = near, _READ
        self._near = near
        self._channel = channel
        self._buffer = memoryview(bytearray(BRIDGE_BUFFER_BYTES))

    def turn(self) -> None:
        """Move what can be moved without waiting, a bounded amount. Raises BulkError, _NearError."""
        self._send()
        if not self.is_empty or self.is_over:
            return
        try:
            count = self._near.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            raise _NearError(error) from error
        self.is_over = not count
        self.passed_bytes += count
        self._channel.seal(self._buffer[:count])
        self._send()

    def _send(self) -> None:
        self.is_empty = self._channel.flush()
        self.waits_for, self.waits = (self._near, _READ) if self.is_empty else (self._channel.bare, _WRITE)


class _In:
    """What comes from the other machine."""

    def __init__(self, near: socket.socket, channel: BulkChannel) -> None:
        self.passed_bytes = 0
        self.is_over = False
        self.waits_for, self.waits = channel.bare, _READ
        self._near = near
        self._channel = channel
        self._buffer = memoryview(bytearray(BRIDGE_BUFFER_BYTES))
        self._held = self._buffer[:0]

    @property
    def is_empty(self) -> bool:
        """Tell whether the program has taken everything."""
        return not self._held

    def turn(self) -> None:
        """Move what can be moved without waiting, a bounded amount. Raises BulkError, _NearError."""
        if not self._held and not self.is_over and (count := self._channel.take(self._buffer)) is not None:
            self.is_over = not count
            self._held = self._buffer[:count]
        try:
            while self._held:
                count = self._near.send(self._held)
                self._held = self._held[count:]
                self.passed_bytes += count
        except BlockingIOError:
            self.waits_for, self.waits = self._near, _WRITE
        except OSError as error:
            raise _NearError(error) from error
        else:
            self.waits_for, self.waits = self._channel.bare, _READ


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
