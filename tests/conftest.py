"""What holds for every test: no leaks, uvloop under async tests, and a seed to repeat a failure with.

Owns the checks around a test, never its content. A test fails when it leaves asyncio tasks that nobody
awaited, child processes, or more open descriptors than it began with. Doesn't know any part of meshllm.
"""

import asyncio
import functools
import gc
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
import uvloop
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.rpc_engine"]

LEAK_WAIT_S = 10.0  # a process that was told to end may take this long to be gone
ROOT = Path(__file__).parent
SLOW_FOLDERS = frozenset({"e2e", "lab", "browser", "engine_real", "sim"})
LIMIT_S = 180.0  # where pyproject.toml is not read: tests of this file itself
ASYNC_SHARE = 0.8  # of a test's time limit: the loop's own alarm comes first
TASK_WAIT_S = 10.0  # a task that was cancelled may take this long to notice
DESCRIPTORS = Path("/proc/self/fd")
THREADS = Path("/proc/self/task")
KEPT_BY_LIBRARIES = ("/dev/", "/proc/", "/sys/")  # opened once by a library and kept for the process's life

# Hundreds of daemons and commands are started: where nobody may keep bytecode, as in many containers, each of them
# compiles the whole program again, which is half of what its start costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A busy machine is no failure: examples are counted, not timed. `--hypothesis-profile=thorough` looks longer.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("house"), max_examples=5_000)
settings.load_profile("house")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run async tests on the loop that the daemon runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Watch the tasks of every async test and bound its time; a sync test needs no loop for that.

    What takes longest comes first, so that several processes that share the tests end together.
    """
    items.sort(key=lambda item: item.path.relative_to(ROOT).parts[0] not in SLOW_FOLDERS)
    for item in items:
        if pytest_asyncio.is_async_test(item) and isinstance(item, pytest.Function):
            item.fixturenames.insert(0, "_no_pending_tasks")
            item.obj = _bounded(item.obj, _limit_s(item) * ASYNC_SHARE)


def _limit_s(item: pytest.Function) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker and marker.args else item.config.getini("timeout") or LIMIT_S)


def _bounded(test: Callable[..., Awaitable[None]], within_s: float) -> Callable[..., Awaitable[None]]:
    """Return a test that fails when it waits in vain: a loop asleep in the kernel hears no alarm of pytest-timeout."""

    @functools.wraps(test)
    async def bounded(*args: object, **kwargs: object) -> None:
        async with asyncio.timeout(within_s):
            await test(*args, **kwargs)

    return bounded


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how to get the same order and the same random numbers again."""
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        seed = config.getoption("randomly_seed", default="off")
        terminalreporter.write_line(f"The same order and random numbers again: --randomly-seed={seed}")


@pytest_asyncio.fixture
async def _no_pending_tasks() -> AsyncIterator[None]:
    """Fail an async test that leaves tasks behind."""
    yield
    pending = asyncio.all_tasks() - {asyncio.current_task()}
    if pending:
        _, pending = await asyncio.wait(pending, timeout=TASK_WAIT_S)
    if pending:
        pytest.fail("tasks left behind: " + ", ".join(sorted(repr(task) for task in pending)), pytrace=False)


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    """Fail a test that leaves child processes or descriptors behind."""
    children, descriptors = _children(), _descriptors()
    yield
    # What a process of a longer-lived fixture starts is that process's own affair.
    left = [process for process in _children() if process not in children and _parent(process) not in children]
    if left:
        _, left = psutil.wait_procs(left, timeout=LEAK_WAIT_S)
    if left:
        names = [f"{process.pid} {_command_line(process)}" for process in left]
        _end(left)
        pytest.fail("child processes left behind: " + "; ".join(names), pytrace=False)
    opened = _opened_since(descriptors)
    if opened:
        gc.collect()
        opened = _opened_since(descriptors)
    if opened:
        pytest.fail("descriptors left open: " + ", ".join(opened), pytrace=False)


def _parent(process: psutil.Process) -> psutil.Process | None:
    try:
        return process.parent()
    except psutil.NoSuchProcess:
        return None


def _children() -> set[psutil.Process]:
    return set() if _has_no_children() else set(psutil.Process().children(recursive=True))


def _has_no_children() -> bool:
    """Ask the kernel: to look at all processes of the machine, twice for each test, took half a minute in all."""
    try:
        return not any((thread / "children").read_bytes() for thread in THREADS.iterdir())
    except OSError:  # another system, or a thread that has just ended
        return False


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200] or process.name()
    except psutil.Error:
        return "(gone)"


def _end(processes: list[psutil.Process]) -> None:
    """Kill what a failed test left, so that the next tests don't suffer from it."""
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(processes, timeout=LEAK_WAIT_S)


def _descriptors() -> dict[int, str]:
    """Return what every open descriptor points at; empty where the system doesn't say."""
    found: dict[int, str] = {}
    for entry in DESCRIPTORS.iterdir() if DESCRIPTORS.is_dir() else ():
        try:
            found[int(entry.name)] = os.readlink(entry)  # noqa: PTH115 - Path.readlink would mangle "socket:[1]"
        except OSError:
            continue  # the descriptor of this very listing
    return found


def _opened_since(before: dict[int, str]) -> list[str]:
    """Return what is open and was not, unless a library keeps it or the number of descriptors has not grown."""
    after = {
        number: target
        for number, target in _descriptors().items()
        if before.get(number) != target and not target.startswith(KEPT_BY_LIBRARIES)
    }
    grown = len(_descriptors()) > len(before)
    return [f"{number} -> {target}" for number, target in sorted(after.items())] if grown else []
