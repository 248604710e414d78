"""All engines of a node: orders in, events out."""

import asyncio
import dataclasses
import time
from collections.abc import Coroutine
from pathlib import Path

import psutil
import pytest

from meshllm.core import events as ev
from meshllm.core.engines import EngineFault
from meshllm.core.ids import ModelId
from meshllm.engine.supervisor import AlreadyRunningError, EngineSupervisor, SocketPathTooLongError
from tests.engine.builders import QUICK, FakeTraffic, a_bench, a_fake_build, a_plan

TINY = ModelId("tiny")


def _nothing(name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
    work.close()
    raise AssertionError(name)


async def test_engines_live_side_by_side(runtime_dir: Path, tmp_path: Path) -> None:
    """A crash of one leaves the others serving; each has its own socket and key."""
    files = [tmp_path / f"{name}.gguf" for name in ("one", "two")]
    async with a_bench(a_fake_build(), runtime_dir) as bench:
        for file in files:
            file.write_bytes(b"GGUF")
            bench.supervisor.start(a_plan(str(file)))
        ready = [await bench.next(ev.EngineReady) for _ in files]
        psutil.Process(ready[0].pid).kill()
        exited = await bench.next(ev.EngineExited)

        assert exited.model == ready[0].model
        assert psutil.pid_exists(ready[1].pid)
        assert ready[0].endpoint.key != ready[1].endpoint.key
        assert ready[0].endpoint.socket_path != ready[1].endpoint.socket_path


async def test_second_engine_for_a_model_is_a_mistake(runtime_dir: Path, model_file: str) -> None:
    """Orders that contradict each other must not pass in silence."""
    async with a_bench(a_fake_build(), runtime_dir) as bench:
        bench.supervisor.start(a_plan(model_file))

        with pytest.raises(AlreadyRunningError, match="tiny"):
            bench.supervisor.start(a_plan(model_file))


async def test_ended_engine_can_be_started_again(runtime_dir: Path, model_file: str) -> None:
    """A restart is a start like any other."""
    async with a_bench(a_fake_build(), runtime_dir) as bench:
        for _ in range(2):
            bench.supervisor.start(a_plan(model_file))
            await bench.next(ev.EngineReady)
            bench.supervisor.stop(TINY, kill=True)
            assert (await bench.end()).fault is EngineFault.STOPPED


async def test_log_outlives_its_engine(runtime_dir: Path, model_file: str) -> None:
    """People ask for it when the engine is gone."""
    async with a_bench(a_fake_build(load="exit"), runtime_dir) as bench:
        bench.supervisor.start(a_plan(model_file))
        await bench.end()

        assert any("something else went wrong" in line for line in bench.supervisor.log_lines(TINY))
        assert bench.supervisor.log_lines(ModelId("other")) == ()


async def test_stop_of_what_does_not_run_is_nothing(runtime_dir: Path, model_file: str) -> None:
    """The core may order a stop while an end is on its way."""
    async with a_bench(a_fake_build(load="exit"), runtime_dir) as bench:
        bench.supervisor.stop(TINY)
        bench.supervisor.start(a_plan(model_file))
        await bench.end()
        bench.supervisor.stop(TINY, kill=True)

        assert bench.news.empty()


async def test_close_ends_all_at_the_same_time(runtime_dir: Path, tmp_path: Path) -> None:
    """The daemon's end takes one politeness, not one for each engine."""
    names = ("one", "two", "three")
    times = dataclasses.replace(QUICK, stop_polite_s=2.0)
    async with a_bench(a_fake_build(ignore_sigterm=True), runtime_dir, times) as bench:
        for name in names:
            (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
            bench.supervisor.start(a_plan(str(tmp_path / f"{name}.gguf")))
        ready = [await bench.next(ev.EngineReady) for _ in names]

        began_s = time.monotonic()
        await bench.supervisor.close(2.0)
        took_s = time.monotonic() - began_s

        assert 2.0 <= took_s < 2.0 * len(names)
        assert not any(psutil.pid_exists(one.pid) for one in ready)


async def test_cancelled_tasks_leave_no_engine(runtime_dir: Path, model_file: str) -> None:
    """The daemon cancels its tasks when all else has failed."""
    news: asyncio.Queue[ev.Event] = asyncio.Queue()
    tasks: list[asyncio.Task[None]] = []
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:

        def start_task(name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
            tasks.append(group.create_task(work, name=name))
            return tasks[-1]

        supervisor = EngineSupervisor(a_fake_build(), runtime_dir, news.put_nowait, FakeTraffic(), start_task)
        supervisor.start(a_plan(model_file))
        started = await news.get()
        tasks[0].cancel()
        await asyncio.wait(tasks)

    assert isinstance(started, ev.EngineStarted)
    assert tasks[0].get_name() == "engine:tiny"
    assert not psutil.pid_exists(started.pid)


async def test_an_engine_that_was_cancelled_before_it_began_holds_nobody_up(runtime_dir: Path, model_file: str) -> None:
    """A program's loop may end in that very moment; there is nothing to wait for then, however patient one is."""

    def start_task(name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.cancel()
        return task

    supervisor = EngineSupervisor(a_fake_build(), runtime_dir, lambda _: None, FakeTraffic(), start_task)
    supervisor.start(a_plan(model_file))
    async with asyncio.timeout(30):
        await supervisor.close(polite_s=1e6)

    assert supervisor.log_lines(TINY) == ()


def test_runtime_folder_with_too_long_a_path_is_refused(tmp_path: Path) -> None:
    """A Unix socket's address holds about a hundred bytes: better said at the start than at the first load."""
    with pytest.raises(SocketPathTooLongError, match="shorter"):
        EngineSupervisor(a_fake_build(), tmp_path / ("x" * 100), lambda _: None, FakeTraffic(), _nothing)
