"""The reference of the HTTP API: `GET /openapi.json` for programs, `GET /docs` for people.

Owns how the table of routes becomes an OpenAPI 3.1 document. Decides nothing about routes: the table has them, and of
inference it is told. Both answers are the same for everybody, made once, when they are first asked for.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

from aiohttp import web

from meshllm.api.reference_page import STYLE_HASH, page
from meshllm.api.routes import ROUTES, Route, Text
from meshllm.api.schemas import Schema, Schemas
from meshllm.api.shapes.models import ErrorAnswer

Part = tuple[Mapping[str, object], Mapping[str, object]]
"""(paths, schemas) of somebody else's routes."""
PAGE_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_MEANINGS = {200: "Done.", 201: "Made.", 202: "Begun."}
_KEY = "The key that the node was started with, or one of its clients' where a route is about models alone."


class Reference:
    """The handlers."""

    def __init__(self, version: str, inference: Callable[[], Part]) -> None:
        """Describe this version; `inference` is asked for the routes that no handler of ours answers."""
        self._version = version
        self._inference = inference

    @cached_property
    def document(self) -> Schema:
        """Return the OpenAPI document."""
        return openapi(ROUTES, self._version, self._inference())

    @cached_property
    def _as_json(self) -> bytes:
        return json.dumps(self.document, ensure_ascii=False, separators=(",", ":")).encode()

    @cached_property
    def _as_page(self) -> bytes:
        return page(self.document).encode()

    async def openapi(self, _: web.Request) -> web.Response:
        """Answer with the document."""
        body = await asyncio.to_thread(lambda: self._as_json)
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-cache"})

    async def docs(self, _: web.Request) -> web.Response:
        """Answer with the page, which asks for nothing else."""
        body = await asyncio.to_thread(lambda: self._as_page)
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=PAGE_HEADERS)


def openapi(routes: Iterable[Route], version: str, inference: Part) -> Schema:
    """Return routes, and those of inference, as an OpenAPI 3.1 document. Raises ValueError where names clash."""
    schemas = Schemas()
    error = _json(schemas.of(ErrorAnswer))
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schemas, error)
    more_paths, more_schemas = inference
    if clash := (paths.keys() & more_paths.keys()) | (schemas.named.keys() & more_schemas.keys()):
        raise ValueError(f"described twice: {', '.join(sorted(clash))}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "mesh-llm", "version": version, "description": "One address answers everything."},
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"header": []}],
        "paths": {**more_paths, **paths},
        "components": {
            "schemas": {**more_schemas, **dict(sorted(schemas.named.items()))},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": _KEY},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": _KEY},
            },
        },
    }  # fmt: skip


def _operation(route: Route, schemas: Schemas, error: Schema) -> Schema:
    found: Schema = {
        "operationId": f"{route.method.lower()}_{route.path.strip('/') or 'console'}".translate(_PLAIN_NAME),
        "tags": [route.topic], "summary": route.summary,
        "responses": {
            str(route.status): {"description": _MEANINGS[route.status]} | _content(route.answers, schemas),
            **{
                str(status): {"description": _MEANINGS.get(status, "It was not to be.")} | _content(kind, schemas)
                for status, kind in route.also
            },
            "default": {"description": "Everything else is an error."} | error,
        },
    }  # fmt: skip
    parameters = [
        *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.parameters),
        *(
            {"name": one.name, "in": "query", "description": one.meaning, "schema": schemas.of(one.kind)}
            for one in route.query
        ),
    ]
    if parameters:
        found["parameters"] = parameters
    if route.takes is not None:
        found["requestBody"] = {"required": not route.is_body_optional} | _json(schemas.of(route.takes))
    return found


def _content(answers: object, schemas: Schemas) -> Schema:
    if not isinstance(answers, Text):
        return _json(schemas.of(answers))
    lines = {"type": "string"} if answers.lines is None else schemas.of(answers.lines)
    return {"content": {answers.media_type: {"schema": lines}}}


def _json(schema: Schema) -> Schema:
    return {"content": {"application/json": {"schema": schema}}}


_PLAIN_NAME = str.maketrans({"/": "_", "{": "", "}": "", ":": "", ".": "", "+": "", "-": "_"})
