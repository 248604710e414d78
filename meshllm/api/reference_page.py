"""The reference as a page for people: plain HTML with one style of its own, and nothing that is fetched.

Owns how an OpenAPI document looks. Decides nothing, and knows no route. Pure.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Mapping
from typing import Any

from meshllm.api.schemas import REFERENCE

Document = Mapping[str, Any]
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
code { font: 13px/1.5 ui-monospace, monospace; }
h2 { margin-top: 2.5rem; }
details { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); padding: .4rem 0; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4.5rem; }
table { border-collapse: collapse; margin: .4rem 0 1rem; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
td:first-child { width: 16rem; }
section:target { outline: 2px solid; outline-offset: .4rem; }
"""
STYLE_HASH = f"sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}"
"""What a content policy calls the style."""
_METHODS = ("get", "post", "delete")


def page(document: Document) -> str:
    """Return the whole page."""
    by_topic: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                by_topic.setdefault(item[method]["tags"][0], []).append(_operation(method, path, item[method]))
    topics = "".join(f"<h2>{_text(topic.capitalize())}</h2>\n{''.join(found)}" for topic, found in by_topic.items())
    shapes = "".join(_shape(name, schema) for name, schema in sorted(document["components"]["schemas"].items()))
    info = document["info"]
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{_text(info["title"])}: HTTP</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>\n'
        f"<h1>{_text(info['title'])} {_text(info['version'])}</h1>\n<p>{_text(info['description'])} "
        f'The same for programs: <a href="openapi.json">openapi.json</a>.</p>\n{topics}<h2>Shapes</h2>\n{shapes}</html>'
    )


def _operation(method: str, path: str, said: Document) -> str:
    parts = []
    if parameters := said.get("parameters"):
        rows = [
            (f"{one['name']} <small>in the {one['in']}</small>", _kind(one["schema"]), one.get("description", ""))
            for one in parameters
        ]
        parts.append(_table(rows))
    if (body := said.get("requestBody")) is not None:
        parts.append(f"<p>Takes {_bodies(body)}{'' if body.get('required') else ', or nothing'}.</p>")
    answers = [(status, _bodies(one), one["description"]) for status, one in said["responses"].items()]
    parts.append(_table(answers))
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{_text(path)}</code> {_text(said['summary'])}</summary>"
        f"{''.join(parts)}</details>\n"
    )


def _bodies(said: Document) -> str:
    found = [
        _kind(one["schema"]) + ("" if media == "application/json" else f" <small>{_text(media)}</small>")
        for media, one in said.get("content", {}).items()
    ]
    return " or ".join(found)


def _shape(name: str, schema: Document) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (f"{_text(key)}{'' if key in required else ' <small>optional</small>'}", _kind(one), one.get("description", ""))
        for key, one in schema.get("properties", {}).items()
    ]
    said = _text(str(schema.get("description", "")))
    inner = _table(rows) if rows else f"<p>{_kind(schema)}</p>"
    return f'<section id="{_text(name)}"><h3><code>{_text(name)}</code></h3><p>{said}</p>{inner}</section>\n'


def _kind(schema: Document) -> str:
    """Return what a schema allows, in a few words; others' schemas as links."""
    if "$ref" in schema:
        name = _text(str(schema["$ref"]).removeprefix(REFERENCE))
        return f'<a href="#{name}"><code>{name}</code></a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_kind(one) for one in schema[key])
    if "enum" in schema:
        return " or ".join(f"<code>{_text(str(one))}</code>" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"object, its values {_kind(schema['additionalProperties'])}"
    kinds = schema.get("type", "anything")
    return _text(" or ".join(kinds) if isinstance(kinds, list) else str(kinds)) + _bounds(schema)


def _bounds(schema: Document) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is None and most is None:
        return ""
    return f" <small>{'' if least is None else f'from {least}'} {'' if most is None else f'to {most}'}</small>"


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = [
        f"<tr><td><code>{name}</code></td><td>{kind}</td><td>{_text(meaning)}</td></tr>" for name, kind, meaning in rows
    ]
    return f"<table>{''.join(lines)}</table>"


def _text(said: str) -> str:
    """Return text as HTML, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(said))
