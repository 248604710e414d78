"""The life of one engine process, from its file to its end, told as events.

Owns one process and the watch over its load and its work; the single writer of both. Decides when a load
is stuck and when work is hung, never whether to start again: that is the core's. Doesn't know other
engines, nor what a request is.

Invariant: whatever happens, exactly one EngineExited is posted, after the process is reaped and its socket
is gone; unless the task itself is cancelled, which kills the process and posts nothing.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from meshllm.core import limits, split_limits
from meshllm.core.engines import EngineBuild, EngineEndpoint, EngineFailure, EngineFault, EnginePlan
from meshllm.core.events import (
    CacheMeasured,
    EngineExited,
    EngineHung,
    EngineProgressed,
    EngineReady,
    EngineStarted,
    Event,
)
from meshllm.core.ids import ModelId
from meshllm.core.routing.stall import StallBudget, StallSample, observe, start_clock
from meshllm.engine import health
from meshllm.engine.cache_reader import CacheReader
from meshllm.engine.command import Host, make_command
from meshllm.engine.output import LogRing, explain
from meshllm.engine.process import Process, spawn
from meshllm.engine.slot_store import NOTHING_RESTORED, SlotStore
from meshllm.engine.usage import oom_kills

POLL_FIRST_S = 0.02
POLL_GROWTH = 1.3
POLL_MAX_S = 0.25
PROGRESS_INTERVAL_S = 0.5
PROGRESS_STEP = 0.01
LOADING_SHARE_MAX = 0.99
LAST_WORDS_S = 3.0
"""What a ready engine said in so long before its end may explain it; older troubles were survived."""
SAMPLES_PER_BUDGET = 5
"""At least so many looks before work is called hung."""
GAP_INTERVALS = 2
"""One interval between two looks, one for the answer."""
CACHE_READ_S = 1.0
"""Longest wait for what an engine says of its prompt cache."""
GAP_LATE_S = 2.0
"""What a busy event loop may add; more is a machine that slept."""

LOST = EngineFailure(fault=EngineFault.EXITED, message="its supervision failed by a mistake of ours; see the log")


class Traffic(Protocol):
    """What the front door knows of an engine's work."""

    def in_flight(self, model: ModelId) -> int:
        """Return the requests that a model's engine has and has not answered."""
        ...

    def last_progress_s(self, model: ModelId) -> float:
        """Return the monotonic time of the last byte that came from a model's engine."""
        ...

    def moved(self, model: ModelId, at_s: float) -> None:
        """Take note of when a model's engine last got on with its work, or had none."""
        ...


class WorkerWays(Protocol):
    """How an engine reaches the workers of its split: a local port for each."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Return the ports, in the order of the workers."""
        ...

    @property
    def problem(self) -> str:
        """Return which worker was lost first, and why; empty while none was."""
        ...

    @property
    def sent_bytes(self) -> int:
        """Return how many bytes went to workers so far."""
        ...

    def begin(self, pid: int, lost: Callable[[str], None]) -> None:
        """Let a process use the ports, and nobody else. `lost` is called once, with `problem`."""
        ...

    def close(self) -> None:
        """End them; called exactly once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTimes:
    """How long an engine may take. Seconds."""

    load_timeout_s: float = limits.LOAD_TIMEOUT_S
    """Without any progress of the load."""
    stall_s: float = limits.ENGINE_STALL_S
    """Without progress and processor time while work is in flight."""
    busy_stall_s: float = limits.ENGINE_BUSY_STALL_S
    """Without progress, with processor time."""
    stop_polite_s: float = limits.ENGINE_STOP_POLITE_S
    probe_interval_s: float = limits.ENGINE_PROBE_INTERVAL_S
    probe_timeout_s: float = limits.ENGINE_PROBE_TIMEOUT_S

    @property
    def sample_interval_s(self) -> float:
        """Return the time between two looks at an engine's work."""
        return min(self.probe_interval_s, self.stall_s / SAMPLES_PER_BUDGET)

    @property
    def stall(self) -> StallBudget:
        """Return how long nothing may move. A look that waits for its answer is no gap."""
        gap_s = GAP_INTERVALS * self.sample_interval_s + GAP_LATE_S
        return StallBudget(idle_s=self.stall_s, busy_s=self.busy_stall_s, gap_s=gap_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeContext:
    """What a life needs of its surroundings."""

    build: EngineBuild
    host: Host
    times: EngineTimes
    post: Callable[[Event], None]
    traffic: Traffic
    ways: "WorkerWays | None" = None
    """For a split."""
    slots: "SlotStore | None" = None
    """Where conversations are saved when it ends."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Return the local port at which each worker of a split is reached, in their order."""
        return self.ways.ports if self.ways is not None else ()


class EngineLife:
    """One engine. `run` is its task; `stop` asks it to end."""

    def __init__(self, plan: EnginePlan, endpoint: EngineEndpoint, context: LifeContext) -> None:
        """Prepare an engine that `run` will start."""
        self._plan = plan
        self._model = plan.model.id
        self._endpoint = endpoint
        self._context = context
        self._load_timeout_s = plan.options.load_timeout_s or context.times.load_timeout_s
        if plan.split is not None:
            self._load_timeout_s = min(self._load_timeout_s, split_limits.SPLIT_LOAD_STALL_S)
        self._process: Process | None = None
        self._hung = ""
        self._end: EngineFailure | None = None
        self._ready_s: float | None = None
        self._stop_polite_s: float | None = None
        self._group: asyncio.TaskGroup | None = None
        self._saving: asyncio.Task[None] | None = None
        self._restored = NOTHING_RESTORED
        self.log = LogRing()
        self.finished = asyncio.Event()

    def stop(self, polite_s: float, slots_bytes: int = 0) -> None:
        """Ask it to end, firmly after `polite_s`; at once for 0. Asked before: the shorter time counts.

        With `slots_bytes` its conversations are saved first, in so many bytes of the disk.
        """
        may_save = slots_bytes and polite_s > 0 and self._end is None and self._ready_s is not None and not self._hung
        if self._end is None:
            self._end = EngineFailure(fault=EngineFault.STOPPED, message="it was asked to stop")
            if self._hung and polite_s <= 0:
                self._end = EngineFailure(fault=EngineFault.HUNG, message=self._hung)
        self._stop_polite_s = polite_s
        process, slots, group = self._process, self._context.slots, self._group
        if process is None:
            return
        if may_save and slots is not None and group is not None:
            saving = self._save_and_stop(process, slots, slots_bytes)
            self._saving = group.create_task(saving, name=f"engine-save:{self._model}")
        else:
            process.stop(polite_s)

    async def _save_and_stop(self, process: Process, slots: SlotStore, most_bytes: int) -> None:
        try:
            await slots.save(self._endpoint, self._plan, self._context.build, most_bytes, self._restored)
        finally:
            if self._stop_polite_s is not None:
                process.stop(self._stop_polite_s)

    async def run(self) -> None:
        """Start the engine, watch it, and tell of its end."""
        failure: EngineFailure | None = LOST
        try:
            failure = await self._live()
        except asyncio.CancelledError:
            failure = None  # the daemon itself goes; nobody listens any more
            raise
        finally:
            with contextlib.suppress(OSError):
                os.unlink(self._endpoint.socket_path)  # noqa: PTH108 - quick, and here is no place to await
            if self._context.ways is not None:
                self._context.ways.close()
            self.finished.set()
            if failure is not None:
                self._context.post(EngineExited(model=self._model, failure=failure))

    async def _live(self) -> EngineFailure:
        """Run the process to its end and return why it ended."""
        if (early := _problem_of_file(self._plan) or self._end) is not None:
            return early
        context = self._context
        endpoint = self._endpoint
        try:
            slots_folder = context.slots.open_folder() if context.slots is not None else ""
            host = replace(context.host, slots_folder=slots_folder)
            command = make_command(
                self._plan, context.build, endpoint.socket_path, endpoint.key, host, ports=context.ports
            )
        except ValueError as error:
            return EngineFailure(fault=EngineFault.CANNOT_START, message=str(error))
        kills_before = oom_kills()
        try:
            process = await spawn(command, self.log)
        except OSError as error:
            message = f"its program cannot be started: {error.strerror or error}"
            return EngineFailure(fault=EngineFault.CANNOT_START, message=message)
        code = await self._accompany(process)
        if self._end is None and context.ways is not None and context.ways.problem:
            self._lose(context.ways.problem)  # it noticed before we were told
        if self._end is None:
            killed, workers = oom_kills() > kills_before, _workers(self._plan, context.ports)
            return explain(self._last_words(), code, oom_killed=killed, workers=workers)
        return EngineFailure(fault=self._end.fault, message=self._end.message, exit_code=code)

    def _last_words(self) -> tuple[str, ...]:
        """Return the lines that may explain an end just now: of the load, or else of the last moments."""
        if self._ready_s is None:
            return self.log.lines
        return self.log.lines_since(max(self._ready_s, time.monotonic() - LAST_WORDS_S))

    async def _accompany(self, process: Process) -> int:
        """Watch over a process until its end; return its exit status."""
        self._process = process
        if self._stop_polite_s is not None:
            process.stop(self._stop_polite_s)  # asked while it was started
        if self._context.ways is not None:
            self._context.ways.begin(process.pid, self._lose)
        self._context.post(EngineStarted(model=self._model, pid=process.pid))
        async with asyncio.TaskGroup() as group:
            self._group = group
            watching = group.create_task(self._watch(process), name=f"engine-watch:{self._model}")
            code = await process.run()
            self._group = None
            watching.cancel()
            if self._saving is not None:
                self._saving.cancel()
        return code

    def _lose(self, message: str) -> None:
        """End an engine that has lost a worker: it would end itself, with its next token."""
        if self._end is None:
            self._end = EngineFailure(fault=EngineFault.CRASHED, message=message)
            if self._process is not None:
                self._process.stop(0.0)

    async def _watch(self, process: Process) -> None:
        """Wait until the engine is ready, then see that it gets on."""
        began_s = time.monotonic()
        if not await self._loaded(process):
            self._give_up_loading(process)
            return
        usage = process.usage()
        if self._context.slots is not None and self._end is None:
            self._restored = await self._context.slots.restore(self._endpoint, self._plan, self._context.build)
        self._ready_s = time.monotonic()
        offered = await self._offer()
        ready = EngineReady(
            model=self._model,
            endpoint=self._endpoint,
            pid=process.pid,
            context_tokens=offered.context_tokens,
            slots=offered.slots,
            load_s=time.monotonic() - began_s,
            resident_bytes=usage.resident_bytes if usage else 0,
        )
        if self._end is None:
            self._context.post(ready)
        await self._until_hung(process)
        if self._end is None:
            self._context.post(EngineHung(model=self._model, message=self._hung))

    async def _loaded(self, process: Process) -> bool:
        """Wait until the engine is ready; return False when its load is stuck."""
        times = self._context.times
        pause_s, told_share = POLL_FIRST_S, 0.0
        seen, moved_s, told_s = (-1, -1, -1), time.monotonic(), 0.0
        ways = self._context.ways
        while True:
            found = await health.health(self._endpoint, times.probe_timeout_s)
            if found is health.Health.READY:
                return True
            usage, now_s = process.usage(), time.monotonic()
            resident = usage.resident_bytes if usage else 0
            counts = (resident // limits.MIB, self.log.fed_lines, ways.sent_bytes if ways is not None else 0)
            if counts != seen:
                seen, moved_s = counts, now_s
            if now_s - moved_s > self._load_timeout_s:
                return False
            share = min(resident / max(self._plan.memory.weights_bytes, 1), LOADING_SHARE_MAX)
            if share >= told_share + PROGRESS_STEP and now_s - told_s >= PROGRESS_INTERVAL_S:
                self._context.post(EngineProgressed(model=self._model, share=share))
                told_share, told_s = share, now_s
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * POLL_GROWTH, POLL_MAX_S)

    def _give_up_loading(self, process: Process) -> None:
        """End a load that is stuck, and say where it was."""
        last = f"; its last words: {self.log.lines[-1]}" if self.log.lines else ""
        help_ = "a smaller quantization may load"
        if self._plan.split is not None:
            help_ = f"one of {', '.join(part.name for part in self._plan.split.workers)} takes nothing more"
        message = f"its load made no progress for {self._load_timeout_s:g} s and was ended; {help_}{last}"
        if self._end is None:
            self._end = EngineFailure(fault=EngineFault.LOAD_TIMEOUT, message=message)
        process.stop(0.0)

    async def _offer(self) -> health.Offer:
        """Return what the ready engine offers: in its words, or as planned where it doesn't say."""
        try:
            return await health.offer(self._endpoint, self._context.times.probe_timeout_s)
        except health.ProbeError:
            return health.Offer(slots=self._plan.slots, context_tokens=self._plan.context_tokens)

    async def _until_hung(self, process: Process) -> None:
        """Return when work is in flight that doesn't get on, with the reason in `_hung`."""
        times = self._context.times
        clock = start_clock(await self._sample(process))
        cache = CacheReader(self._endpoint, self.log, process.usage)
        while not self._hung:
            await asyncio.sleep(times.sample_interval_s)
            sample = await self._sample(process)
            clock, hung = observe(clock, sample, times.stall)
            self._hung = hung.reason if hung else ""
            self._context.traffic.moved(self._model, clock.moved_s)
            if not sample.in_flight or sample.progress is not None:
                await self._tell_of_cache(cache)

    async def _tell_of_cache(self, cache: CacheReader) -> None:
        """Tell what the engine's prompt cache did, if that is news. Half a look is left for it: looks must not gap."""
        passed_s = self._context.traffic.last_progress_s(self._model)
        reading = await cache.news(passed_s, min(self._context.times.sample_interval_s / 2, CACHE_READ_S))
        if reading is not None and self._end is None:
            self._context.post(CacheMeasured(model=self._model, reading=reading))

    async def _sample(self, process: Process) -> StallSample:
        """Look at the engine's work; an idle engine is left in peace."""
        traffic, model = self._context.traffic, self._model
        if not traffic.in_flight(model):
            return StallSample(at_s=time.monotonic(), in_flight=0)
        reading = None
        with contextlib.suppress(health.ProbeError):
            reading = await health.slots(self._endpoint, self._context.times.sample_interval_s)
        usage = process.usage()
        return StallSample(
            at_s=time.monotonic(),
            in_flight=traffic.in_flight(model),
            progress=reading.counters if reading else None,
            busy_slots=reading.busy if reading else None,
            last_byte_s=traffic.last_progress_s(model),
            cpu_s=usage.cpu_s if usage else None,
        )


def _workers(plan: EnginePlan, ports: tuple[int, ...]) -> dict[int, str]:
    """Return the names of those who share a plan's model, by the local port at which each is reached."""
    parts = plan.split.workers if plan.split is not None else ()
    return {port: part.name or part.node for port, part in zip(ports, parts, strict=False)}


def _problem_of_file(plan: EnginePlan) -> EngineFailure | None:
    """Return why a plan's files cannot be opened, or None."""
    for path in (*plan.model.files, plan.model.path):
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            message = f"the model file {Path(path).name!r} cannot be opened: {reason}"
            return EngineFailure(fault=EngineFault.MISSING_FILE, message=message)
    return None
