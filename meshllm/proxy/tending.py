"""The tasks that look after single requests: owned, named, ended with the front door.

Owns their references. Decides nothing. Doesn't know what a task does: one that ends by a mistake of ours costs its own
request a 500, and nothing else.
"""

import asyncio
import logging
from collections.abc import Coroutine

from meshllm.proxy.forward import Exchange
from meshllm.proxy.openai import Problem

log = logging.getLogger(__name__)


class Tending:
    """Tasks, one for each request that needs one."""

    def __init__(self) -> None:
        """Start with none."""
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, exchange: Exchange, work: Coroutine[object, object, None]) -> None:
        """Run something for an exchange."""
        task = asyncio.get_running_loop().create_task(work, name=f"pursue:{exchange.request_id!r}")
        exchange.task = task
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(exchange, ended))

    async def close(self) -> None:
        """End every task."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        """Answer a request whose task ended by a mistake of ours; it must not hang."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task=%s failed", task.get_name(), exc_info=error)
            exchange.answer(Problem(status=500, code="internal_error", message="the front door failed on this request"))
