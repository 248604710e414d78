"""Engines and downloads that take their time."""

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.engines import EngineFault, EnginePlan, MemoryNeed
from meshllm.core.ids import ModelId
from meshllm.core.limits import GIB, MIB
from meshllm.testing.sim_machine import MEASURE_S, Job, SimMachine
from meshllm.testing.sim_models import USUAL_BYTES, USUAL_MACHINE, Disk, Library, Machine, reference_to

TINY = ModelId("tiny")


class World:
    """A clock, and what a machine said."""

    def __init__(self, machine: Machine = USUAL_MACHINE) -> None:
        self.now_s = 0.0
        self.said: list[tuple[float, ev.Event]] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.library = Library()
        self.disk = Disk(self.library.of(["tiny"]))
        self.machine = SimMachine(machine, self.disk, self.library, self.later, self.post)

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Do something after a while."""
        heapq.heappush(self._queue, (self.now_s + delay_s, next(self._order), call))

    def post(self, event: ev.Event) -> None:
        """Take note."""
        self.said.append((round(self.now_s, 3), event))

    def run(self, for_s: float) -> None:
        """Let time pass."""
        ends_s = self.now_s + for_s
        while self._queue and self._queue[0][0] <= ends_s:
            self.now_s, _, call = heapq.heappop(self._queue)
            call()
        self.now_s = ends_s

    def heard(self, kind: type) -> list[tuple[float, Any]]:
        """Return what was said of one kind."""
        return [(at_s, event) for at_s, event in self.said if isinstance(event, kind)]

    def start(self, *, slots: int = 1, gpu_layers: int = 0) -> None:
        """Have the tiny model started."""
        need = MemoryNeed(weights_bytes=USUAL_BYTES, kv_bytes=0, overhead_bytes=0, prompt_cache_bytes=MIB)
        plan = EnginePlan(
            model=self.disk.files[TINY], context_tokens=4096, slots=slots, gpu_layers=gpu_layers, threads=4, memory=need
        )
        self.machine.carry_out(do.StartEngine(plan=plan))


def no_ends() -> list[tuple[float, bool]]:
    """Return a list for ends of jobs."""
    return []


def a_job(world: World, ends: list[tuple[float, bool]], **changes: float) -> Job:
    """Return a job that notes its end."""
    return Job(
        work_s=changes.get("work_s", 2.0), silent_s=0.5, is_from_peer=True, on_first_byte=lambda: None,
        on_end=lambda is_complete: ends.append((round(world.now_s, 3), is_complete)),
    )  # fmt: skip


def test_a_load_takes_as_long_as_its_file_is_large() -> None:
    """And says how far it is."""
    world = World(Machine(load_bytes_per_s=25 * MIB))

    world.start()
    world.run(5.0)

    assert world.heard(ev.EngineStarted)[0][0] == 0.0
    assert [event.share for _, event in world.heard(ev.EngineProgressed)] == [0.25, 0.5, 0.75]
    assert [at_s for at_s, _ in world.heard(ev.EngineReady)] == [4.0]


def test_a_second_engine_of_one_model_is_a_mistake_of_the_core() -> None:
    """I4 for one node: nobody works twice on the same."""
    world = World()
    world.start()

    with pytest.raises(AssertionError, match="while its engine runs"):
        world.start()


def test_a_loaded_engine_takes_memory_until_it_is_gone() -> None:
    """What is measured lags behind, as it does in life."""
    world = World(Machine(memory_bytes=GIB, excess=0.1))
    world.start()
    world.run(1.5)

    promised, taken = world.machine.promised_bytes(), world.machine.taken_bytes()
    world.run(MEASURE_S)
    world.machine.carry_out(do.StopEngine(model=TINY))
    world.run(MEASURE_S + 1)

    assert promised == (USUAL_BYTES + MIB, 0)
    assert taken == (int(USUAL_BYTES * 1.1), 0)
    assert [event.resources.memory_free_bytes for _, event in world.heard(ev.ResourcesMeasured)] == [
        GIB - int(USUAL_BYTES * 1.1), GIB,
    ]  # fmt: skip
    assert world.heard(ev.EngineExited)[0][1].failure.fault is EngineFault.STOPPED


def test_layers_on_the_gpu_take_its_memory() -> None:
    """The prompt cache stays on the machine."""
    world = World(Machine(gpu_bytes=GIB))

    world.start(gpu_layers=31)

    assert world.machine.promised_bytes() == (MIB, USUAL_BYTES)


def test_an_engine_that_is_stopped_while_it_loads_is_never_ready() -> None:
    """Late words of a dead process reach nobody."""
    world = World()
    world.start()
    world.run(0.5)

    world.machine.carry_out(do.StopEngine(model=TINY))
    world.run(5.0)

    assert world.heard(ev.EngineReady) == []
    assert [at_s for at_s, _ in world.heard(ev.EngineExited)] == [0.6]


def test_jobs_beyond_the_slots_wait_for_one() -> None:
    """Each ends when its turn is over."""
    world, ends = World(), no_ends()
    world.start(slots=2)
    world.run(1.0)

    taken = [world.machine.take(TINY, a_job(world, ends)) for _ in range(3)]
    world.run(10.0)

    assert taken == [True, True, True]
    assert ends == [(3.0, True), (3.0, True), (5.0, True)]
    told = world.machine.traffic(Counter())
    assert told == ev.TrafficMeasured(finished=((TINY, 3),), from_peers=((TINY, 3),))
    assert world.machine.traffic(Counter()) is None


def test_an_engine_that_is_not_ready_takes_nothing() -> None:
    """Nor one that is full."""
    world, ends = World(), no_ends()
    before = world.machine.take(TINY, a_job(world, ends))
    world.start()
    loading = world.machine.take(TINY, a_job(world, ends))
    world.run(1.0)

    taken = [world.machine.take(TINY, a_job(world, ends)) for _ in range(70)]

    assert (before, loading) == (False, False)
    assert taken.count(True) == 65


def test_a_crash_ends_its_jobs_unfinished() -> None:
    """Once each, and the engine's exit is told."""
    world, ends = World(), no_ends()
    world.start()
    world.run(1.0)
    world.machine.take(TINY, a_job(world, ends))
    world.machine.take(TINY, a_job(world, ends))

    assert world.machine.crash_engine(TINY)
    assert not world.machine.crash_engine(TINY)
    world.run(10.0)

    assert ends == [(1.0, False), (1.0, False)]
    assert world.heard(ev.EngineExited)[0][1].failure.fault is EngineFault.CRASHED


def test_a_drain_waits_for_the_last_job() -> None:
    """Or for its time to be over."""
    patient, hasty, ends = World(), World(), no_ends()
    for world, within_s in ((patient, 30.0), (hasty, 1.0)):
        world.start()
        world.run(1.0)
        world.machine.take(TINY, a_job(world, ends))
        world.machine.carry_out(do.DrainEngine(model=TINY, within_s=within_s))
        world.run(60.0)

    (waited, whole), (gave_up, cut) = patient.heard(ev.EngineDrained)[0], hasty.heard(ev.EngineDrained)[0]
    assert (waited, whole.abandoned) == (3.0, 0)
    assert (gave_up, cut.abandoned) == (2.0, 1)


def test_an_idle_engine_is_drained_at_once() -> None:
    """There is nothing to wait for."""
    world = World()
    world.start()
    world.run(1.0)

    world.machine.carry_out(do.DrainEngine(model=TINY, within_s=30.0))
    world.run(40.0)

    assert [at_s for at_s, _ in world.heard(ev.EngineDrained)] == [1.1]


def test_nothing_is_left_of_a_process_that_ended() -> None:
    """Its jobs end unfinished."""
    world, ends = World(), no_ends()
    world.start()
    world.run(1.0)
    world.machine.take(TINY, a_job(world, ends))

    world.machine.end()

    assert ends == [(1.0, False)]
    assert world.machine.engines == {}


def test_a_download_brings_a_file_onto_the_disk() -> None:
    """The inventory shows it a moment later."""
    world = World(Machine(download_bytes_per_s=100 * MIB))
    spec = world.library.add("big", GIB)

    world.machine.carry_out(do.Download(reference=reference_to(spec)))
    world.run(30.0)

    assert [event.done_bytes for _, event in world.heard(ev.DownloadProgressed)] == [GIB // 4, GIB // 2, GIB * 3 // 4]
    assert [at_s for at_s, _ in world.heard(ev.DownloadFinished)] == [10.24]
    assert [len(event.models) for _, event in world.heard(ev.InventoryChanged)] == [2]
    assert world.disk.fetched_bytes == GIB


def test_a_cancelled_download_brings_nothing() -> None:
    """And another one of the same model counts from its own start."""
    world = World(Machine(download_bytes_per_s=100 * MIB))
    order = do.Download(reference=reference_to(world.library.add("big", GIB)))

    world.machine.carry_out(order)
    world.run(5.0)
    world.machine.carry_out(do.CancelDownload(model=ModelId("big")))
    world.machine.carry_out(order)
    world.run(30.0)

    assert [at_s for at_s, _ in world.heard(ev.DownloadFinished)] == [15.24]


def test_a_download_that_cannot_be_says_why() -> None:
    """No room, or no such file."""
    world = World(Machine(disk_bytes=GIB))
    spec = world.library.add("big", GIB)
    other = Library().add("elsewhere")

    for found in (spec, other):
        world.machine.carry_out(do.Download(reference=reference_to(found)))
    world.run(1.0)

    assert [event.code for _, event in world.heard(ev.DownloadFailed)] == ["disk_full", "not_found"]


def test_a_name_is_resolved_after_a_moment() -> None:
    """To a file of the library, or to nothing."""
    world = World()

    for asked in ("sim/tiny", "sim/none"):
        world.machine.carry_out(do.ResolveModel(asked=asked))
    world.run(1.0)

    answers = [event.reference for _, event in world.heard(ev.ModelAsked)]
    assert [found.id if found is not None else None for found in answers] == ["tiny", None]


def test_a_node_learns_of_its_machine_at_the_start() -> None:
    """The machine, the engine, the files."""
    world = World()

    world.machine.begin()

    assert [type(event) for _, event in world.said] == [ev.ResourcesMeasured, ev.EngineProbed, ev.InventoryChanged]
