"""What a simulated node's orders to engines and downloads come to, and how long that takes.

Owns the engines of one run of a node's process, the memory that they take, and the jobs that they work on. Decides
nothing by itself: loads, drains and downloads take the time that the machine's speeds say, unless somebody has an
engine crash. Doesn't know requests (`sim_requests` does) nor cores: what happens goes out as events.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.catalog import ModelSpec
from meshllm.core.effects import Effect
from meshllm.core.engines import EngineEndpoint, EngineFailure, EngineFault, EnginePlan
from meshllm.core.events import Event
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import ENGINE_QUEUE_REQUESTS, HOST_QUEUE_PER_SLOT, disk_reserve_bytes
from meshllm.testing.sim_lending import Lost, SimLending
from meshllm.testing.sim_models import Disk, Library, Machine

END_S = 0.1
"""From an order to stop until a process is gone; also how long an idle engine takes to drain."""
RESOLVE_S = 0.3
SCAN_S = 0.5
"""From a finished download until the inventory shows the file."""
MEASURE_S = 10.0
"""How often a machine is looked at; only where something changed, so that a quiet mesh costs nothing."""
_STEPS = 4
"""Of a load or a download that are told."""
CONNECT_S = 0.05
"""Until an engine finds out that a worker is not there."""
Later = Callable[[float, Callable[[], None]], None]

Use = Callable[[NodeId, ModelId, int, Lost], bool]
"""(worker, model, epoch, lost): uses a server of another node; `lost` is called when that ends."""


@dataclass(slots=True, eq=False)
class Job:
    """One request at an engine."""

    work_s: float
    silent_s: float
    """Until the first byte."""
    is_from_peer: bool
    on_first_byte: Callable[[], None]
    on_end: Callable[[bool], None]
    """Called once, with whether the answer is complete."""
    is_over: bool = False

    def end(self, *, is_complete: bool) -> None:
        """End it, unless that has happened."""
        if not self.is_over:
            self.is_over = True
            self.on_end(is_complete)


@dataclass(slots=True, eq=False)
class SimEngine:
    """One engine's process."""

    plan: EnginePlan
    is_ready: bool = False
    is_gone: bool = False
    computing: list[Job] = field(default_factory=list)
    queue: deque[Job] = field(default_factory=deque)
    is_draining: bool = False

    @property
    def in_flight(self) -> int:
        """Return the jobs that are here."""
        return len(self.computing) + len(self.queue)

    @property
    def admitted(self) -> int:
        """Return how many jobs may be here, by the rule of the front door."""
        slots = self.plan.slots
        return slots + max(ENGINE_QUEUE_REQUESTS, slots * HOST_QUEUE_PER_SLOT)

    @property
    def split(self) -> tuple[int, int]:
        """Return the bytes that were promised to it: (on the machine, on the GPU)."""
        need = self.plan.memory
        device = need.total_bytes - need.prompt_cache_bytes
        if self.plan.split is not None:
            return (0, device) if self.plan.gpu_layers else (device, 0)
        on_gpu = int(device * min(self.plan.gpu_layers / max(self.plan.model.architecture.layers, 1), 1.0))
        return device - on_gpu + need.prompt_cache_bytes, on_gpu


class SimMachine:
    """The engines and downloads of a node while its process runs."""

    def __init__(
        self, machine: Machine, disk: Disk, library: Library, later: Later, post: Callable[[Event], None],
        use: Use = lambda *_: False,
    ) -> None:  # fmt: skip
        """Run nothing yet. `later` and `post` do nothing any more once the process has ended."""
        self.machine = machine
        self.disk = disk
        self.engines: dict[ModelId, SimEngine] = {}
        self.finished: Counter[ModelId] = Counter()
        """Jobs done well since the last report; likewise those for other nodes."""
        self.from_peers: Counter[ModelId] = Counter()
        self.lending = SimLending(later, post)
        self._use = use
        self.starts = 0
        self.stops = 0
        self._library = library
        self._later = later
        self._post = post
        self._downloads: dict[ModelId, object] = {}
        """What tells a download from an earlier one of the same model that was cancelled."""
        self._is_measuring = False
        self._told_in_flight: tuple[tuple[ModelId, int], ...] = ()

    def begin(self) -> None:
        """Tell the core what there is: the machine, its engine, its files."""
        self._measure()
        self._post(ev.EngineProbed(build=self.machine.build))
        self._scan()

    def carry_out(self, effect: Effect) -> None:
        """Obey an order that is about engines or files; others mean nothing here."""
        match effect:
            case do.StartEngine(plan=plan):
                self._start(plan)
            case do.Lend():
                self.lending.lend(effect)
                self._look_again()
            case do.EndLending():
                self.lending.stop(effect)
            case do.DrainEngine(model=model, within_s=within_s):
                self._drain(model, within_s)
            case do.StopEngine(model=model):
                self._stop(model)
            case do.ResolveModel(asked=asked):
                self._resolve(asked)
            case do.Download():
                self._download(effect)
            case do.CancelDownload(model=model):
                self._downloads.pop(model, None)
            case _:
                pass

    # -- engines ---------------------------------------------------------------------------------------

    def _start(self, plan: EnginePlan) -> None:
        model = plan.model.id
        if model in self.engines:
            raise AssertionError(f"{model} is started while its engine runs")
        self.starts += 1
        engine = self.engines[model] = SimEngine(plan)
        self._soon(partial(ev.EngineStarted, model=model, pid=1), 0.0, engine)
        load_s = plan.model.size_bytes / self.machine.load_bytes_per_s
        for step in range(1, _STEPS):
            share = step / _STEPS
            self._soon(partial(ev.EngineProgressed, model=model, share=share), load_s * share, engine)
        self._soon(lambda: self._ready(engine, load_s), load_s, engine)
        if (split := plan.split) is not None:
            for part in split.workers:
                if not self._use(part.node, model, split.epoch, partial(self._lose_worker, engine)):
                    self._later(CONNECT_S, partial(self._lose_worker, engine))

    def _lose_worker(self, engine: SimEngine) -> None:
        """An engine aborts when a worker of it is lost, or was never there."""
        if not engine.is_gone:
            self._end(engine, EngineFailure(fault=EngineFault.CRASHED, message="a worker was lost", exit_code=-6), 0.0)

    def _ready(self, engine: SimEngine, load_s: float) -> Event | None:
        if engine.is_ready:
            return None
        engine.is_ready = True
        self._look_again()
        need, plan = engine.plan.memory, engine.plan
        resident_bytes = int((need.total_bytes - need.prompt_cache_bytes) * (1 + self.machine.excess))
        return ev.EngineReady(
            model=plan.model.id, endpoint=EngineEndpoint(socket_path=f"/run/{plan.model.id}.sock"), pid=1,
            context_tokens=plan.context_tokens, slots=plan.slots, load_s=load_s, resident_bytes=resident_bytes,
        )  # fmt: skip

    def _soon(self, make: Callable[[], Event | None], delay_s: float, engine: SimEngine) -> None:
        """Have an engine say something after a while, if it is still there."""

        def tell() -> None:
            if not engine.is_gone and (event := make()) is not None:
                self._post(event)

        self._later(delay_s, tell)

    def _drain(self, model: ModelId, within_s: float) -> None:
        engine = self.engines.get(model)
        if engine is None:
            return
        engine.is_draining = True
        self._soon(lambda: self._drained(engine), within_s, engine)
        if not engine.in_flight:
            self._soon(lambda: self._drained(engine), END_S, engine)

    def _drained(self, engine: SimEngine) -> Event | None:
        if not engine.is_draining:
            return None
        engine.is_draining = False
        return ev.EngineDrained(model=engine.plan.model.id, abandoned=engine.in_flight)

    def _stop(self, model: ModelId) -> None:
        engine = self.engines.get(model)
        if engine is not None and not engine.is_gone:
            self.stops += 1
            stopped = EngineFailure(fault=EngineFault.STOPPED, message="it was stopped")
            self._end(engine, stopped, END_S)

    def crash_engine(self, model: ModelId) -> bool:
        """Have an engine end by a signal, or be ended by its watch while it loads; tell whether there was one."""
        engine = self.engines.get(model)
        if engine is None or engine.is_gone:
            return False
        failure = EngineFailure(fault=EngineFault.CRASHED, message="SIGSEGV", exit_code=-11)
        if not engine.is_ready and engine.plan.split is not None:
            failure = EngineFailure(fault=EngineFault.LOAD_TIMEOUT, message="a worker takes nothing more")
        self._end(engine, failure, 0.0)
        return True

    def _end(self, engine: SimEngine, failure: EngineFailure, after_s: float) -> None:
        engine.is_gone = True
        model = engine.plan.model.id

        def gone() -> None:
            del self.engines[model]
            self._look_again()
            self._post(ev.EngineExited(model=model, failure=failure))

        self._later(after_s, gone)
        self._abandon(engine)

    def end(self) -> None:
        """Everything ends with the process of the node."""
        self.lending.end()
        for engine in self.engines.values():
            engine.is_gone = True
            self._abandon(engine)
        self.engines.clear()

    # -- jobs ------------------------------------------------------------------------------------------

    def take(self, model: ModelId, job: Job) -> bool:
        """Give an engine a job; tell whether it takes it."""
        engine = self.engines.get(model)
        if engine is None or engine.is_gone or not engine.is_ready or engine.in_flight >= engine.admitted:
            return False
        if len(engine.computing) < engine.plan.slots:
            self._compute(engine, job)
        else:
            engine.queue.append(job)
        return True

    def _compute(self, engine: SimEngine, job: Job) -> None:
        engine.computing.append(job)
        self._later(job.silent_s, lambda: None if job.is_over else job.on_first_byte())
        self._later(job.work_s, lambda: self._done(engine, job))

    def _done(self, engine: SimEngine, job: Job) -> None:
        if job.is_over or engine.is_gone:
            return
        model = engine.plan.model.id
        engine.computing.remove(job)
        self.finished[model] += 1
        if job.is_from_peer:
            self.from_peers[model] += 1
        job.end(is_complete=True)
        if engine.queue:
            self._compute(engine, engine.queue.popleft())
        elif engine.is_draining and not engine.in_flight and (event := self._drained(engine)) is not None:
            self._post(event)

    def _abandon(self, engine: SimEngine) -> None:
        jobs = [*engine.computing, *engine.queue]
        engine.computing.clear()
        engine.queue.clear()
        for job in jobs:
            job.end(is_complete=False)

    def traffic(self, elsewhere: Counter[ModelId]) -> ev.TrafficMeasured | None:
        """Return what ended since the last call and what is in flight; None when both are as before.

        `elsewhere` are requests that came in here and were answered at other nodes.
        """
        in_flight = tuple((model, engine.in_flight) for model, engine in self.engines.items() if engine.in_flight)
        if not self.finished and not elsewhere and in_flight == self._told_in_flight:
            return None
        self._told_in_flight = in_flight
        finished, from_peers = self.finished, self.from_peers
        self.finished, self.from_peers = Counter(), Counter()
        return ev.TrafficMeasured(
            finished=tuple(finished.items()),
            from_peers=tuple(from_peers.items()),
            in_flight=in_flight,
            elsewhere=tuple(elsewhere.items()),
        )

    # -- memory and files ------------------------------------------------------------------------------

    def promised_bytes(self) -> tuple[int, int]:
        """Return what all engines may take together: (of the machine, of the GPU)."""
        splits = [engine.split for engine in self.engines.values()]
        lent = sum(server.memory_bytes for server in self.lending.servers.values())
        host, gpu = sum(host for host, _ in splits), sum(gpu for _, gpu in splits)
        return (host, gpu + lent) if self.machine.gpu_bytes else (host + lent, gpu)

    def taken_bytes(self) -> tuple[int, int]:
        """Return what the loaded engines take; prompt caches are still empty."""
        lent = sum(self.lending.servers[model].memory_bytes for model in self.lending.loaded)
        host, gpu = (0, lent) if self.machine.gpu_bytes else (lent, 0)
        for engine in self.engines.values():
            if engine.is_ready:
                on_host, on_gpu = engine.split
                host += int((on_host - engine.plan.memory.prompt_cache_bytes) * (1 + self.machine.excess))
                gpu += int(on_gpu * (1 + self.machine.excess))
        return host, gpu

    def _look_again(self) -> None:
        """Measure the machine the next time that it is looked at."""
        if not self._is_measuring:
            self._is_measuring = True
            self._later(MEASURE_S, self._measure)

    def _measure(self) -> None:
        self._is_measuring = False
        resources = self.machine.resources(*self.taken_bytes(), self.disk.fetched_bytes)
        self._post(ev.ResourcesMeasured(resources=resources))

    def _scan(self) -> None:
        self._post(ev.InventoryChanged(models=tuple(self.disk.files.values())))

    def _resolve(self, asked: str) -> None:
        reference = self._library.resolve(asked)
        message = "" if reference is not None else "the hub has no such model"
        answer = ev.ModelAsked(asked=asked, reference=reference, message=message)
        self._later(RESOLVE_S, partial(self._post, answer))

    def _download(self, order: do.Download) -> None:
        model = order.reference.id
        spec = self._library.named(model)
        if spec is None:
            self._fail(model, "not_found", "the hub has no such file")
            return
        free_bytes = self.machine.disk_bytes - self.disk.fetched_bytes
        if free_bytes < spec.size_bytes + disk_reserve_bytes(spec.size_bytes):
            self._fail(model, "disk_full", f"{spec.size_bytes} bytes do not fit on the disk")
            return
        run = self._downloads[model] = object()
        whole_s = spec.size_bytes / self.machine.download_bytes_per_s
        for step in range(1, _STEPS):
            self._later(whole_s * step / _STEPS, partial(self._progress, spec, run, step))
        self._later(whole_s, partial(self._downloaded, spec, run))

    def _fail(self, model: ModelId, code: str, message: str) -> None:
        self._later(RESOLVE_S, partial(self._post, ev.DownloadFailed(model=model, code=code, message=message)))

    def _progress(self, spec: ModelSpec, run: object, step: int) -> None:
        if self._downloads.get(spec.id) is run:
            done_bytes = spec.size_bytes * step // _STEPS
            self._post(ev.DownloadProgressed(model=spec.id, done_bytes=done_bytes, total_bytes=spec.size_bytes))

    def _downloaded(self, spec: ModelSpec, run: object) -> None:
        if self._downloads.get(spec.id) is not run:
            return
        del self._downloads[spec.id]
        self.disk.add(spec)
        self._look_again()
        self._post(ev.DownloadFinished(model=spec.id, path=spec.path))
        self._later(SCAN_S, self._scan)
