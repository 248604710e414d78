"""Model files over HTTP: fetch one with progress (`POST /api/pull`), delete one (`DELETE /api/models/{id}`).

Owns the lines of progress. Doesn't touch files: the core orders downloads, the daemon deletes.
"""

import asyncio
import logging

from aiohttp import web

from meshllm.api.answers import ApiError, dumps, envelope, json_answer
from meshllm.api.background import Background
from meshllm.api.bodies import read_body
from meshllm.api.deps import ManagementDeps
from meshllm.api.lifecycle import refusal
from meshllm.api.names import refuse_stand_in, require_model
from meshllm.api.stream import STREAM_HEADERS, write
from meshllm.core.intents import Intent, Outcome, Verb
from meshllm.core.limits import KEEP_ALIVE_COMMENT_S, PULL_LINE_INTERVAL_S
from meshllm.core.view import LoadProgress, MeshView

log = logging.getLogger(__name__)


class Files:
    """The handlers."""

    def __init__(self, deps: ManagementDeps, background: Background) -> None:
        """Ask `deps`."""
        self._deps = deps
        self._background = background

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Download a model; one JSON object a line: progress, then `{"status":"success"}` or `{"error":…}`.

        The HTTP status is decided by the first thing that happens, so a name that means nothing is a 404.
        Whoever hangs up stops watching, not the download.
        """
        body, keys = await read_body(request), ("model", "name", "model_id")
        asked = body.name(*keys)
        refuse_stand_in(self._deps.views.newest, asked, body.key(*keys))
        intent = Intent(verb=Verb.PULL, model=asked, request_id="")
        with self._background.stream():
            asking = self._background.start(f"pull:{asked}", self._deps.ask(intent))
            try:
                return await self._watch(request, asked, asking)
            finally:
                asking.cancel()

    async def _watch(self, request: web.Request, asked: str, asking: asyncio.Task[Outcome]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={**STREAM_HEADERS, "Content-Type": "application/x-ndjson"})
        clock = asyncio.get_running_loop().time
        shown: LoadProgress | None = None
        spoke_s = clock()
        while not asking.done():
            progress = _progress_of(self._deps.views.newest, asked)
            if progress is not None and (progress != shown or clock() - spoke_s >= KEEP_ALIVE_COMMENT_S):
                if not answer.prepared:
                    await answer.prepare(request)
                await write(answer, dumps(_line(progress)) + "\n")
                shown, spoke_s = progress, clock()
            await asyncio.wait((asking,), timeout=PULL_LINE_INTERVAL_S)
        return await self._end(request, answer, asking.result())

    @staticmethod
    async def _end(request: web.Request, answer: web.StreamResponse, outcome: Outcome) -> web.StreamResponse:
        if not outcome.is_done and not answer.prepared:
            return refusal(outcome).answer()
        if not answer.prepared:
            await answer.prepare(request)
        if outcome.is_done:
            last: dict[str, object] = {"status": "success", "model": outcome.model, "message": outcome.message}
        else:
            error = refusal(outcome)
            last = envelope(error.status, error.code, error.message, error.param)
        await write(answer, dumps(last) + "\n")
        await answer.write_eof()
        return answer

    async def remove(self, request: web.Request) -> web.Response:
        """Unload a model, keep requests from bringing it back, delete its files."""
        view, asked = self._deps.views.newest, request.match_info["model"]
        refuse_stand_in(view, asked, "model")
        model = require_model(view, asked)
        if model.spec is None:
            raise ApiError(404, "model_not_found", f"{model.id} has no files on this node", param="model")
        unload = Intent(verb=Verb.UNLOAD, model=model.id, request_id="", hold=True)
        outcome = await self._deps.ask(unload)
        if not outcome.is_done:
            raise refusal(outcome)
        try:
            paths = await self._deps.remove(model.id)
        except OSError as error:
            log.warning("cannot remove model=%s: %s", model.id, error)
            message = f"{model.id} is unloaded, but its files cannot be deleted: {error.strerror or error}"
            raise ApiError(500, "cannot_remove", message, param="model") from None
        self._deps.rescan()
        return json_answer({"removed": model.id, "files": [str(path) for path in paths]})


def _progress_of(view: MeshView, asked: str) -> LoadProgress | None:
    """Return how far the download of a name is, once the name means something."""
    found = view.names.resolve(asked)
    model = view.local.get(found) if isinstance(found, str) else None
    progress = model.progress if model is not None else None
    return progress if progress is not None and progress.stage == "downloading" else None


def _line(progress: LoadProgress) -> dict[str, object]:
    return {
        "status": "downloading", "share": round(progress.share, 4),
        "done_bytes": progress.done_bytes, "total_bytes": progress.total_bytes,
        **({"from": list(progress.peers)} if progress.peers else {}),
    }  # fmt: skip
