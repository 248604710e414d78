"""The life of one engine, told as events; the engine is the double with its switches."""

import asyncio
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from meshllm.core import events as ev
from meshllm.core.engines import EngineBuild, EngineFault, EngineOptions, SplitPart, SplitRun
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import MIB
from meshllm.engine.life import EngineTimes
from tests.engine.builders import QUICK, Bench, a_bench, a_fake_build, a_plan

TINY = ModelId("tiny")


def lies_on_disk(path: str) -> bool:
    """Tell whether something has that path."""
    return Path(path).exists()


def say_first(program: Path, line: str) -> None:
    """Have a shell script say a line before it does anything else."""
    script = program.read_text(encoding="utf-8")
    program.write_text(script.replace("exec", f"echo '{line}'\nexec", 1), encoding="utf-8")


async def order(ready: ev.EngineReady, prompt: str) -> None:
    """Send a request that orders a trouble, and leave when it has begun or a moment has passed."""
    connector = aiohttp.UnixConnector(ready.endpoint.socket_path)
    headers = {"Authorization": f"Bearer {ready.endpoint.key}"}
    body = {"prompt": prompt, "stream": True}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.post("http://engine/v1/completions", json=body) as answer,
    ):
        await answer.content.readany()
        await asyncio.Event().wait()


async def hung_after(bench: Bench, prompt: str) -> ev.EngineHung:
    """Return what the watch says of an engine that was ordered into trouble."""
    ready = await bench.next(ev.EngineReady)
    bench.traffic.requests = 1
    async with asyncio.TaskGroup() as group:
        client = group.create_task(order(ready, prompt))
        hung = await bench.next(ev.EngineHung)
        client.cancel()
    return hung


async def test_good_life_is_told_in_order(runtime_dir: Path, model_file: str) -> None:
    """Started, ready with what the engine itself says, and stopped because it was asked."""
    async with a_bench(a_fake_build(), runtime_dir) as bench:
        bench.supervisor.start(a_plan(model_file, slots=3, context_tokens=1024))
        started = await bench.next(ev.EngineStarted)
        ready = await bench.next(ev.EngineReady)
        bench.supervisor.stop(TINY)
        failure = await bench.end()

    assert started.pid == ready.pid
    assert (ready.slots, ready.context_tokens) == (3, 1024)
    assert ready.load_s > 0
    assert ready.resident_bytes > MIB or not sys.platform.startswith("linux")
    assert len(ready.endpoint.key) >= 32
    assert (failure.fault, failure.exit_code) == (EngineFault.STOPPED, -signal.SIGTERM)
    assert not psutil.pid_exists(ready.pid)
    assert not lies_on_disk(ready.endpoint.socket_path)


async def test_load_tells_how_far_it_is(runtime_dir: Path, model_file: str) -> None:
    """A request that waits can be told why."""
    plan = a_plan(model_file)
    plan = dataclasses.replace(plan, memory=dataclasses.replace(plan.memory, weights_bytes=100 * MIB))
    async with a_bench(a_fake_build(load_s=0.3), runtime_dir) as bench:
        bench.supervisor.start(plan)
        progress = await bench.next(ev.EngineProgressed)
        await bench.next(ev.EngineReady)

    assert 0 < progress.share < 1


@pytest.mark.parametrize(
    ("trouble", "fault"),
    [
        ("oom", EngineFault.OUT_OF_MEMORY),
        ("bad_file", EngineFault.BAD_FILE),
        ("unknown_architecture", EngineFault.UNKNOWN_ARCHITECTURE),
        ("crash", EngineFault.CRASHED),
        ("exit", EngineFault.EXITED),
    ],
)
async def test_failed_load_is_explained(runtime_dir: Path, model_file: str, trouble: str, fault: EngineFault) -> None:
    """It ends with the reason, and never was ready."""
    async with a_bench(a_fake_build(load=trouble), runtime_dir) as bench:
        bench.supervisor.start(a_plan(model_file))
        failure = await bench.end()

    assert failure.fault is fault
    assert not any(isinstance(event, ev.EngineReady) for event in bench.told)


@pytest.mark.rows("LIF-20")
@pytest.mark.parametrize("switches", [{"load": "hang"}, {"refuse": True}])
async def test_stuck_load_is_ended(runtime_dir: Path, model_file: str, switches: dict[str, object]) -> None:
    """The load watchdog names the time and the engine's last words."""
    times = dataclasses.replace(QUICK, load_timeout_s=0.4)
    async with a_bench(a_fake_build(**switches), runtime_dir, times) as bench:
        bench.supervisor.start(a_plan(model_file))
        failure = await bench.end()

    assert failure.fault is EngineFault.LOAD_TIMEOUT
    assert "no progress for 0.4 s" in failure.message
    assert "its last words: fake: " in failure.message


async def test_load_of_one_model_has_its_own_patience(model_file: str, runtime_dir: Path) -> None:
    """What is said of a model holds over the node's setting."""
    plan = dataclasses.replace(a_plan(model_file), options=EngineOptions(load_timeout_s=0.4))
    async with a_bench(a_fake_build(load="hang"), runtime_dir) as bench:
        bench.supervisor.start(plan)
        failure = await bench.end()

    assert "no progress for 0.4 s" in failure.message


class Ways:
    """Ways to a worker that takes something each time somebody looks, so many times."""

    ports = (1,)
    problem = ""

    def __init__(self, moves: int) -> None:
        self.moves = moves
        self.looks = 0

    @property
    def sent_bytes(self) -> int:
        """Return how many bytes went to workers so far."""
        self.looks += 1
        return min(self.looks, self.moves)

    def begin(self, pid: int, lost: Callable[[str], None]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


async def test_a_load_that_sends_workers_nothing_more_is_ended_and_names_them(
    model_file: str, runtime_dir: Path
) -> None:
    """As long as bytes go out it gets on, whatever its own memory says."""
    split = SplitRun(epoch=1, workers=(SplitPart(node=NodeId("w"), layers=2, name="attic"),), home_layers=1)
    plan = dataclasses.replace(a_plan(model_file), split=split)
    ways = Ways(moves=30)
    times = dataclasses.replace(QUICK, load_timeout_s=0.4)
    async with a_bench(a_fake_build(refuse=True, rpc="fake 1"), runtime_dir, times) as bench:
        bench.supervisor.start(plan, ways)
        failure = await bench.end()

    assert ways.looks > 30
    assert failure.fault is EngineFault.LOAD_TIMEOUT
    assert "one of attic takes nothing more" in failure.message


async def test_argument_that_an_engine_has_not_starts_nothing(model_file: str, runtime_dir: Path) -> None:
    """The message names it; trying again would not help."""
    plan = dataclasses.replace(a_plan(model_file), options=EngineOptions(arguments=("--only-native", "1")))
    async with a_bench(a_fake_build(), runtime_dir) as bench:
        bench.supervisor.start(plan)
        failure = await bench.end()

    assert failure.fault is EngineFault.CANNOT_START
    assert "--only-native" in failure.message
    assert not any(isinstance(event, ev.EngineStarted) for event in bench.told)


async def test_missing_file_starts_nothing(runtime_dir: Path, tmp_path: Path) -> None:
    """A process would only say the same, later."""
    async with a_bench(a_fake_build(), runtime_dir) as bench:
        bench.supervisor.start(a_plan(str(tmp_path / "gone.gguf")))
        failure = await bench.end()

    assert failure.fault is EngineFault.MISSING_FILE
    assert failure.message == "the model file 'gone.gguf' cannot be opened: no such file or directory"
    assert not any(isinstance(event, ev.EngineStarted) for event in bench.told)


async def test_crash_is_told(runtime_dir: Path, model_file: str) -> None:
    """The front door and the core hear of it before the next request comes."""
    async with a_bench(a_fake_build(), runtime_dir) as bench:
        bench.supervisor.start(a_plan(model_file))
        ready = await bench.next(ev.EngineReady)

        os.kill(ready.pid, signal.SIGKILL)
        failure = await bench.end()

    assert (failure.fault, failure.exit_code) == (EngineFault.CRASHED, -signal.SIGKILL)


@pytest.mark.parametrize("trouble", ["!hang_mid_stream:1", "!freeze:1", "!burn:1"])
async def test_hang_is_noticed_once_and_remembered(runtime_dir: Path, model_file: str, trouble: str) -> None:
    """Idle, suspended or busy in a circle: the end that the core then orders is called a hang."""
    async with a_bench(a_fake_build(), runtime_dir) as bench:
        bench.supervisor.start(a_plan(model_file))
        hung = await hung_after(bench, trouble)
        hung_s = time.monotonic()

        bench.supervisor.stop(TINY, kill=True)
        failure = await bench.end()

    assert "nothing has moved" in hung.message
    assert 0 < bench.traffic.moved_s < hung_s - QUICK.stall_s / 2
    assert (failure.fault, failure.message) == (EngineFault.HUNG, hung.message)
    assert sum(isinstance(event, ev.EngineHung) for event in bench.told) == 1


async def test_slow_work_is_not_a_hang(runtime_dir: Path, model_file: str) -> None:
    """Each token counts as progress, however long the whole answer takes."""
    async with a_bench(a_fake_build(token_s=0.15), runtime_dir, dataclasses.replace(QUICK, stall_s=1.0)) as bench:
        bench.supervisor.start(a_plan(model_file))
        ready = await bench.next(ev.EngineReady)
        bench.traffic.requests = 1
        connector = aiohttp.UnixConnector(ready.endpoint.socket_path)
        headers = {"Authorization": f"Bearer {ready.endpoint.key}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            body = {"prompt": "x", "max_tokens": 12}
            async with session.post("http://engine/v1/completions", json=body) as answer:
                assert answer.status == 200
        bench.traffic.requests = 0
        bench.supervisor.stop(TINY)
        await bench.end()

    assert not any(isinstance(event, ev.EngineHung) for event in bench.told)


async def test_stop_during_the_load_is_obeyed(runtime_dir: Path, model_file: str) -> None:
    """Orders may come before the process exists."""
    async with a_bench(a_fake_build(load="hang"), runtime_dir) as bench:
        bench.supervisor.start(a_plan(model_file))
        bench.supervisor.stop(TINY)
        failure = await bench.end()

    assert failure.fault is EngineFault.STOPPED


async def test_program_that_cannot_run_is_told(runtime_dir: Path, model_file: str, tmp_path: Path) -> None:
    """A program may vanish after its self-test."""
    build = EngineBuild(kind="llama-server", version="1", uses_gpu=False, program=str(tmp_path / "gone"))
    async with a_bench(build, runtime_dir) as bench:
        bench.supervisor.start(a_plan(model_file))
        failure = await bench.end()

    assert failure.fault is EngineFault.CANNOT_START
    assert "No such file or directory" in failure.message


async def test_native_server_lives_the_same_life(runtime_dir: Path, model_file: str, native: Path) -> None:
    """Arguments instead of parameters, the key to the end of its standard input."""
    build = EngineBuild(kind="llama-server", version="1", uses_gpu=False, program=str(native))
    async with a_bench(build, runtime_dir) as bench:
        bench.supervisor.start(a_plan(model_file, slots=2, context_tokens=768))
        ready = await bench.next(ev.EngineReady)
        bench.supervisor.stop(TINY)
        failure = await bench.end()

    assert (ready.slots, ready.context_tokens) == (2, 768)
    assert failure.fault is EngineFault.STOPPED


async def test_trouble_that_a_load_survived_does_not_explain_a_later_crash(
    runtime_dir: Path, model_file: str, native: Path
) -> None:
    """It became ready in spite of it."""
    say_first(native, "0.01 E ggml_backend_alloc: failed to allocate a pinned buffer; taking another")
    build = EngineBuild(kind="llama-server", version="1", uses_gpu=False, program=str(native))
    async with a_bench(build, runtime_dir) as bench:
        bench.supervisor.start(a_plan(model_file))
        ready = await bench.next(ev.EngineReady)
        os.kill(ready.pid, signal.SIGSEGV)
        failure = await bench.end()

    assert "pinned" in "".join(bench.supervisor.log_lines(TINY))
    assert (failure.fault, failure.message) == (EngineFault.CRASHED, "it crashed by signal 11 (SIGSEGV)")


def test_looks_are_frequent_enough_for_any_budget() -> None:
    """A short budget needs quicker looks; a look that waits for its answer is no gap."""
    short, usual = EngineTimes(stall_s=0.5), EngineTimes()

    assert short.sample_interval_s == 0.1
    assert usual.sample_interval_s == 2.0
    assert usual.stall.gap_s > 2 * usual.sample_interval_s
