"""Every task of the daemon: named, owned, and never lost.

Owns the rule what happens when a task ends by a mistake of ours: it is logged with its traceback and
becomes a `TaskFailed` event; the daemon goes on. The only place that catches `Exception`.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from meshllm.core.events import Event, TaskFailed

log = logging.getLogger(__name__)


class Tasks:
    """Starts tasks in one `TaskGroup` and keeps them by name."""

    def __init__(self, group: asyncio.TaskGroup, post: Callable[[Event], None]) -> None:
        """Own tasks inside `group`; failures go to `post`."""
        self._group = group
        self._post = post
        self._running: set[asyncio.Task[None]] = set()

    def start(self, name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task of that name. Its failure ends it alone."""
        task = self._group.create_task(self._guarded(name, work), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: work.close())  # what is cancelled at once never begins
        return task

    def names(self) -> tuple[str, ...]:
        """Return the names of the running tasks, sorted."""
        return tuple(sorted(task.get_name() for task in self._running))

    def cancel_all(self) -> None:
        """Cancel every task; the group's end waits for them."""
        for task in tuple(self._running):
            task.cancel()

    async def _guarded(self, name: str, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except Exception as error:
            log.exception("task=%s failed", name)
            self._post(TaskFailed(task=name, message=f"{type(error).__name__}: {error}"))
