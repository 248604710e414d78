"""Plans, builds and a bench to run engines on: say only what matters, the rest is filled in."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from meshllm.core import events as ev
from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EngineBuild, EngineFailure, EnginePlan, MemoryNeed
from meshllm.core.ids import ModelId
from meshllm.core.limits import MIB
from meshllm.engine.command import Host
from meshllm.engine.life import EngineTimes
from meshllm.engine.supervisor import EngineSupervisor
from tests.core import builders as core_builders

T = TypeVar("T", bound=ev.Event)

WITHIN_S = 60.0
QUICK = EngineTimes(stall_s=0.5, busy_stall_s=1.5, stop_polite_s=0.5, load_timeout_s=60.0)
A_HOST = Host(python="/usr/bin/python3", package_root="/opt/app", pid=4711, environment={"PATH": "/usr/bin"})


def a_spec(path: str = "/models/tiny.gguf", **changes: object) -> ModelSpec:
    """Return the model of a file."""
    spec = core_builders.a_spec(Path(path).stem, size_bytes=10 * MIB)
    return dataclasses.replace(spec, path=path, files=(path,), **changes)


def a_plan(
    path: str = "/models/tiny.gguf", *, slots: int = 2, context_tokens: int = 512, **of_spec: object
) -> EnginePlan:
    """Return a small plan for a file."""
    need = MemoryNeed(weights_bytes=10 * MIB, kv_bytes=MIB, overhead_bytes=MIB, prompt_cache_bytes=16 * MIB)
    return EnginePlan(
        model=a_spec(path, **of_spec), context_tokens=context_tokens, slots=slots, gpu_layers=0, threads=1, memory=need
    )


def a_fake_build(**switches: object) -> EngineBuild:
    """Return the engine double with its switches."""
    return EngineBuild(kind="fake", version="0", uses_gpu=False, program=json.dumps(switches))


@dataclass
class FakeTraffic:
    """A front door that says what a test tells it to."""

    requests: int = 0
    last_byte_s: float = 0.0
    moved_s: float = 0.0

    def in_flight(self, model: ModelId) -> int:
        """Return the requests in flight."""
        return self.requests

    def last_progress_s(self, model: ModelId) -> float:
        """Return when the last byte came."""
        return self.last_byte_s

    def moved(self, model: ModelId, at_s: float) -> None:
        """Keep when the engine got on."""
        self.moved_s = at_s


@dataclass
class Bench:
    """A supervisor with everything around it."""

    supervisor: EngineSupervisor
    traffic: FakeTraffic
    runtime_dir: Path
    news: asyncio.Queue[ev.Event]
    told: list[ev.Event] = field(default_factory=list)

    async def next(self, kind: type[T]) -> T:
        """Return the next event of a kind; those before it are passed over. Fails after a while."""
        try:
            async with asyncio.timeout(WITHIN_S):
                while True:
                    event = await self.news.get()
                    self.told.append(event)
                    if isinstance(event, kind):
                        return event
        except TimeoutError:
            logs = self.supervisor.log_lines(ModelId("tiny"))
            msg = f"no {kind.__name__} came; before: {self.told}; the engine said: {logs}"
            raise AssertionError(msg) from None

    async def end(self) -> EngineFailure:
        """Return why the engine ended, once it has."""
        return (await self.next(ev.EngineExited)).failure


@asynccontextmanager
async def a_bench(build: EngineBuild, runtime_dir: Path, times: EngineTimes = QUICK) -> AsyncIterator[Bench]:
    """Yield a supervisor; end its engines afterwards."""
    news: asyncio.Queue[ev.Event] = asyncio.Queue()
    traffic = FakeTraffic()
    async with asyncio.TaskGroup() as group:

        def start_task(name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
            return group.create_task(work, name=name)

        supervisor = EngineSupervisor(build, runtime_dir, news.put_nowait, traffic, start_task, times=times)
        try:
            yield Bench(supervisor, traffic, runtime_dir, news)
        finally:
            await supervisor.close(0.0)
