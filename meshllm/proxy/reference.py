"""The part of the HTTP reference that is about inference and lists of models, which no management handler answers.

Owns how the table of inference paths and the shapes of their bodies become paths and schemas of an OpenAPI document.
Decides nothing. Doesn't know the other routes, nor who shows the whole.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from meshllm.proxy import answer_shapes as answers
from meshllm.proxy.paths import INFERENCE, MODELS, InferenceDoor

Document = dict[str, object]
_REFERENCE = "#/components/schemas/{name}"
_ERROR = "ErrorAnswer"
"""The envelope of all errors; whoever shows the whole has its schema."""
_ANSWERS: Mapping[bytes, type] = MappingProxyType({
    b"/v1/chat/completions": answers.ChatAnswer, b"/v1/completions": answers.CompletionAnswer,
    b"/v1/embeddings": answers.EmbeddingsAnswer, b"/v1/rerank": answers.RerankAnswer,
})  # fmt: skip
"""By the engine's path; others answer whatever the engine says."""
_HEADERS = (
    ("X-Session-ID", "The session: its requests go to the same model and host while those are there."),
    ("X-Mesh-Strategy", "How the host of this one request is chosen."),
    ("X-Priority", "`high`, `normal` or `low`: who goes first where not all can."),
    ("Cache-Control", "`no-store` or `no-cache`: no answer that was kept, and this one is not kept."),
    ("X-Request-ID", "Its id, given back; one is made where there is none."),
)
"""What requests may say to the mesh beside their body."""
_LIST_QUERY = (
    ("served", "Those in memory alone."), ("catalog", "Well-known ones that could be fetched, too."),
    ("pseudo", "`false` leaves `default` out, `all` has `auto`, too."),
)  # fmt: skip
_TOPIC = "inference"


def inference_reference() -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Return (paths, schemas) as an OpenAPI 3.1 document has them."""
    shapes = {door.shape for door in INFERENCE.values()}
    kinds = [*sorted(shapes, key=lambda shape: shape.__name__), *_ANSWERS.values(), *_OF_MODELS]
    found, schemas = msgspec.json.schema_components(kinds, schema_hook=_anything, ref_template=_REFERENCE)
    schema_of = dict(zip(kinds, found, strict=True))
    paths: Document = {path: {"post": _operation(path, door, schema_of)} for path, door in INFERENCE.items()}
    listing = {"parameters": [_parameter(name, "query", meaning) for name, meaning in _LIST_QUERY]}
    name: Document = {"parameters": [_parameter("model", "path", "Any name of the model.") | {"required": True}]}
    paths[MODELS] = {"get": listing | _get("All that can be asked for.", schema_of[answers.ModelList])}
    paths[f"{MODELS}/{{model}}"] = {"get": name | _get("One of it.", schema_of[answers.ModelInDetail])}
    return paths, schemas


_OF_MODELS: tuple[type, ...] = (answers.ModelList, answers.ModelInDetail)


def _anything(kind: type) -> Document:
    """Return the schema of `object`; an empty one would be none to msgspec."""
    if kind is object:
        return {"description": "Any JSON."}
    raise TypeError(f"{kind!r} has no schema")


def _operation(path: str, door: InferenceDoor, schema_of: Mapping[type, Document]) -> Document:
    engine_path = door.path.decode()
    answer = schema_of[_ANSWERS[door.path]] if door.path in _ANSWERS else {}
    same = f"The same as `{engine_path}`." if path != engine_path else _meaning(door)
    content: Document = {"application/json": {"schema": answer}}
    if door.needs is not None and door.prompt_field != "documents":
        content["text/event-stream"] = {"schema": answer}
    return {
        "operationId": "post_" + path.strip("/").replace("/", "_").replace("-", "_"), "tags": [_TOPIC],
        "summary": same, "parameters": [_parameter(name, "header", meaning) for name, meaning in _HEADERS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema_of[door.shape]}}},
        "responses": {"200": {"description": "The engine's answer.", "content": content}, "default": _error()},
    }  # fmt: skip


def _meaning(door: InferenceDoor) -> str:
    needs = f"a model for {door.needs}" if door.needs is not None else "any model"
    grammar = "Anthropic's" if door.is_anthropic else "OpenAI's or llama.cpp's"
    return f"For {needs}, in {grammar} words."


def _get(summary: str, schema: Document) -> Document:
    answer = {"description": "From memory.", "content": {"application/json": {"schema": schema}}}
    return {"tags": ["models"], "summary": summary, "responses": {"200": answer, "default": _error()}}


def _parameter(name: str, place: str, meaning: str) -> Document:
    return {"name": name, "in": place, "description": meaning, "schema": {"type": "string"}}


def _error() -> Document:
    schema = {"$ref": _REFERENCE.format(name=_ERROR)}
    return {"description": "Everything else is an error.", "content": {"application/json": {"schema": schema}}}
