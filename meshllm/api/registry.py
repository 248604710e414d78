"""Versions of models over HTTP: `/v1/models/register`, `/v1/models/{id}/versions`.

Owns the shape of a version and of the requests. Decides nothing: what may be registered is the core's, where a path
may lead the daemon's.
"""

from dataclasses import asdict

from aiohttp import web

from meshllm.api.answers import ApiError, json_answer, moment
from meshllm.api.bodies import Body, read_body
from meshllm.api.deps import ManagementDeps, RegistrationWish, RegistryRefusalError
from meshllm.api.names import require_anywhere
from meshllm.core.limits import REGISTRY_TAGS, REGISTRY_TEXT_CHARS
from meshllm.core.registration import FIRST_VERSION, NO_NOTES, Registration, RegistryNotes
from meshllm.core.serving.registry import KnownVersion, registered_names, versions_of
from meshllm.core.view import MeshView

_STATUS = {
    "reserved_name": 409, "version_conflict": 409, "digest_mismatch": 409, "too_many": 409,
    "version_not_found": 404, "not_hashed_yet": 503, "cannot_save": 500,
}  # fmt: skip
"""By what was refused; everything else is 400."""
_COUNT_MOST = 2**31


class Registry:
    """The handlers."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Ask `deps`."""
        self._deps = deps

    async def register(self, request: web.Request) -> web.Response:
        """Register a version of a name; 201 with what it is when its file is known and hashed."""
        body = await read_body(request)
        wish = RegistrationWish(
            name=body.name("id", "model_id"), version=body.text("version", FIRST_VERSION), path=body.name("path"),
            alias=body.text("alias"), digest=body.text("digest"), notes=_notes(body),
        )  # fmt: skip
        try:
            made = await self._deps.register(wish)
        except RegistryRefusalError as error:
            raise _refused(error) from None
        return json_answer(_registered(made, self._deps.views.newest), 201)

    async def versions(self, request: web.Request) -> web.Response:
        """Answer with the versions of a name, the newest first."""
        view, asked = self._deps.views.newest, request.match_info["model"]
        return json_answer({"model_id": asked, "versions": version_documents(view, asked)})

    async def unregister(self, request: web.Request) -> web.Response:
        """Take a version back that was registered on this node; its file stays."""
        name, version = request.match_info["model"], request.match_info["version"]
        try:
            gone = await self._deps.unregister(name, version)
        except RegistryRefusalError as error:
            raise _refused(error) from None
        return json_answer({"id": gone.name, "version": gone.version, "deleted": True})


def version_documents(view: MeshView, asked: str) -> list[dict[str, object]]:
    """Return the versions of a name as people see them, the newest first. Raises ApiError 404 or 409."""
    found = versions_of(view, asked)
    if not found:
        model = require_anywhere(view, asked)
        names = registered_names(view, model)
        found = versions_of(view, names[0] if len(names) == 1 else model) or versions_of(view, model)
    return [_document(one) for one in found]


def _document(one: KnownVersion) -> dict[str, object]:
    path = one.mine.path.rpartition("/")[2] if one.mine is not None else None
    return {
        "version": one.version, "digest": one.digest or None, "path": path, "size_bytes": one.size_bytes,
        "registered_at": moment(one.registered_unix_s) if one.registered_unix_s else None,
        "nodes": list(one.nodes), "aliases": list(one.aliases), "model": one.model,
        **(_notes_document(one.mine.notes) if one.mine is not None else {}),
    }  # fmt: skip


def _registered(made: Registration, view: MeshView) -> dict[str, object]:
    known = next((one for one in versions_of(view, made.name) if one.mine == made), None)
    return {
        "id": made.name, "object": "model.version", "version": made.version, "model": made.model,
        "digest": made.digest, "path": made.path.rpartition("/")[2], "size_bytes": made.size_bytes,
        "registered_at": moment(made.registered_unix_s), "aliases": list(made.aliases),
        "nodes": list(known.nodes) if known is not None else [view.me.node], **_notes_document(made.notes),
    }  # fmt: skip


def _notes_document(notes: RegistryNotes) -> dict[str, object]:
    """Return what was written down beside a version; nothing of what was not said."""
    return {key: value for key, value in asdict(notes).items() if value not in (None, "", ())}


def _notes(body: Body) -> RegistryNotes:
    """Return what is to be written down beside a version. Raises ApiError 400."""
    tags = (*(body.texts("tags") or ()), *(body.texts("capabilities") or ()))
    texts = {key: body.text(key) for key in ("source", "license", "format", "quantization")}
    for key, value in (*texts.items(), *(("tags", tag) for tag in tags)):
        if len(value) > REGISTRY_TEXT_CHARS:
            message = f"{key} is longer than {REGISTRY_TEXT_CHARS} characters"
            raise ApiError(400, "invalid_value", message, param=key)
    if len(tags) > REGISTRY_TAGS:
        raise ApiError(400, "invalid_value", f"there are more than {REGISTRY_TAGS} tags", param="tags")
    temperature = body.number("temperature", 0, 2)
    notes = RegistryNotes(
        max_workers=body.whole("max_workers", 1, _COUNT_MOST), max_tokens=body.whole("max_tokens", 1, _COUNT_MOST),
        context_length=body.whole("context_length", 1, _COUNT_MOST), tags=tags,
        temperature=None if temperature is None else float(temperature), **texts,
    )  # fmt: skip
    return NO_NOTES if notes == NO_NOTES else notes


def _refused(error: RegistryRefusalError) -> ApiError:
    return ApiError(_STATUS.get(error.code, 400), error.code, error.message, param=error.param or None)
