"""Effects meet the shells: one line for each kind of order.

Owns the running downloads and drains. Decides nothing; every outcome goes back as an event.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never

from meshllm.core import effects as do
from meshllm.core.catalog import ModelReference
from meshllm.core.effects import Effect, PeerSource
from meshllm.core.engines import EngineFailure, EngineFault, EnginePlan
from meshllm.core.events import (
    DownloadFailed,
    DownloadFinished,
    DownloadProgressed,
    EngineDrained,
    EngineExited,
    Event,
    ModelAsked,
    RemoteProbed,
)
from meshllm.core.ids import ModelId
from meshllm.core.intents import Outcome
from meshllm.core.remotes import RemoteBackend
from meshllm.daemon import logs
from meshllm.daemon.peer_copy import Tell
from meshllm.engine.life import WorkerWays
from meshllm.inventory.download_errors import DownloadError


class Engines(Protocol):
    """What is needed of the engine supervisor."""

    def start(self, plan: EnginePlan, ways: WorkerWays | None = None) -> None:
        """Run a model; `ways` lead to the workers of a split."""

    def stop(self, model: ModelId, *, kill: bool, slots_bytes: int) -> None:
        """End an engine; save its conversations first, in so many bytes of the disk."""


class Lending(Protocol):
    """What is needed of what this node lends to splits of others."""

    def lend(self, order: do.Lend) -> None:
        """Run a worker's server."""

    def end(self, order: do.EndLending) -> None:
        """End it."""


class Downloads(Protocol):
    """What is needed of the inventory's downloads."""

    async def fetch(self, reference: ModelReference, on_progress: Tell, peers: Sequence[PeerSource] = ()) -> Path:
        """Bring a model's files to this disk. Raises DownloadError."""

    async def resolve(self, asked: str) -> ModelReference:
        """Find the file that a name stands for. Raises DownloadError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shells:
    """What effects are carried out with."""

    engines: Callable[[], Engines]
    """Asked late: the supervisor exists once the engine's build is known."""
    ways: Callable[[ModelId, int, Sequence[do.SplitPeer]], WorkerWays]
    """Opens the ways of an engine to the workers of an epoch. Raises OSError."""
    lending: Lending
    probe: Callable[[RemoteBackend], Awaitable[RemoteProbed]]
    """Asks an adopted server for its models."""
    downloads: Downloads
    downloaded: Callable[[], None]
    """Called when a file is complete, before its event."""
    idle: Callable[[ModelId, float], Awaitable[int]]
    """Wait until no request is in flight at a model, that many seconds at most; return what is left."""
    keep_slots: Callable[[int], Coroutine[object, object, None]]
    """Lets saved conversations take so much of the disk; what it returns removes what is over."""
    mesh: Callable[[do.MeshEffect], None]
    """Carries out what concerns peers."""
    answer: Callable[[str, Outcome], None]
    leave: Callable[[str, int], None]
    start_task: Callable[[str, Coroutine[object, object, None]], asyncio.Task[None]]
    post: Callable[[Event], None]


class CarryOut:
    """Obeys effects without ever blocking."""

    def __init__(self, shells: Shells) -> None:
        """Take the shells."""
        self._shells = shells
        self._running: dict[ModelId, asyncio.Task[None]] = {}

    def __call__(self, effect: Effect) -> None:  # noqa: C901 - one line for each kind of order
        """Carry out one effect."""
        match effect:
            case do.StartEngine(plan=plan, peers=peers):
                self._start(plan, peers)
            case do.StopEngine(model=model, kill=kill, slots_bytes=slots_bytes):
                self._shells.engines().stop(model, kill=kill, slots_bytes=slots_bytes)
            case do.KeepSlots(most_bytes=most_bytes):
                self._shells.start_task("slots", self._shells.keep_slots(most_bytes))
            case do.Lend():
                self._shells.lending.lend(effect)
            case do.EndLending():
                self._shells.lending.end(effect)
            case do.DrainEngine(model=model, within_s=within_s):
                self._shells.start_task(f"drain:{model}", self._drain(model, within_s))
            case do.ProbeRemote(server=server):
                self._shells.start_task(f"probe:{server.name}", self._probe(server))
            case do.ResolveModel(asked=asked):
                self._shells.start_task(f"resolve:{asked}", self._resolve(asked))
            case do.Download(reference=reference, peers=peers):
                task = self._shells.start_task(f"download:{reference.id}", self._download(reference, peers))
                self._running[reference.id] = task
            case do.CancelDownload(model=model):
                if (running := self._running.pop(model, None)) is not None:
                    running.cancel()
            case do.Answer(request_id=request_id, outcome=outcome):
                self._shells.answer(request_id, outcome)
            case (
                do.Dial() | do.Disconnect() | do.Send() | do.KeepRoster() | do.Admit() | do.Refuse()
                | do.KeepTrust() | do.KeepOrders()
            ):  # fmt: skip
                self._shells.mesh(effect)
            case do.Notify():
                logs.write(effect)
            case do.Leave(reason=reason, exit_code=exit_code):
                self._shells.leave(reason, exit_code)
            case _:
                assert_never(effect)

    def _start(self, plan: EnginePlan, peers: Sequence[do.SplitPeer]) -> None:
        if plan.split is None:
            self._shells.engines().start(plan)
            return
        try:
            ways = self._shells.ways(plan.model.id, plan.split.epoch, peers)
        except OSError as error:
            message = f"there is no way to its workers: {error.strerror or error}"
            failure = EngineFailure(fault=EngineFault.CANNOT_START, message=message)
            self._shells.post(EngineExited(model=plan.model.id, failure=failure))
        else:
            self._shells.engines().start(plan, ways)

    async def _drain(self, model: ModelId, within_s: float) -> None:
        abandoned = await self._shells.idle(model, within_s)
        self._shells.post(EngineDrained(model=model, abandoned=abandoned))

    async def _probe(self, server: RemoteBackend) -> None:
        self._shells.post(await self._shells.probe(server))

    async def _resolve(self, asked: str) -> None:
        try:
            reference = await self._shells.downloads.resolve(asked)
        except DownloadError as error:
            self._shells.post(ModelAsked(asked=asked, reference=None, message=error.message))
        else:
            self._shells.post(ModelAsked(asked=asked, reference=reference))

    async def _download(self, reference: ModelReference, peers: Sequence[PeerSource]) -> None:
        def on_progress(done_bytes: int, total_bytes: int, names: tuple[str, ...]) -> None:
            self._shells.post(
                DownloadProgressed(model=reference.id, done_bytes=done_bytes, total_bytes=total_bytes, peers=names)
            )

        try:
            path = await self._shells.downloads.fetch(reference, on_progress, peers)
        except DownloadError as error:
            self._shells.post(DownloadFailed(model=reference.id, code=str(error.code), message=error.message))
        else:
            self._shells.downloaded()
            self._shells.post(DownloadFinished(model=reference.id, path=str(path)))
        finally:
            if self._running.get(reference.id) is asyncio.current_task():
                del self._running[reference.id]
