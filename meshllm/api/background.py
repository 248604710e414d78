"""Tasks that outlive the request that began them, and streams that end with the daemon.

Owns both sets, so that nothing runs without an owner. Doesn't know what the tasks do.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from aiohttp import web

from meshllm.api.answers import ApiError
from meshllm.core.limits import MANAGEMENT_STREAMS

log = logging.getLogger(__name__)

T = TypeVar("T")


class Background:
    """The running tasks of the management app."""

    def __init__(self) -> None:
        """Own nothing yet."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._streams: set[asyncio.Task[Any]] = set()

    def start(self, name: str, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run a coroutine on its own, until it ends or the app closes."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count the current request as a stream: at most so many, and none outlives the app.

        Raises ApiError 503 when there are too many.
        """
        task = asyncio.current_task()
        if task is None or len(self._streams) >= MANAGEMENT_STREAMS:
            message = f"{MANAGEMENT_STREAMS} streams are open already"
            raise ApiError(503, "too_many_streams", message, headers={"Retry-After": "5"})
        self._streams.add(task)
        try:
            yield
        finally:
            self._streams.discard(task)

    async def close(self, _: web.Application | None = None) -> None:
        """Cancel everything and wait for it."""
        tasks = self._tasks | self._streams - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task=%s failed", task.get_name(), exc_info=error)
