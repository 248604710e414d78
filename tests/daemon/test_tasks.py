"""A task's mistake ends the task, not the daemon."""

import asyncio
import inspect
import logging

import pytest

from meshllm.core.events import Event, TaskFailed
from meshllm.daemon.tasks import Tasks


async def test_a_failed_task_becomes_an_event_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback, the core has the fact."""
    events: list[Event] = []
    done = asyncio.Event()

    async def fails() -> None:
        msg = "oops"
        raise RuntimeError(msg)

    async def works() -> None:
        done.set()

    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            tasks = Tasks(group, events.append)
            tasks.start("fails", fails())
            tasks.start("works", works())

    assert done.is_set()
    assert events == [TaskFailed(task="fails", message="RuntimeError: oops")]
    assert "task=fails" in caplog.text


async def test_what_is_cancelled_before_it_begins_is_not_left_lying() -> None:
    """A coroutine that nobody awaits would be a warning on the streams of whichever program this is."""

    async def never_begins() -> None:
        raise AssertionError

    work = never_begins()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        Tasks(group, lambda _: None).start("late", work).cancel()

    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


async def test_tasks_are_named_and_all_can_be_cancelled() -> None:
    """The end of the daemon leaves nothing behind."""
    both_run = asyncio.Barrier(3)

    async def runs_for_ever() -> None:
        await both_run.wait()
        await asyncio.Event().wait()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tasks = Tasks(group, lambda _: None)
        tasks.start("b", runs_for_ever())
        tasks.start("a", runs_for_ever())
        await both_run.wait()
        names = tasks.names()
        tasks.cancel_all()

    assert names == ("a", "b")
    assert tasks.names() == ()
