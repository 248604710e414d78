"""All lines of a node: those that it dialled and that rest until a tunnel takes them, and those that peers dialled.

Owns both. Decides nothing about when another one is dialled, nor how many there may be: `core.lines` does. Doesn't know
what runs on them, nor where peers are: `LinesUser` says so. A tunnel that finds no line takes a stream of the
connection: lines are never waited for.
"""

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic

from meshllm.core.announcement import Address
from meshllm.core.ids import NodeId, short
from meshllm.core.line_limits import LINE_AGAIN_S, LINE_DIALS
from meshllm.core.lines import may_dial, may_take
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError, Sealed
from meshllm.transport.line import Line, LineStream
from meshllm.transport.stream import StreamLost
from meshllm.transport.tcp import prepare

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinesUser:
    """What lines need of their node."""

    addresses: Callable[[NodeId], Sequence[Address]]
    """Where a peer takes lines: none where it does not."""
    dial: Callable[[NodeId, Sequence[Address], Callable[[BulkChannel], None]], BulkChannel]
    """Opens one. Blocks, on a thread. Raises BulkError."""
    start_task: Callable[[str, Coroutine[object, object, None]], asyncio.Task[None]]


class Lines:
    """One node's lines, by peer."""

    def __init__(self, user: LinesUser) -> None:
        """Have none. `on_stream` has to be set before peers may dial."""
        self.on_stream: Callable[[NodeId, LineStream], None] | None = None
        """Takes the streams that peers begin."""
        self._user = user
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(LINE_DIALS, thread_name_prefix="line")
        self._resting: dict[NodeId, list[Line]] = {}
        """Dialled here and free, the one used last at the end."""
        self._dialled: dict[NodeId, set[Line]] = {}
        self._taken: dict[NodeId, set[Line]] = {}
        self._dialling: dict[NodeId, BulkChannel | None] = {}
        self._failed_s: dict[NodeId, float] = {}
        """When a dial failed last."""
        self._is_closed = False

    def take(self, peer: NodeId) -> LineStream | None:
        """Return a stream on a line that rests, or None; where none is left another one is dialled."""
        resting = self._resting.get(peer)
        line = resting.pop() if resting else None
        if not resting:
            self._want_more(peer)
        return line.begin() if line is not None else None

    def counts(self) -> Counter[NodeId]:
        """Return how many lines there are with each peer, whoever dialled them."""
        both = Counter({peer: len(lines) for peer, lines in self._dialled.items()})
        both.update({peer: len(lines) for peer, lines in self._taken.items()})
        return both

    def cut(self, peer: NodeId, code: str, message: str) -> None:
        """End all lines with a peer that is gone."""
        for line in (*self._dialled.get(peer, ()), *self._taken.get(peer, ())):
            line.cut(StreamLost(code, message))

    async def close(self) -> None:
        """End everything, and wait for the threads."""
        self._is_closed = True
        for channel in self._dialling.values():
            if channel is not None:
                channel.abort()
        for peer in tuple(self.counts()):
            self.cut(peer, "leaving", "this node leaves")
        await asyncio.to_thread(self._threads.shutdown)

    # -- lines of peers ----------------------------------------------------------------------------------------

    def serve(self, channel: BulkChannel) -> None:
        """Take a line that a peer has dialled, on its thread, which is free afterwards."""
        if self._is_closed:
            return
        given = channel.hand_over()
        with contextlib.suppress(RuntimeError):  # the loop is over
            self._loop.call_soon_threadsafe(self._take_over, given)

    def _take_over(self, given: Sealed) -> None:
        has_room = may_take(
            of_peer=len(self._taken.get(given.peer, ())), of_all=sum(map(len, self._taken.values()))
        )  # fmt: skip
        if self._is_closed or self.on_stream is None or not has_room:
            given.socket.close()
            return
        line = Line(given, on_stream=self._began, on_free=lambda _: None, on_gone=self._forget)
        self._taken.setdefault(given.peer, set()).add(line)
        self._user.start_task(f"line:{short(given.peer)}", self._connect(line, given.socket))

    def _began(self, line: Line, stream: LineStream) -> None:
        if self.on_stream is not None:
            self.on_stream(line.peer, stream)

    # -- lines of this node ------------------------------------------------------------------------------------

    def _want_more(self, peer: NodeId) -> None:
        may = may_dial(
            monotonic(), is_dialling=peer in self._dialling, dialled=len(self._dialled.get(peer, ())),
            failed_s=self._failed_s.get(peer),
        )  # fmt: skip
        if may and not self._is_closed and (addresses := self._user.addresses(peer)):
            self._dialling[peer] = None
            self._user.start_task(f"line:{short(peer)}", self._dial(peer, addresses))

    async def _dial(self, peer: NodeId, addresses: Sequence[Address]) -> None:
        if self._is_closed:
            return
        dialling = self._loop.run_in_executor(self._threads, self._dial_now, peer, addresses)
        try:
            channel = await asyncio.shield(dialling)
        except asyncio.CancelledError:
            dialling.add_done_callback(_close_unwanted)
            raise
        except BulkError as error:
            log.info("no line to node=%s: %s", short(peer), error.message)
            self._failed_s = {node: at_s for node, at_s in self._failed_s.items() if at_s > monotonic() - LINE_AGAIN_S}
            self._failed_s[peer] = monotonic()
            return
        finally:
            self._dialling.pop(peer, None)
        given = channel.hand_over()
        line = Line(given, on_stream=None, on_free=self._rest, on_gone=self._forget)
        self._dialled.setdefault(peer, set()).add(line)
        await self._connect(line, given.socket)
        if line.is_open:
            self._rest(line)

    def _dial_now(self, peer: NodeId, addresses: Sequence[Address]) -> BulkChannel:
        """Dial, on a thread: every wait there has a deadline, and `close` aborts it. Raises BulkError."""

        def opened(channel: BulkChannel) -> None:
            self._dialling[peer] = channel
            if self._is_closed:
                channel.abort()

        if self._is_closed:
            raise BulkError(BulkCode.LOST, "this node leaves")
        return self._user.dial(peer, addresses, opened)

    async def _connect(self, line: Line, sock: socket.socket) -> None:
        """Let the loop carry a line from here on."""
        if self._is_closed:
            sock.close()
            line.hang_up()
            return
        prepare(sock)
        try:
            await self._loop.connect_accepted_socket(lambda: line, sock)
        except OSError as error:
            sock.close()
            line.cut(StreamLost("lost", f"the line broke at once: {error.strerror or error}"))

    def _rest(self, line: Line) -> None:
        self._resting.setdefault(line.peer, []).append(line)

    def _forget(self, line: Line) -> None:
        for lines in (self._dialled, self._taken):
            if line in (known := lines.get(line.peer, set())):
                known.remove(line)
                if not known:
                    del lines[line.peer]
        if line in (resting := self._resting.get(line.peer, [])):
            resting.remove(line)
            if not resting:
                del self._resting[line.peer]


def _close_unwanted(dialled: "asyncio.Future[BulkChannel]") -> None:
    """Close a line for which nobody waits any more."""
    if not dialled.cancelled() and dialled.exception() is None:
        dialled.result().close()
