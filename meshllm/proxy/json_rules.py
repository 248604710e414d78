"""Rules for bodies that types cannot say: images, schemas, stop sequences, fields that only an owner may set.

Owns the list of engine parameters that are refused, and the bounds on what an engine would compile or
fetch. Decides by looking at parsed values. Doesn't know HTTP; pure.
"""

import re
from collections.abc import Mapping

from meshllm.core import limits
from meshllm.proxy.shapes import Common, Message, WithMessages

_ENGINE_INTERNALS = frozenset({
    "cache_reuse", "id_slot", "lora", "n_cache_reuse", "n_discard", "n_keep", "slot_id", "slot_save_path",
})  # fmt: skip
"""Parameters that reach into an engine's memory or slots; negative ones have corrupted memory (CVE-2026-21869)."""
_COMPILED = ("response_format", "json_schema", "tools", "text", "guided_json")
_FETCHED = ("image_url", "video_url", "audio_url", "file_url", "url")
_LOOKED_AT = _ENGINE_INTERNALS.union(_COMPILED, ("input", "logit_bias", "stop", "system"))
_NESTED_QUANTIFIER = re.compile(r"(?<!\\)[+*}]\??\)(?:[+*]|\{\d+,\d*\})")
"""`(a+)+` and its kind: a group that ends in a repetition and is repeated itself."""
_IMAGES = frozenset({"image", "image_url", "input_image"})
"""Types of content parts that a model has to see: Anthropic's, and two of OpenAI's."""
_BIAS_KEY = re.compile(r"-?\d{1,9}")


class RuleError(Exception):
    """A body breaks a rule; `param` is the field."""

    def __init__(self, message: str, param: str) -> None:
        """Remember what to tell the client."""
        super().__init__(message)
        self.message = message
        self.param = param


def check(document: Mapping[str, object], request: Common) -> bool:
    """Check what types cannot say; return whether there are images. Raises RuleError."""
    has_images = False
    if isinstance(request, WithMessages):
        for message in request.messages:
            if type(message.content) is not str:
                has_images = _check_messages(request.messages)
                break
    if not _LOOKED_AT.isdisjoint(document):
        has_images = _check_fields(document, request) or has_images
    return has_images


def _check_fields(document: Mapping[str, object], request: Common) -> bool:
    """Check the fields beside the messages; return whether there are images in them."""
    if not _ENGINE_INTERNALS.isdisjoint(document):
        name = min(_ENGINE_INTERNALS.intersection(document))
        msg = f"{name} is internal to engines and cannot be set by a request"
        raise RuleError(msg, name)
    if request.stop is not None:
        _check_stop(request.stop)
    if request.logit_bias is not None:
        _check_bias(request.logit_bias)
    for name in _COMPILED:
        value = document.get(name)
        if isinstance(value, dict | list):
            _check_compiled(value, name)
    has_images = False
    for name in ("input", "system"):
        value = document.get(name)
        if type(value) is list:
            has_images = _check_parts(value, name) or has_images
    return has_images


def _check_messages(messages: list[Message]) -> bool:
    """Check each message's content; return whether there are images in it."""
    has_images = False
    for number, message in enumerate(messages):
        content = message.content
        if type(content) is str:
            continue
        param = f"messages[{number}].content"
        if content is None:
            if not message.may_be_empty:
                msg = "a message needs content"
                raise RuleError(msg, param)
        else:
            has_images = _check_parts(content, param) or has_images  # type: ignore[arg-type]
    return has_images


def _check_stop(stop: str | list[str]) -> None:
    size = len(stop.encode()) if isinstance(stop, str) else sum(len(item.encode()) for item in stop)
    if size > limits.JSON_STOP_BYTES:
        msg = f"stop sequences have at most {limits.JSON_STOP_BYTES} bytes together"
        raise RuleError(msg, "stop")


def _check_bias(bias: dict[str, object] | list[object]) -> None:
    for key in bias if isinstance(bias, dict) else ():
        if not _BIAS_KEY.fullmatch(key):
            msg = f"the keys of logit_bias are token numbers, not {key[:32]!r}"
            raise RuleError(msg, "logit_bias")


def _check_parts(parts: list[object], param: str) -> bool:
    """Refuse content parts that would make an engine open a connection or a file; return whether any is an image."""
    has_images = False
    pending: list[tuple[object, str]] = [(part, f"{param}[{number}]") for number, part in enumerate(parts)]
    while pending:
        part, where = pending.pop()
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        has_images = has_images or (isinstance(kind, str) and kind in _IMAGES)
        for name in _FETCHED:
            value = part.get(name)
            url = value.get("url") if isinstance(value, dict) else value
            if isinstance(url, str) and url[:5].lower() != "data:":
                msg = "only data: URLs are accepted; nothing is fetched on behalf of a request"
                raise RuleError(msg, f"{where}.{name}")
        pending += [(part[name], f"{where}.{name}") for name in ("source", "input_audio") if name in part]
        nested = part.get("content")
        if isinstance(nested, list):
            pending += [(inner, f"{where}.content[{number}]") for number, inner in enumerate(nested)]
    return has_images


def _check_compiled(value: object, param: str) -> None:
    """Bound what an engine compiles into a grammar: size, patterns, references."""
    budget = limits.JSON_GRAMMAR_BYTES
    pending: list[object] = [value]
    has_references = False
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            budget -= len(item)
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, dict):
            budget -= sum(len(key) for key in item)
            has_references = has_references or "$ref" in item
            pattern = item.get("pattern")
            if isinstance(pattern, str) and _NESTED_QUANTIFIER.search(pattern):
                msg = "a pattern repeats a group that ends in a repetition; that can take for ever"
                raise RuleError(msg, param)
            pending += item.values()
        else:
            budget -= 1
        if budget < 0:
            msg = f"{param} has at most {limits.JSON_GRAMMAR_BYTES} bytes"
            raise RuleError(msg, param)
    if has_references:
        for schema in _schemas(value):
            _check_references(schema, param)


def _schemas(value: object) -> list[dict[str, object]]:
    """Return the schemas in a field: references are relative to the schema that they stand in."""
    if isinstance(value, list):
        return [schema for item in value for schema in _schemas(item)]
    if not isinstance(value, dict):
        return []
    for name in ("json_schema", "function", "format", "schema", "parameters"):
        inner = value.get(name)
        if isinstance(inner, dict):
            return _schemas(inner)
    return [value]


def _check_references(schema: dict[str, object], param: str) -> None:
    """Refuse references that lead out of the schema, nowhere, or back to themselves."""
    finished: set[str] = set()

    def visit(node: object, open_references: tuple[str, ...]) -> None:
        if isinstance(node, list):
            for item in node:
                visit(item, open_references)
        elif isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and reference not in finished:
                if reference in open_references or len(open_references) > limits.JSON_DEPTH:
                    msg = f"the schema refers to itself through {reference[:64]!r}"
                    raise RuleError(msg, param)
                visit(_resolved(schema, reference, param), (*open_references, reference))
                finished.add(reference)
            for item in node.values():
                visit(item, open_references)

    for name, part in schema.items():
        if name not in {"$defs", "definitions"}:
            visit(part, ("#",))
    visit({"$ref": schema["$ref"]} if "$ref" in schema else None, ())


def _resolved(schema: dict[str, object], reference: str, param: str) -> object:
    node: object = schema
    if not reference.startswith("#"):
        msg = f"the reference {reference[:64]!r} leads out of the schema"
        raise RuleError(msg, param)
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or name not in node:
            msg = f"the reference {reference[:64]!r} leads nowhere"
            raise RuleError(msg, param)
        node = node[name]
    return node
