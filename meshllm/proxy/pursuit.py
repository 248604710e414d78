"""The slow paths of a request: connecting, waiting for its model, trying again after a loss.

Owns the order of these steps and their deadlines. Decides when waiting has become pointless and what
the client is told then. Doesn't know how views are made nor what an engine is; one task for each request
that needs it, none for the others.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from time import monotonic

from meshllm.core import limits
from meshllm.core.events import Event, ModelWanted
from meshllm.core.ids import ModelId
from meshllm.core.serving.routing import Refusal, Wait
from meshllm.proxy import openai
from meshllm.proxy.forward import Exchange, Question, Target
from meshllm.proxy.openai import Problem
from meshllm.proxy.targets import Targets, Views
from meshllm.proxy.traffic import Traffic


class Pursuit:
    """Finds a way for exchanges that have none right now."""

    def __init__(
        self, views: Views, targets: Targets, traffic: Traffic, post: Callable[[Event], None],
        load_wait_s: float, comment_s: float, rng: random.Random,
    ) -> None:  # fmt: skip
        """Wait at most `load_wait_s` for a model; tell streams so every `comment_s`."""
        self._views = views
        self._targets = targets
        self._traffic = traffic
        self._post = post
        self._load_wait_s = load_wait_s
        self._comment_s = comment_s
        self._rng = rng
        self._asked_for: dict[ModelId, int] = {}
        """Model to the epoch in which it was last asked for: one event, however many requests wait."""

    def retry_after_s(self) -> int:
        """Return when a refused client should come back, spread so that not all come at once."""
        return self._rng.randint(1, 5)

    def overloaded(self, target: Target) -> Problem:
        """Return the refusal of a request for which an engine has no room."""
        message = f"{target.traffic.in_flight} requests are at the model {target.model!r} already; try again soon"
        return Problem(status=429, code="overloaded", message=message, retry_after_s=self.retry_after_s())

    async def run(self, exchange: Exchange) -> None:
        """Bring an exchange to an engine, or answer it with the reason why that cannot be."""
        began_s = monotonic()
        is_waiting = False
        try:
            while True:
                view = self._views.newest
                found = self._find(exchange)
                if isinstance(found, Refusal):
                    exchange.answer(openai.refused(found, self.retry_after_s()))
                    return
                if isinstance(found, Target):
                    exchange.target = found
                    if await self._try_target(exchange, found):
                        return
                    reason, wait_s = f"the engine of {found.model} does not answer", limits.ENGINE_LOST_WAIT_S
                    if found.pool.endpoint != exchange.failed_at:
                        reason, wait_s = f"{found.traffic.in_flight} requests are before this one", self._load_wait_s
                else:
                    self._ask_for(found, view.epoch)
                    reason, wait_s = found.message, self._load_wait_s
                if not is_waiting and not self._may_wait(exchange):
                    return
                is_waiting = True
                left_s = began_s + wait_s - monotonic()
                if left_s <= 0:
                    exchange.answer(self._given_up(found, reason))
                    return
                await self._next_change(exchange, view.epoch, found, left_s, reason, began_s)
        finally:
            if is_waiting:
                self._traffic.waiting -= 1

    def _find(self, exchange: Exchange) -> Target | Wait | Refusal:
        question = exchange.question
        if question is None:
            return self._targets.management
        return self._targets.find(question.model, question.needs)

    async def _try_target(self, exchange: Exchange, target: Target) -> bool:
        """Send the request if the engine is there and has room; return whether the exchange is taken care of."""
        endpoint = target.pool.endpoint
        if exchange.failed_at == endpoint and exchange.failures >= 2:
            return False  # lost there twice: only another engine, or the same one restarted, can help
        if exchange.attempts >= limits.ENGINE_ATTEMPTS:
            message = f"the engine of {target.model} was lost {exchange.attempts} times while it worked on this request"
            exchange.answer(Problem(status=502, code="host_lost", message=message, type="server_error"))
            return True
        if target.traffic.in_flight >= target.admitted:
            return False
        try:
            connection = await target.pool.connect()
        except OSError:
            exchange.failed_at, exchange.failures = endpoint, 2
            return False
        exchange.task = None
        exchange.begin(connection)
        return True

    def _ask_for(self, wait: Wait, epoch: int) -> None:
        if wait.is_asleep and self._asked_for.get(wait.model) != epoch:
            self._asked_for[wait.model] = epoch
            self._post(ModelWanted(model=wait.model))

    def _may_wait(self, exchange: Exchange) -> bool:
        """Take a place among those who wait, or answer that there is none."""
        if self._traffic.waiting >= limits.WAITING_REQUESTS:
            message = f"{limits.WAITING_REQUESTS} requests wait for models already; try again soon"
            exchange.answer(
                Problem(status=503, code="overloaded", message=message, retry_after_s=self.retry_after_s())
            )
            return False
        self._traffic.waiting += 1
        return True

    def _given_up(self, found: Target | Wait, reason: str) -> Problem:
        if isinstance(found, Wait):
            message = f"{reason}; it took longer than this request may wait"
            return Problem(status=503, code="model_loading", message=message, retry_after_s=self.retry_after_s())
        if found.traffic.in_flight >= found.admitted:
            return self.overloaded(found)
        return Problem(status=502, code="host_lost", message=reason, type="server_error")

    async def _next_change(
        self, exchange: Exchange, epoch: int, found: Target | Wait, left_s: float, reason: str, began_s: float
    ) -> None:
        """Wait until something may have changed; keep a stream alive meanwhile."""
        ends_s = monotonic() + left_s
        while (now_s := monotonic()) < ends_s:
            waited_s = now_s - began_s
            next_comment_s = self._comment_s - waited_s % self._comment_s if exchange.is_stream else left_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(ends_s - now_s, next_comment_s)):
                    if isinstance(found, Target) and found.pool.endpoint != exchange.failed_at:
                        await found.traffic.one_ended()
                    else:
                        await self._views.changed(epoch)
                    return
            if exchange.is_stream and monotonic() < ends_s:
                exchange.send_comment(f"waiting: {reason}")
