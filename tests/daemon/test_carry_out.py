"""Every order reaches its shell, and what comes of it comes back as an event."""

import asyncio
import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from meshllm.core import effects as do
from meshllm.core.catalog import ModelReference
from meshllm.core.effects import PeerSource, SplitPeer
from meshllm.core.engines import EngineFault, EnginePlan, MemoryNeed, SplitPart, SplitRun
from meshllm.core.events import (
    DownloadFailed,
    DownloadFinished,
    DownloadProgressed,
    EngineDrained,
    EngineExited,
    Event,
    ModelAsked,
    RemoteProbed,
    TaskFailed,
)
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Outcome, OutcomeCode
from meshllm.core.remotes import RemoteBackend
from meshllm.daemon.carry_out import CarryOut, Shells
from meshllm.daemon.peer_copy import Tell
from meshllm.daemon.tasks import Tasks
from meshllm.engine.life import WorkerWays
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from tests.core.builders import a_spec

MODEL = ModelId("tiny")
REFERENCE = ModelReference(id=MODEL, repository="u/r", filename="tiny.gguf")


class Ways:
    """A way to one worker."""

    ports = (4711,)
    problem = ""
    sent_bytes = 0

    def begin(self, pid: int, lost: Callable[[str], None]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass
class World:
    """Shells that remember what they were told."""

    told: list[object] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    fetching: asyncio.Event = field(default_factory=asyncio.Event)
    may_finish: asyncio.Event = field(default_factory=asyncio.Event)
    error: DownloadError | None = None
    has_no_ports: bool = False

    def start(self, plan: EnginePlan, ways: WorkerWays | None = None) -> None:
        """Remember a start."""
        self.told.append(("start", plan.model.id, *(ways.ports if ways is not None else ())))

    def ways(self, model: ModelId, epoch: int, peers: Sequence[SplitPeer]) -> "Ways":
        """Open ways, or fail."""
        if self.has_no_ports:
            raise OSError(errno.EMFILE, "Too many open files")
        self.told.append(("ways", model, epoch, tuple(peer.name for peer in peers)))
        return Ways()

    def lend(self, order: do.Lend) -> None:
        """Remember an order to lend."""
        self.told.append(order)

    def end(self, order: do.EndLending) -> None:
        """Remember its end."""
        self.told.append(order)

    def stop(self, model: ModelId, *, kill: bool, slots_bytes: int) -> None:
        """Remember a stop."""
        self.told.append(("stop", model, kill, slots_bytes))

    async def keep_slots(self, most_bytes: int) -> None:
        """Remember what saved conversations may take."""
        self.told.append(("slots", most_bytes))

    async def fetch(self, reference: ModelReference, on_progress: Tell, peers: Sequence[PeerSource] = ()) -> Path:
        """Progress once, then end as told."""
        on_progress(1, 2, tuple(peer.name for peer in peers))
        self.fetching.set()
        await self.may_finish.wait()
        if self.error is not None:
            raise self.error
        return Path("/models") / reference.filename

    async def resolve(self, asked: str) -> ModelReference:
        """Know one name."""
        if self.error is not None:
            raise self.error
        return REFERENCE

    async def probe(self, server: RemoteBackend) -> RemoteProbed:
        """Have no models."""
        return RemoteProbed(server=server.name)

    async def idle(self, model: ModelId, within_s: float) -> int:
        """Have three requests left."""
        return 3

    async def carry_out(self, *effects: do.Effect, then: Callable[[], None] = lambda: None) -> None:
        """Carry out effects and wait for the tasks that they start."""
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            tasks = Tasks(group, self.events.append)
            shells = Shells(
                engines=lambda: self, ways=self.ways, lending=self, probe=self.probe, downloads=self,
                downloaded=lambda: self.told.append("downloaded"), idle=self.idle,
                mesh=self.told.append, answer=lambda *words: self.told.append(words),
                leave=lambda *words: self.told.append(words), start_task=tasks.start, post=self.events.append,
                keep_slots=self.keep_slots,
            )  # fmt: skip
            carry_out = CarryOut(shells)
            for effect in effects:
                carry_out(effect)
                if isinstance(effect, do.Download):
                    await self.fetching.wait()
            then()


async def test_engines_answers_and_leaving_go_straight_to_their_shells() -> None:
    """Nothing is interpreted on the way."""
    world, outcome = World(), Outcome(code=OutcomeCode.DONE, message="done")
    plan = EnginePlan(
        model=a_spec(), context_tokens=512, slots=1, gpu_layers=0, threads=1,
        memory=MemoryNeed(weights_bytes=1, kv_bytes=1, overhead_bytes=1),
    )  # fmt: skip

    await world.carry_out(
        do.StartEngine(plan=plan), do.StopEngine(model=MODEL, kill=True),
        do.StopEngine(model=MODEL, slots_bytes=7), do.Answer(request_id="r", outcome=outcome),
        do.Leave(reason="SIGTERM", exit_code=0), do.Notify(level=do.Level.INFO, message="x"),
    )  # fmt: skip

    assert world.told == [
        ("start", "tiny"), ("stop", "tiny", True, 0), ("stop", "tiny", False, 7), ("r", outcome), ("SIGTERM", 0),
    ]  # fmt: skip


async def test_what_conversations_may_take_of_the_disk_is_passed_on() -> None:
    """As a task: removing what is over may take a while."""
    world = World()

    await world.carry_out(do.KeepSlots(most_bytes=12))

    assert world.told == [("slots", 12)]


def a_split_plan() -> EnginePlan:
    """Return a plan whose model another machine shares."""
    return EnginePlan(
        model=a_spec(), context_tokens=512, slots=1, gpu_layers=0, threads=1,
        memory=MemoryNeed(weights_bytes=1, kv_bytes=1, overhead_bytes=1),
        split=SplitRun(epoch=7, workers=(SplitPart(node=NodeId("n"), layers=4, name="desk"),), home_layers=0),
    )  # fmt: skip


async def test_the_engine_of_a_split_gets_ways_to_its_workers() -> None:
    """Opened for the plan's epoch."""
    world = World()
    peer = SplitPeer(node=NodeId("n"), name="desk", addresses=())

    await world.carry_out(do.StartEngine(plan=a_split_plan(), peers=(peer,)))

    assert world.told == [("ways", "tiny", 7, ("desk",)), ("start", "tiny", 4711)]


async def test_an_engine_without_ways_to_its_workers_does_not_start() -> None:
    """It is told as its end."""
    world = World(has_no_ports=True)

    await world.carry_out(do.StartEngine(plan=a_split_plan()))

    (ended,) = world.events
    assert world.told == []
    assert isinstance(ended, EngineExited)
    assert ended.failure.fault is EngineFault.CANNOT_START


async def test_orders_to_lend_go_to_whoever_lends() -> None:
    """As they are."""
    world = World()
    lend = do.Lend(
        model=MODEL, digest="", epoch=7, host=NodeId("h"), first_layer=0, layers=4, memory_bytes=1, threads=1
    )
    end = do.EndLending(model=MODEL, epoch=7)

    await world.carry_out(lend, end)

    assert world.told == [lend, end]


async def test_a_server_is_asked_and_its_answer_comes_back() -> None:
    """The core decides what it means."""
    world = World()

    await world.carry_out(do.ProbeRemote(server=RemoteBackend(name="box", base_url="http://h")))

    assert world.events == [RemoteProbed(server="box")]


@pytest.mark.rows("LIF-12")
async def test_a_drain_reports_what_was_left() -> None:
    """The core learns how many requests were cut."""
    world = World()

    await world.carry_out(do.DrainEngine(model=MODEL, within_s=1.0))

    assert world.events == [EngineDrained(model=MODEL, abandoned=3)]


async def test_a_download_progresses_finishes_and_wakes_the_watcher() -> None:
    """The inventory looks before the core hears, so that nothing is fetched twice."""
    world = World()

    await world.carry_out(do.Download(reference=REFERENCE), then=world.may_finish.set)

    assert world.told == ["downloaded"]
    assert world.events == [
        DownloadProgressed(model=MODEL, done_bytes=1, total_bytes=2),
        DownloadFinished(model=MODEL, path="/models/tiny.gguf"),
    ]


async def test_a_failed_download_and_a_name_that_nothing_knows_are_events() -> None:
    """Not tracebacks, not failed tasks."""
    world = World(error=DownloadError(DownloadCode.NETWORK, "no hub in reach"))
    world.may_finish.set()

    await world.carry_out(do.Download(reference=REFERENCE), do.ResolveModel(asked="x"))

    assert DownloadFailed(model=MODEL, code="network", message="no hub in reach") in world.events
    assert ModelAsked(asked="x", reference=None, message="no hub in reach") in world.events
    assert not [event for event in world.events if isinstance(event, TaskFailed)]


async def test_a_name_that_is_found_comes_back_with_its_reference() -> None:
    """The core goes on from there."""
    world = World()

    await world.carry_out(do.ResolveModel(asked="x"))

    assert world.events == [ModelAsked(asked="x", reference=REFERENCE)]


async def test_a_cancelled_download_says_nothing_more() -> None:
    """Who cancelled knows."""
    world = World()

    await world.carry_out(do.Download(reference=REFERENCE), do.CancelDownload(model=MODEL))

    assert world.events == [DownloadProgressed(model=MODEL, done_bytes=1, total_bytes=2)]
    assert not world.told


async def test_a_download_from_peers_says_from_whom() -> None:
    """The order names them, the progress too."""
    world = World()
    peer = PeerSource(node=NodeId("n"), name="n2", addresses=(), size_bytes=2)

    await world.carry_out(do.Download(reference=REFERENCE, peers=(peer,)), then=world.may_finish.set)

    assert DownloadProgressed(model=MODEL, done_bytes=1, total_bytes=2, peers=("n2",)) in world.events
