"""Joins a connection of the bulk plane to plain ones on this machine, one after the other: bytes go both ways.

Owns the plain connections and, while it runs, the other one, on one thread. Decides when a connection begins and ends
at the other side, and when all is over. Doesn't know what the bytes are, nor who is at either end.

Programs connect to the side that dialled, as often as they like, and each connection becomes one at the other side,
with the same TLS: what is said is a length in four bytes and so many bytes, and a length of zero where the program's
connection ended. The other side says zero, too, once it has ended its own: what comes before that belongs to nobody.
Nothing is asked and nobody waits for an answer, so that a connection costs no round trip.

Nothing is read from a side whose last bytes the other has not taken: what is held is bounded, and back pressure goes
through. A side may be silent for days; whether it is still there TCP's own probes find out.
"""

import contextlib
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from meshllm.core.limits import BRIDGE_BUFFER_BYTES, BRIDGE_CHUNK_BYTES, BRIDGE_FLUSH_S, BRIDGE_SWITCH_S
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError
from meshllm.transport.tcp import prepare

_READ, _WRITE, _GONE = select.POLLIN, select.POLLOUT, select.POLLHUP | select.POLLERR
_LENGTH = struct.Struct(">I")
_END = memoryview(_LENGTH.pack(0))
NextProgram = Callable[[], socket.socket | None]
"""Returns a connection, or None where there is none. At the side that dialled: accepts one, when its listener has one.
At the other: connects to the program there."""


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
    """What went wrong, for a failure; empty where a side just ended."""
    to_far_bytes: int
    to_near_bytes: int
    connections: int
    """Of programs, one after the other."""


class BulkBridge:
    """One bridge. `run` blocks its thread; only `abort` and the counts may be used from another one."""

    def __init__(self, channel: BulkChannel, next_program: NextProgram, listener: socket.socket | None = None) -> None:
        """Take a greeted connection, which stays the caller's to close, and a way to programs on this machine.

        With a listener this is the side where programs connect; `next_program` is called when one may have come. It
        is the other side without: there it is called when the first bytes come that are for a program.
        """
        self.to_far_bytes = 0
        """Of programs, to the other machine."""
        self.to_near_bytes = 0
        self.connections = 0
        self._channel = channel
        self._next_program = next_program
        self._listener = listener
        self._near: socket.socket | None = None
        self._watch = _Watch()
        self._frame = memoryview(bytearray(_LENGTH.size + BRIDGE_CHUNK_BYTES))
        self._content = self._frame[_LENGTH.size :]
        self._is_flushed = True
        """Whether all that was sealed has gone to the other machine."""
        self._buffer = memoryview(bytearray(BRIDGE_BUFFER_BYTES))
        self._held = self._buffer[:0]
        """What has come and is not passed on: frames, the first of them perhaps begun."""
        self._head = b""
        """The beginning of a length."""
        self._left_bytes = 0
        """Of the frame that is being passed on."""
        self._waits_for: BridgeEnd | None = None
        """Who has to take something before what is held can be passed on."""
        self._stale = 0
        """Connections that have ended here and not yet, as far as is known, at the other side."""
        self._end: BridgeEnd | None = None
        self._message = ""
        prepare(channel.bare)

    def abort(self) -> None:
        """End it, from another thread."""
        self._channel.abort()
        if (near := self._near) is not None:
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)

    def run(self) -> Bridged:
        """Pass bytes until a side ends; its last ones are delivered."""
        try:
            with _PACE:
                self._pass_on()
        except BulkError as error:
            self._end, self._message = BridgeEnd.FAR, error.message
        finally:
            self._close_near()
        return Bridged(
            end=self._end or BridgeEnd.FAR, message=self._message, to_far_bytes=self.to_far_bytes,
            to_near_bytes=self.to_near_bytes, connections=self.connections,
        )  # fmt: skip

    def _pass_on(self) -> None:
        """Pass bytes on until a side has ended, and the other has its last bytes. Raises BulkError."""
        far, over_s = self._channel.bare.fileno(), 0.0
        while not self._is_over:
            if self._end is not None:
                over_s = over_s or time.monotonic() + BRIDGE_FLUSH_S
                if time.monotonic() > over_s:
                    return
            near = self._near
            for descriptor, events in self._wait(far, near, over_s):
                if descriptor == far:
                    self._far_moved(events)
                elif near is None:
                    self._open_near()
                elif near is self._near:
                    self._near_moved(events)

    @property
    def _is_over(self) -> bool:
        if self._end is None:
            return False
        return self._is_flushed if self._end is BridgeEnd.NEAR else self._waits_for is not BridgeEnd.NEAR

    def _wait(self, far: int, near: socket.socket | None, until_s: float) -> list[tuple[int, int]]:
        """Wait until a side can go on; return which ones, by their descriptors, and what happened to them."""
        reads = _READ if self._end is None and self._is_flushed else 0
        takes = _READ if self._end is None and self._waits_for is None else 0
        side = near or (self._listener if reads else None)
        return self._watch.wait(
            far, takes if self._is_flushed else takes | _WRITE,
            -1 if side is None else side.fileno(), reads | _WRITE if self._waits_for is BridgeEnd.NEAR else reads,
            until_s,
        )  # fmt: skip

    # -- the program -----------------------------------------------------------------------------------------

    def _open_near(self) -> None:
        """Begin a program's connection, where there is one."""
        near = self._next_program()
        if near is None:
            return
        prepare(near)
        self._near = near
        self.connections += 1

    def _close_near(self) -> None:
        if self._near is not None:
            self._near.close()
        self._near = None

    def _near_moved(self, events: int) -> None:
        """Give the program what waits for it, and take what it says. Raises BulkError."""
        if self._waits_for is BridgeEnd.NEAR and events & _WRITE:
            self._deliver()
        if not events & ~_WRITE or self._near is None or self._end is not None:
            return
        if self._is_flushed:
            self._read_near(self._near)
        elif events & _GONE:  # while its last bytes wait for the other side
            self._near_ended("")

    def _read_near(self, near: socket.socket) -> None:
        """Pass on what the program says, a bounded amount. Raises BulkError."""
        try:
            count = near.recv_into(self._content)
        except BlockingIOError:
            return
        except OSError as error:
            self._near_ended(_lost(error))
            return
        if not count:
            self._near_ended("")
            return
        self.to_far_bytes += count
        _LENGTH.pack_into(self._frame, 0, count)
        self._say(self._frame[: _LENGTH.size + count])

    def _near_ended(self, message: str) -> None:
        """Tell the other side that a program's connection has ended. Raises BulkError."""
        self._close_near()
        if self._listener is None:  # the program that all others are led to: nothing more can come
            self._end, self._message = BridgeEnd.NEAR, message
            return
        self._stale += 1
        self._say(_END)
        if self._waits_for is BridgeEnd.NEAR:
            self._deliver()

    def _say(self, frame: memoryview) -> None:
        self._channel.seal(frame)
        self._is_flushed = self._channel.flush()

    # -- the other machine -----------------------------------------------------------------------------------

    def _far_moved(self, events: int) -> None:
        """Send what waits, and take what has come. Raises BulkError."""
        if not self._is_flushed:
            self._is_flushed = self._channel.flush()
        if self._waits_for is BridgeEnd.FAR and self._is_flushed:
            self._deliver()
        if self._waits_for is not None or self._end is not None:
            if events & _GONE:  # while its last bytes wait for the program
                self._end, self._waits_for = BridgeEnd.FAR, None
        elif events & ~_WRITE and (count := self._channel.take(self._buffer)) is not None:
            if not count:
                self._end = BridgeEnd.FAR
            self._held = self._buffer[:count]
            self._deliver()

    def _deliver(self) -> None:
        """Pass on what is held, as much as can be without waiting. Raises BulkError."""
        self._waits_for = None
        while self._may_deliver:
            if not self._left_bytes:
                self._begin_frame()
            elif self._stale:
                self._drop(min(self._left_bytes, len(self._held)))
            else:
                self._write_near()

    @property
    def _may_deliver(self) -> bool:
        return bool(self._held) and self._waits_for is None and self._end is not BridgeEnd.NEAR

    def _begin_frame(self) -> None:
        """Read a length, as soon as all of it has come. Raises BulkError."""
        more = _LENGTH.size - len(self._head)
        head = self._head + self._held[:more]
        if len(head) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            if length > BRIDGE_CHUNK_BYTES:
                raise BulkError(BulkCode.PROTOCOL, f"the other side says {length} bytes at once")
            if not length and not self._far_ended():
                return
            self._left_bytes, head = length, b""
        self._head, self._held = head, self._held[more:]

    def _far_ended(self) -> bool:
        """End a program's connection that has ended at the other side; return whether that was possible."""
        if self._listener is not None:
            if not self._stale:
                raise BulkError(BulkCode.PROTOCOL, "the other side ends what nobody has ended here")
            self._stale -= 1
            return True
        if not self._is_flushed:
            self._waits_for = BridgeEnd.FAR  # whoever takes nothing is told nothing
            return False
        self._close_near()
        self._say(_END)
        return True

    def _write_near(self) -> None:
        """Give the program what is for it. Raises BulkError."""
        if self._near is None and self._listener is None:
            self._open_near()
        if self._near is None:
            if self._listener is not None:
                raise BulkError(BulkCode.PROTOCOL, "the other side answers nobody")
            self._end, self._message = BridgeEnd.NEAR, "the program cannot be reached"
            return
        try:
            count = self._near.send(self._held[: self._left_bytes])
        except BlockingIOError:
            self._waits_for = BridgeEnd.NEAR
        except OSError as error:
            self._near_ended(_lost(error))
        else:
            self.to_near_bytes += count
            self._drop(count)

    def _drop(self, count: int) -> None:
        self._held = self._held[count:]
        self._left_bytes -= count


class _Watch:
    """Waits for two sockets. The system is told which, and what for, when that changes: seldom."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._wanted: dict[int, int] = {}
        self._near = -1

    def wait(self, far: int, far_events: int, near: int, near_events: int, until_s: float) -> list[tuple[int, int]]:
        """Return what happened to which descriptor; nothing after a time, where there is one. -1 is no socket."""
        wanted = self._wanted
        if near != self._near:
            if wanted.pop(self._near, None) is not None:
                self._poll.unregister(self._near)
            self._near = near
        if wanted.get(far) != far_events:
            self._poll.register(far, far_events)
            wanted[far] = far_events
        if near >= 0 and wanted.get(near) != near_events:
            self._poll.register(near, near_events)
            wanted[near] = near_events
        return self._poll.poll(1000 * max(until_s - time.monotonic(), 0.0) if until_s else None)


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


def _lost(error: OSError) -> str:
    return f"the connection was lost: {error.strerror or error}"
