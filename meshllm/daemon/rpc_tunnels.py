"""The host's ways to the workers of its splits: a local port for each, behind which the worker's server answers.

Owns the listeners, and a connection of the bulk plane behind each. Decides that only the engine itself may use them,
and what is said when a worker is lost. Doesn't know what a split is, nor what is sent.

The worker is dialled while the engine starts, once. An engine connects some ten times before it computes; that all
goes over this one connection, one after the other: a worker's server has one client at a time.
"""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from meshllm.core.effects import SplitPeer
from meshllm.core.ids import ModelId
from meshllm.core.limits import BULK_HANDSHAKE_S, RPC_STOP_S, RPC_TURN_S
from meshllm.daemon.socket_owner import LOOPBACK, is_stranger
from meshllm.transport.bulk_bridge import BulkBridge
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError
from meshllm.wire.bulk_frames import Join, Ready, Refused

log = logging.getLogger(__name__)

Opened = Callable[[BulkChannel], None]
DialWorker = Callable[[SplitPeer, Opened], BulkChannel]
"""Returns a connection on which a peer lets its hosts at their servers. Blocks. Raises BulkError."""
StartTask = Callable[[str, Coroutine[object, object, None]], asyncio.Task[None]]


class EngineTunnels:
    """The ways of one engine to its workers. Closed with the engine."""

    def __init__(
        self, model: ModelId, epoch: int, peers: Sequence[SplitPeer], dial: DialWorker, start_task: StartTask
    ) -> None:
        """Listen; nobody is let in before `begin`. Raises OSError."""
        self._join = Join(model=model, epoch=epoch)
        self._dial = dial
        self._start_task = start_task
        self._threads = ThreadPoolExecutor(max(len(peers), 1), thread_name_prefix="rpc-tunnel")
        self._lock = threading.Lock()
        self._open: set[BulkChannel | BulkBridge] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._bridges: list[BulkBridge] = []
        self._is_closed = False
        self._problem = ""
        with contextlib.ExitStack() as undo:
            self._listeners = [(peer, undo.enter_context(_listening())) for peer in peers]
            undo.pop_all()
        self.ports = tuple(int(listener.getsockname()[1]) for _, listener in self._listeners)

    @property
    def problem(self) -> str:
        """Return which worker was lost first, and why; empty while none was."""
        return self._problem

    @property
    def is_closed(self) -> bool:
        """Tell whether its engine has ended."""
        return self._is_closed

    @property
    def sent_bytes(self) -> int:
        """Return how many bytes went to workers so far."""
        return sum(bridge.to_far_bytes for bridge in self._bridges)

    @property
    def connections(self) -> int:
        """Return how often the engine has connected to workers so far."""
        return sum(bridge.connections for bridge in self._bridges)

    def begin(self, pid: int, lost: Callable[[str], None]) -> None:
        """Reach the workers and serve a process, and nobody else. `lost` is called once, with `problem`."""
        loop = asyncio.get_running_loop()

        def lose(message: str) -> None:
            # From the connection's thread, before the engine can notice: what it says itself tells people less.
            if not self._problem and not self._is_closed:
                self._problem = message
                loop.call_soon_threadsafe(lost, message)

        for peer, listener in self._listeners:
            work = self._threads.submit(self._attend, peer, listener, pid, lose)
            work.add_done_callback(lambda _, listener=listener: listener.close())  # type: ignore[misc]
            self._tasks.append(self._start_task(f"rpc:{self._join.model}:{peer.name}", _wait(work)))

    def close(self) -> None:
        """End all of it; threads follow within seconds."""
        with self._lock:
            self._is_closed = True
            for one in self._open:
                one.abort()
        for task in self._tasks:
            task.cancel()
        if not self._tasks:  # else it belongs to a thread, which closes it
            for _, listener in self._listeners:
                listener.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def wait_closed(self) -> None:
        """Wait until its threads are gone."""
        await asyncio.to_thread(self._threads.shutdown)

    # -- on a worker's own thread ------------------------------------------------------------------------

    def _attend(self, peer: SplitPeer, listener: socket.socket, pid: int, lose: Callable[[str], None]) -> None:
        """Join the engine to a worker's server until one of them is gone."""
        try:
            channel = self._dial(peer, self._keep)
        except BulkError as error:
            lose(_words(peer, error))
            return
        try:
            self._greet(channel)
            self._bridge(peer, channel, listener, pid, lose)
        except BulkError as error:
            lose(_words(peer, error))
        finally:
            self._forget(channel)
            channel.close()

    def _greet(self, channel: BulkChannel) -> None:
        """Be let at the server. Raises BulkError."""
        channel.say(self._join, time.monotonic() + BULK_HANDSHAKE_S)
        match channel.hear(time.monotonic() + BULK_HANDSHAKE_S + RPC_TURN_S):
            case Ready():
                return
            case Refused(code=code, message=message):
                raise BulkError(BulkCode.REFUSED, f"{message or code}", code)
            case _:
                raise BulkError(BulkCode.PROTOCOL, "it answers something else")

    def _bridge(
        self, peer: SplitPeer, channel: BulkChannel, listener: socket.socket, pid: int, lose: Callable[[str], None]
    ) -> None:
        """Pass on what the engine and the worker say. Raises BulkError."""
        bridge = BulkBridge(channel, partial(_engines_own, listener, pid), listener)
        self._bridges.append(bridge)
        self._keep(bridge)
        try:
            bridged = bridge.run()
        finally:
            self._forget(bridge)
        log.debug(
            "a tunnel ended model=%s worker=%s connections=%d out_bytes=%d in_bytes=%d %s", self._join.model, peer.name,
            bridged.connections, bridged.to_far_bytes, bridged.to_near_bytes, bridged.message,
        )  # fmt: skip
        if not self._is_closed:
            lose(f"the worker {peer.name} was lost: {bridged.message or 'it ended the connection'}")

    def _keep(self, one: BulkChannel | BulkBridge) -> None:
        with self._lock:
            self._open.add(one)
            if self._is_closed:
                one.abort()

    def _forget(self, one: BulkChannel | BulkBridge) -> None:
        with self._lock:
            self._open.discard(one)


class RpcTunnels:
    """The ways of all engines of this node."""

    def __init__(self, dial: DialWorker, start_task: StartTask) -> None:
        """Reach workers by `dial`."""
        self._dial = dial
        self._start_task = start_task
        self._all: list[EngineTunnels] = []

    def open(self, model: ModelId, epoch: int, peers: Sequence[SplitPeer]) -> EngineTunnels:
        """Return the ways of one engine. Raises OSError."""
        tunnels = EngineTunnels(model, epoch, peers, self._dial, self._start_task)
        self._all = [*(one for one in self._all if not one.is_closed), tunnels]
        return tunnels

    async def close(self) -> None:
        """Wait until all that are closed are gone: each is closed by its engine."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RPC_STOP_S):
                for tunnels in self._all:
                    if tunnels.is_closed:
                        await tunnels.wait_closed()


def _words(peer: SplitPeer, error: BulkError) -> str:
    """Return what went wrong with a worker, for people."""
    match error.code:
        case BulkCode.REFUSED:
            return f"the worker {peer.name} refused: {error.message}"
        case BulkCode.UNREACHABLE:
            return f"the worker {peer.name} cannot be reached: {error.message}"
        case _:
            return f"the worker {peer.name} was lost: {error.message}"


def _engines_own(listener: socket.socket, pid: int) -> socket.socket | None:
    """Return the next connection to a way, where it is a process's own; None where there is none. Raises BulkError."""
    try:
        near, theirs = listener.accept()
    except (BlockingIOError, ConnectionError):  # it has gone again
        return None
    except OSError as error:
        raise BulkError(BulkCode.LOST, f"this machine gives no connection to it: {error.strerror or error}") from error
    ours = listener.getsockname()
    if not is_stranger(pid, int(theirs[1]), int(ours[1])):
        return near
    with near:
        if not _has_gone(near):
            log.warning("a stranger on this machine was turned away at a tunnel port=%d", ours[1])
    return None


async def _wait(work: Future[None]) -> None:
    """Wait for a thread, so that what goes wrong there is somebody's."""
    await asyncio.wrap_future(work)


def _has_gone(near: socket.socket) -> bool:
    """Tell whether a connection was ended before anybody could look whose it was."""
    try:
        return not near.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _listening() -> socket.socket:
    listener = socket.create_server((LOOPBACK, 0), backlog=1)
    listener.setblocking(False)
    return listener
