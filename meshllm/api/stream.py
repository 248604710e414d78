"""Live status as server-sent events: the whole document first, then what changes, at most four times in a second.

Owns the pace, the keep-alive comments and the ids by which a follower that lost its connection goes on. Decides who
gets the whole document. Doesn't know what changed: the ledger does.
"""

import asyncio
import secrets
from contextlib import suppress

from aiohttp import web

from meshllm.api.answers import dumps, encoded, json_answer
from meshllm.api.background import Background
from meshllm.api.changes import StatusLedger
from meshllm.api.deps import ManagementDeps
from meshllm.api.status import NodeFacts, status_document
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import KEEP_ALIVE_COMMENT_S, SLOW_CLIENT_TIMEOUT_S, STATUS_INTERVAL_S

TRAFFIC_INTERVAL_S = 1.0
"""How often requests in flight and lines are looked at: they change without a new view."""
_Traffic = tuple[dict[ModelId, int], dict[NodeId, int]]
"""Requests in flight by model, lines by peer."""
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class StatusStream:
    """The handlers of `/api/status` and `/api/events`."""

    def __init__(self, deps: ManagementDeps, background: Background, version: str) -> None:
        """Describe the node of `deps`."""
        self._deps = deps
        self._background = background
        self._version = version
        self._run = secrets.token_hex(4)
        """Revisions of another run of this node say nothing here."""
        self._ledger: StatusLedger | None = None
        self._seen: tuple[int, _Traffic] | None = None
        """The epoch and the traffic that the ledger knows."""

    def document(self) -> dict[str, object]:
        """Return the status document of this moment."""
        return status_document(self._deps.views.newest, _now_s(), self._facts(), self._deps.in_flight)

    async def status(self, _: web.Request) -> web.Response:
        """Answer with the newest document."""
        return json_answer(self.document())

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send the document, or what changed since `Last-Event-ID`; then each change, until somebody goes."""
        with self._background.stream():
            answer = web.StreamResponse(headers={**STREAM_HEADERS, "Content-Type": "text/event-stream"})
            await answer.prepare(request)
            with suppress(ConnectionResetError):  # the page was closed while it was written to
                await self._follow(answer, self._revision_of(request.headers.get("Last-Event-ID", "")))
        return answer

    async def _follow(self, answer: web.StreamResponse, known: int | None) -> None:
        sent_s, is_new = _now_s(), True
        while True:
            looked_s, ledger = _now_s(), self._newest()
            seen = self._seen
            if is_new or ledger.revision != known:
                await write(answer, self._event(ledger, known))
                sent_s, known, is_new = _now_s(), ledger.revision, False
            while not await self._changes(seen):
                if _now_s() - sent_s >= KEEP_ALIVE_COMMENT_S:
                    await write(answer, ": still here\n\n")
                    sent_s = _now_s()
            await asyncio.sleep(max(looked_s + STATUS_INTERVAL_S - _now_s(), 0.0))

    def _event(self, ledger: StatusLedger, known: int | None) -> str:
        name, data = ("status", self.document()) if known is None else ("changes", ledger.changes(known, _now_s()))
        return f"id: {self._run}.{ledger.revision}\nevent: {name}\ndata: {dumps(data)}\n\n"

    def _newest(self) -> StatusLedger:
        """Return the ledger, which all followers share, with everything up to now in it."""
        if self._ledger is None:
            self._ledger = StatusLedger(fixed_s=_now_s())
        view, traffic = self._deps.views.newest, self._traffic()
        if self._seen != (view.epoch, traffic):
            self._seen = (view.epoch, traffic)
            in_flight, _ = traffic
            self._ledger.take(view, self._facts(), in_flight)
        return self._ledger

    def _revision_of(self, event_id: str) -> int | None:
        """Return the revision that a follower has; None if it is none of this run."""
        run, _, revision = event_id.partition(".")
        is_ours = run == self._run and revision.isascii() and revision.isdigit() and len(revision) < 16
        return int(revision) if is_ours and int(revision) <= self._newest().revision else None

    async def _changes(self, seen: tuple[int, _Traffic] | None) -> bool:
        """Wait a little; tell whether there may be something else to show."""
        if seen is None or seen[0] != self._deps.views.newest.epoch:
            return True
        try:
            async with asyncio.timeout(TRAFFIC_INTERVAL_S):
                await self._deps.views.changed(seen[0])
        except TimeoutError:
            return self._traffic() != seen[1]
        return True

    def _facts(self) -> NodeFacts:
        deps = self._deps
        return NodeFacts(
            version=self._version, address=deps.address, started_s=deps.started_s, mesh=deps.mesh,
            lines=deps.lines_by_peer(),
        )  # fmt: skip

    def _traffic(self) -> _Traffic:
        deps = self._deps
        return {model: deps.in_flight(model) for model in deps.views.newest.local}, dict(deps.lines_by_peer())


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def write(answer: web.StreamResponse, text: str) -> None:
    """Send a piece of a stream. Raises TimeoutError when the client takes nothing for too long."""
    async with asyncio.timeout(SLOW_CLIENT_TIMEOUT_S):
        await answer.write(encoded(text))
