"""Live status: server-sent events named `status`, one for each change, at most four in a second.

Owns the pace and the keep-alive comments. Doesn't know what changed: it sends the whole document.
"""

import asyncio
from contextlib import suppress

from aiohttp import web

from meshllm.api.answers import dumps, encoded, json_answer
from meshllm.api.background import Background
from meshllm.api.deps import ManagementDeps
from meshllm.api.status import NodeFacts, status_document
from meshllm.core.limits import KEEP_ALIVE_COMMENT_S, SLOW_CLIENT_TIMEOUT_S, STATUS_INTERVAL_S

TRAFFIC_INTERVAL_S = 1.0
"""How often requests in flight are looked at: they change without a new view."""
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class StatusStream:
    """The handlers of `/api/status` and `/api/events`."""

    def __init__(self, deps: ManagementDeps, background: Background, version: str) -> None:
        """Describe the node of `deps`."""
        self._deps = deps
        self._background = background
        self._version = version

    def document(self) -> dict[str, object]:
        """Return the status document of this moment."""
        deps = self._deps
        facts = NodeFacts(version=self._version, address=deps.address, started_s=deps.started_s, mesh=deps.mesh)
        return status_document(deps.views.newest, asyncio.get_running_loop().time(), facts, deps.in_flight)

    async def status(self, _: web.Request) -> web.Response:
        """Answer with the newest document."""
        return json_answer(self.document())

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send a document now and with every change, until the client or the daemon goes."""
        with self._background.stream():
            answer = web.StreamResponse(headers={**STREAM_HEADERS, "Content-Type": "text/event-stream"})
            await answer.prepare(request)
            with suppress(ConnectionResetError):  # the page was closed while it was written to
                await self._follow(answer)
        return answer

    async def _follow(self, answer: web.StreamResponse) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            epoch, traffic = self._deps.views.newest.epoch, self._traffic()
            await write(answer, f"id: {epoch}\nevent: status\ndata: {dumps(self.document())}\n\n")
            sent_s = clock()
            while not await self._changes(epoch, traffic):
                if clock() - sent_s >= KEEP_ALIVE_COMMENT_S:
                    await write(answer, ": still here\n\n")
                    sent_s = clock()
            await asyncio.sleep(max(sent_s + STATUS_INTERVAL_S - clock(), 0.0))

    async def _changes(self, epoch: int, traffic: dict[str, int]) -> bool:
        """Wait a little; tell whether there is something else to show."""
        try:
            async with asyncio.timeout(TRAFFIC_INTERVAL_S):
                await self._deps.views.changed(epoch)
        except TimeoutError:
            return self._traffic() != traffic
        return True

    def _traffic(self) -> dict[str, int]:
        return {model: self._deps.in_flight(model) for model in self._deps.views.newest.local}


async def write(answer: web.StreamResponse, text: str) -> None:
    """Send a piece of a stream. Raises TimeoutError when the client takes nothing for too long."""
    async with asyncio.timeout(SLOW_CLIENT_TIMEOUT_S):
        await answer.write(encoded(text))
