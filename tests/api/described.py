"""Requests whose bodies and answers are held against the reference: what is not described there fails."""

import re
from collections.abc import Mapping
from typing import Any

from meshllm import __version__
from meshllm.api.reference import openapi
from meshllm.api.routes import ROUTES
from meshllm.api.schemas import REFERENCE
from meshllm.proxy.reference import inference_reference
from tests.api.node import Client

Schema = Mapping[str, Any]
DOCUMENT: Any = openapi(ROUTES, __version__, inference_reference())
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
    "array": (list,), "object": (dict,),
}  # fmt: skip


def mismatches(value: object, schema: Schema, at: str = "$", *, named: Schema | None = None) -> list[str]:
    """Return what of a value a schema doesn't say, or says otherwise. A key that it doesn't name is one."""
    known = DOCUMENT["components"]["schemas"] if named is None else named
    if "$ref" in schema:
        return mismatches(value, known[schema["$ref"].removeprefix(REFERENCE)], at, named=known)
    if "anyOf" in schema:
        found = [mismatches(value, one, at, named=known) for one in schema["anyOf"]]
        return min(found, key=len)
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{at}: {value!r} is none of {schema['enum']}"]
    kinds = schema.get("type", list(_KINDS))
    if not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return [f"{at}: {value!r} is no {kinds}"]
    if isinstance(value, list):
        return [
            one for i, item in enumerate(value) for one in mismatches(item, schema["items"], f"{at}[{i}]", named=known)
        ]
    return _in_object(value, schema, at, known) if isinstance(value, dict) else []


def _is(value: object, kind: str) -> bool:
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _in_object(value: dict[str, object], schema: Schema, at: str, known: Schema) -> list[str]:
    if "properties" not in schema:
        inner = schema.get("additionalProperties", {})
        return [one for key, item in value.items() for one in mismatches(item, inner, f"{at}.{key}", named=known)]
    properties = schema["properties"]
    found = [f"{at}: {key} is missing" for key in schema.get("required", ()) if key not in value]
    for key, item in value.items():
        if key not in properties:
            found.append(f"{at}: {key} is described nowhere")
        else:
            found += mismatches(item, properties[key], f"{at}.{key}", named=known)
    return found


def operation(method: str, path: str) -> Any:
    """Return what the reference says of a request; fixed parts of a path win over parameters."""
    plain = path.partition("?")[0]
    fitting = [
        template
        for template, item in DOCUMENT["paths"].items()
        if method.lower() in item and re.fullmatch(re.sub(r"{\w+}", ".+", template), plain)
    ]
    return DOCUMENT["paths"][min(fitting, key=lambda template: (template.count("{"), -len(template)))][method.lower()]


def answer_mismatches(method: str, path: str, status: int, document: object) -> list[str]:
    """Return what of an answer the reference doesn't say."""
    answers = operation(method, path)["responses"]
    said = answers.get(str(status), answers["default"])
    return mismatches(document, said["content"]["application/json"]["schema"])


async def asked(client: Client, method: str, path: str, body: object = None, *, status: int = 200) -> Any:
    """Send a request as the reference describes it and return its answer, of which every key is described there."""
    said = operation(method, path)
    assert ("requestBody" in said) >= (body is not None), f"{method} {path} takes no body"
    if body is not None:
        assert mismatches(body, said["requestBody"]["content"]["application/json"]["schema"]) == []

    answer = await client.request(method, path, **({} if body is None else {"json": body}))
    document = await answer.json()

    assert (answer.status, answer_mismatches(method, path, status, document)) == (status, []), document
    return document
