"""What people and programs ask for, matched with the core's answers to it.

Owns the futures by request id. Knows nothing about what is asked.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace

from meshllm.core.events import CacheChangeAsked, Event, IntentReceived, QuotaChangeAsked, RoutingChangeAsked
from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, Outcome


class Asking:
    """Sends into the loop what somebody asks for, and waits for its outcome."""

    def __init__(self, post: Callable[[Event], None]) -> None:
        """Send by `post`."""
        self._post = post
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._ids = itertools.count(1)

    async def ask(self, intent: Intent) -> Outcome:
        """Return how an intent ended. Cancelling stops the waiting, not the intent.

        The intent's `request_id` is replaced by one that is unique in this daemon. Every intent is
        answered: by its end, by a failure, or because the daemon leaves.
        """
        return await self._answer(lambda name: IntentReceived(intent=replace(intent, request_id=name)))

    async def change_routing(self, document: Mapping[str, object]) -> Outcome:
        """Return how a change of how requests are routed ended. Cancelling stops the waiting, not the change."""
        return await self._answer(lambda name: RoutingChangeAsked(request_id=name, document=document))

    async def change_quotas(self, model: ModelId, document: Mapping[str, object]) -> Outcome:
        """Return how a change of a model's quotas ended. Cancelling stops the waiting, not the change."""
        return await self._answer(lambda name: QuotaChangeAsked(request_id=name, model=model, document=document))

    async def change_caches(self, document: Mapping[str, object]) -> Outcome:
        """Return how a change of how the prompt cache is shared out ended. Cancelling stops the waiting alone."""
        return await self._answer(lambda name: CacheChangeAsked(request_id=name, document=document))

    async def _answer(self, asked: Callable[[str], Event]) -> Outcome:
        request_id = f"i{next(self._ids)}"
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answer
        try:
            self._post(asked(request_id))
            return await answer
        finally:
            del self._waiting[request_id]

    def answer(self, request_id: str, outcome: Outcome) -> None:
        """Give an outcome to whoever still waits for it."""
        waiting = self._waiting.get(request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)
