"""What helps to find a fault: log lines, the journal of events, the written limits.

Owns how they look over HTTP and how a growing ring of lines is followed. Doesn't write any of them.
"""

import asyncio

from aiohttp import web

from meshllm.api.answers import ApiError, encoded, json_answer
from meshllm.api.background import Background
from meshllm.api.deps import JournalEntry, ManagementDeps
from meshllm.api.names import require_model
from meshllm.api.stream import STREAM_HEADERS, write
from meshllm.core.ids import ModelId
from meshllm.core.limits import LOG_FOLLOW_INTERVAL_S, all_limits

JOURNAL_DEFAULT = 200
JOURNAL_TEXT_CHARS = 2000
_YES = frozenset({"1", "true", "yes", ""})


class Diagnostics:
    """The handlers."""

    def __init__(self, deps: ManagementDeps, background: Background) -> None:
        """Read from `deps`."""
        self._deps = deps
        self._background = background

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Answer with lines of text: `?model=` for an engine's, `?follow=1` to go on, `?tail=N` for the last N."""
        asked = request.query.get("model", "")
        model = require_model(self._deps.views.newest, asked).id if asked else None
        lines = self._deps.log_lines(model)
        lines = lines[max(len(lines) - _number(request, "tail", len(lines)), 0) :]
        if request.query.get("follow", "0").lower() in _YES:
            return await self._follow(request, model, lines)
        body = encoded("".join(f"{line}\n" for line in lines))
        return web.Response(
            body=body, content_type="text/plain", charset="utf-8", headers={"Cache-Control": "no-store"}
        )

    async def _follow(self, request: web.Request, model: ModelId | None, lines: tuple[str, ...]) -> web.StreamResponse:
        with self._background.stream():
            answer = web.StreamResponse(headers={**STREAM_HEADERS, "Content-Type": "text/plain; charset=utf-8"})
            await answer.prepare(request)
            seen = self._deps.log_lines(model)
            while True:
                if lines:
                    await write(answer, "".join(f"{line}\n" for line in lines))
                await asyncio.sleep(LOG_FOLLOW_INTERVAL_S)
                newest = self._deps.log_lines(model)
                lines, seen = added_lines(seen, newest), newest

    async def journal(self, request: web.Request) -> web.Response:
        """Answer with the newest `?count=` events and what followed from each, oldest first."""
        count = _number(request, "count", JOURNAL_DEFAULT)
        entries = self._deps.journal()
        return json_answer({"entries": [_entry(entry) for entry in entries[max(len(entries) - count, 0) :]]})

    async def limits(self, _: web.Request) -> web.Response:
        """Answer with every written limit by name."""
        return json_answer(all_limits())


def added_lines(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines at the end of a ring that it did not have before; all of them when nothing is left."""
    for added in range(len(new) + 1):
        kept = len(new) - added
        if kept <= len(old) and new[:kept] == old[len(old) - kept :]:
            return new[kept:]
    return new


def _entry(entry: JournalEntry) -> dict[str, object]:
    # Representations leave out what is secret: engines' keys are fields without one.
    return {
        "id": entry.event.id,
        "at_s": round(entry.at_s, 3),
        "event": type(entry.event).__name__,
        "detail": repr(entry.event)[:JOURNAL_TEXT_CHARS],
        "effects": [repr(effect)[:JOURNAL_TEXT_CHARS] for effect in entry.effects],
    }


def _number(request: web.Request, name: str, default: int) -> int:
    """Return a whole number of the query. Raises ApiError 400."""
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ApiError(400, "invalid_value", f"{name} has to be a whole number", param=name)
    return int(text)
