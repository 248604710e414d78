"""Lends this machine to splits of others: one server for each model, for one epoch and one host at a time.

Owns the servers, and the connections of the bulk plane that reach them, one at a time. Decides nothing: who gets at one
is `core.members.bulk_admission`'s. Doesn't know what a split is: orders come from the core, and what comes of them goes
back as events.

A server's port is on loopback and nobody is told of it: other machines get there over the bulk plane alone, where
their rights were looked at before.
"""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from meshllm.core.effects import EndLending, Lend
from meshllm.core.engines import EngineBuild
from meshllm.core.events import Event, LendingEnded, LendingReady
from meshllm.core.ids import ModelId, NodeId, short
from meshllm.core.limits import BULK_HANDSHAKE_S, RPC_STOP_S, RPC_TURN_S
from meshllm.core.members.bulk_admission import join_refusal
from meshllm.daemon.socket_owner import LOOPBACK, listens
from meshllm.engine.command import this_host
from meshllm.engine.rpc_worker import RpcJob, RpcWorker
from meshllm.transport.bulk_bridge import BulkBridge
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError
from meshllm.wire.bulk_frames import Join, Ready, refused

log = logging.getLogger(__name__)

StartTask = Callable[[str, Coroutine[object, object, None]], object]


class Tensors(Protocol):
    """Where servers keep tensors that they have seen, so that they need not come again."""

    async def folder(self, order: Lend) -> Path | None:
        """Return a folder for a file's tensors, or None where there is no room."""
        ...

    async def prime(self, order: Lend, build: EngineBuild, port: int) -> None:
        """Fill it from this node's own copy of the file, through the server at a port. Never fails."""
        ...


@dataclass(slots=True)
class _Loan:
    """One server, from its order to its end. What threads read changes only under the lock of its owner."""

    order: Lend
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held by the one connection that is served."""
    worker: RpcWorker | None = None
    bridge: BulkBridge | None = None
    is_ready: bool = False
    is_over: bool = False


class RpcLending:
    """All servers that this node lends."""

    def __init__(
        self, build: Callable[[], EngineBuild | None], runtime_dir: Path, post: Callable[[Event], None],
        start_task: StartTask, cache: Tensors,
    ) -> None:  # fmt: skip
        """Prepare for orders."""
        self._build = build
        self._runtime_dir = runtime_dir
        self._post = post
        self._start_task = start_task
        self._cache = cache
        self._host = this_host()
        self._lock = threading.Lock()
        self._loans: dict[ModelId, _Loan] = {}

    # -- orders ------------------------------------------------------------------------------------------

    def lend(self, order: Lend) -> None:
        """Run a server; returns at once. One of an older epoch ends first."""
        with self._lock:
            before = self._loans.get(order.model)
            if before is not None and before.order.epoch >= order.epoch:
                return  # held already, or an order that time overtook
            loan = self._loans[order.model] = _Loan(order)
        if before is not None:
            self._end(before)
        self._start_task(f"lend:{order.model}", self._live(loan, before))

    def end(self, order: EndLending) -> None:
        """End the server of an epoch, and everybody's connections to it; returns at once."""
        loan = self._loans.get(order.model)
        if loan is None or loan.order.epoch != order.epoch:
            self._post(LendingEnded(model=order.model, epoch=order.epoch))
        else:
            self._end(loan)

    async def close(self) -> None:
        """End everything and wait until it is gone."""
        loans = list(self._loans.values())
        for loan in loans:
            self._end(loan)
        with contextlib.suppress(TimeoutError):  # a process that even SIGKILL doesn't end: nobody can help it
            async with asyncio.timeout(RPC_STOP_S):
                for loan in loans:
                    await loan.gone.wait()

    def log_lines(self, model: ModelId) -> tuple[str, ...]:
        """Return what the server that is lent for a model said lately; empty where none is."""
        loan = self._loans.get(model)
        return loan.worker.log.lines if loan is not None and loan.worker is not None else ()

    def port(self, model: ModelId) -> int:
        """Return the local port of the server that is lent for a model; 0 where none listens."""
        loan = self._loans.get(model)
        return loan.worker.port if loan is not None and loan.worker is not None else 0

    def _end(self, loan: _Loan) -> None:
        with self._lock:
            loan.is_over, loan.is_ready = True, False
            bridge = loan.bridge
        if bridge is not None:
            bridge.abort()
        if loan.worker is not None:
            loan.worker.stop()

    async def _live(self, loan: _Loan, before: _Loan | None) -> None:
        """Run one server to its end and tell of it."""
        order, message = loan.order, ""
        try:
            if before is not None:
                await before.gone.wait()
            message = await self._served(loan)
        finally:
            self._end(loan)
            with self._lock:
                if self._loans.get(order.model) is loan:
                    del self._loans[order.model]
            loan.gone.set()
        log.info("lending ended model=%s epoch=%d %s", order.model, order.epoch, message)
        self._post(LendingEnded(model=order.model, epoch=order.epoch, message=message))

    async def _served(self, loan: _Loan) -> str:
        """Run a server; return why it ended that nobody asked to end."""
        build = self._build()
        if build is None or build.rpc is None:
            return "no engine of this node can lend"
        order = loan.order
        folder = await self._cache.folder(order)
        if loan.is_over:
            return ""
        job = RpcJob(memory_bytes=order.memory_bytes, threads=order.threads, cache=folder)
        loan.worker = RpcWorker(build, self._host, job, self._runtime_dir, listens)
        return await loan.worker.run(partial(self._listening, loan, build))

    async def _listening(self, loan: _Loan, build: EngineBuild) -> None:
        """Let the host in, after what its load would send is here where it can be."""
        order = loan.order
        if order.path and loan.worker is not None:
            await self._cache.prime(order, build, loan.worker.port)
        with self._lock:
            loan.is_ready = not loan.is_over
        if loan.is_ready:
            log.info("lending model=%s epoch=%d host=%s", order.model, order.epoch, short(order.host))
            self._post(LendingReady(model=order.model, epoch=order.epoch))

    # -- on a connection's own thread --------------------------------------------------------------------

    def serve(self, channel: BulkChannel) -> None:
        """Serve a member that comes for a server: the host of its split, or a refusal. Raises BulkError."""
        deadline_s = time.monotonic() + BULK_HANDSHAKE_S
        said = channel.hear(deadline_s)
        if not isinstance(said, Join):
            raise BulkError(BulkCode.PROTOCOL, "the peer does not say which split it is the host of")
        loan, code = self._wanted(channel.peer, said)
        if not code and not loan.turn.acquire(timeout=RPC_TURN_S):
            code = "busy"
        if code:
            log.warning("a connection to a lent server was refused node=%s: %s", short(channel.peer), code)
            channel.say(refused(code, _SENTENCES[code]), time.monotonic() + BULK_HANDSHAKE_S)
            return
        try:
            self._bridge(loan, channel)
        finally:
            loan.turn.release()

    def _wanted(self, peer: NodeId, said: Join) -> tuple[_Loan, str]:
        """Return (the loan, why it is not for this peer); the word is empty where it is."""
        with self._lock:
            loan = self._loans.get(ModelId(said.model))
            if loan is None:
                return _NONE, join_refusal(None, peer, said.epoch, is_ready=False)
            return loan, join_refusal(loan.order, peer, said.epoch, is_ready=loan.is_ready)

    def _bridge(self, loan: _Loan, channel: BulkChannel) -> None:
        """Join a host to the server, as often as its engine connects, until one of them is gone. Raises BulkError."""
        if not _is_listening(loan.worker):
            channel.say(refused("not_lent", _SENTENCES["not_lent"]), time.monotonic() + BULK_HANDSHAKE_S)
            return
        channel.say(Ready(), time.monotonic() + BULK_HANDSHAKE_S)
        bridge = BulkBridge(channel, partial(self._near, loan))
        with self._lock:
            loan.bridge = bridge
            if loan.is_over:
                return
        bridged = bridge.run()
        with self._lock:
            loan.bridge = None
        log.debug(
            "a host's connection ended model=%s epoch=%d by=%s connections=%d in_bytes=%d out_bytes=%d %s",
            loan.order.model, loan.order.epoch, bridged.end, bridged.connections, bridged.to_near_bytes,
            bridged.to_far_bytes, bridged.message,
        )  # fmt: skip

    def _near(self, loan: _Loan) -> socket.socket | None:
        """Return a connection to the server itself, and to nothing that took its port; None where that is over."""
        worker = loan.worker
        if loan.is_over or worker is None or not _is_listening(worker):
            return None
        try:
            return socket.create_connection((LOOPBACK, worker.port), timeout=RPC_TURN_S)
        except OSError:
            return None


def _is_listening(worker: RpcWorker | None) -> bool:
    return worker is not None and bool(worker.port) and listens(worker.pid, worker.port)


_NONE = _Loan(Lend(
    model=ModelId(""), digest="", epoch=0, host=NodeId(""), first_layer=0, layers=0, memory_bytes=0, threads=0,
))  # fmt: skip
_SENTENCES = {
    "not_lent": "this node runs no server for that model", "wrong_host": "its server is for another host",
    "stale_epoch": "its server is for another epoch of the split", "busy": "another connection has its server",
}  # fmt: skip
