"""Readers get the newest view and can wait for the next."""

import asyncio
from dataclasses import replace

from meshllm.daemon.current_view import CurrentView
from tests.core.builders import a_story


async def test_waiters_wake_with_the_next_epoch() -> None:
    """All of them, with the same view."""
    view = a_story().core.view
    views = CurrentView(view)
    newer = replace(view, epoch=view.epoch + 1)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        waiters = [group.create_task(views.changed(view.epoch)) for _ in range(3)]
        group.create_task(publish(views, newer))

    assert [waiter.result() for waiter in waiters] == [newer] * 3


async def test_a_reader_that_is_behind_does_not_wait() -> None:
    """A change between two looks is never missed."""
    view = a_story().core.view
    views = CurrentView(view)
    views.publish(replace(view, epoch=view.epoch + 7))

    async with asyncio.timeout(30):
        assert (await views.changed(view.epoch)).epoch == view.epoch + 7


async def publish(views: CurrentView, view: object) -> None:
    """Publish from a task of its own."""
    views.publish(view)  # type: ignore[arg-type]
