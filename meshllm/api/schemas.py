"""JSON schemas of Python types: what the reference says of a body or of an answer follows from its type.

Owns which types stand for which schema, and the names under which they are found. Decides nothing about their content.
Doesn't know routes. Pure.
"""

import enum
import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass

Schema = dict[str, object]
REFERENCE = "#/components/schemas/"
_PLAIN: Mapping[object, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null", None: "null",
}  # fmt: skip
_MARKS = (typing.Required, typing.NotRequired)


@dataclass(frozen=True, slots=True)
class Change:
    """A partial change of a document: any of its keys, of which `null` brings a default back."""

    of: type
    more: type
    """Keys that only a change has."""

    @property
    def name(self) -> str:
        """Return what its schema is called."""
        return f"{self.of.__name__}Change"


class Schemas:
    """The schemas of types, each typed dictionary once and by its name."""

    def __init__(self) -> None:
        """Know none yet."""
        self.named: dict[str, Schema] = {}
        self._of: dict[str, object] = {}

    def of(self, kind: object) -> Schema:
        """Return the schema of a type; typed dictionaries and changes as references. Raises TypeError."""
        if kind in _PLAIN:
            return {"type": _PLAIN[kind]}
        if kind is object:
            return {}
        if isinstance(kind, Change):
            return self._reference(kind.name, kind)
        if typing.is_typeddict(kind):
            return self._reference(getattr(kind, "__name__", ""), kind)
        if isinstance(kind, typing.NewType):
            return self.of(kind.__supertype__)
        if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
            return {"type": "string", "enum": [str(one) for one in kind]}
        return self._generic(kind)

    def _generic(self, kind: object) -> Schema:
        """Return the schema of what is made of other types. Raises TypeError."""
        origin, parts = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            return self.of(parts[0]) | {"description": parts[1]}
        if origin in _MARKS:
            return self.of(parts[0])
        if origin is typing.Literal:
            return {"type": "string", "enum": list(parts)}
        if origin is list:
            return {"type": "array", "items": self.of(parts[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(parts[1])}
        if origin in {types.UnionType, typing.Union}:
            return _any_of([self.of(part) for part in parts])
        raise TypeError(f"{kind!r} has no schema")

    def _reference(self, name: str, kind: object) -> Schema:
        known = self._of.setdefault(name, kind)
        if known != kind:
            raise TypeError(f"two types are called {name}")
        if name not in self.named:
            self.named[name] = {}  # what refers to itself finds it
            self.named[name] = self._change(kind) if isinstance(kind, Change) else self._document(kind)
        return {"$ref": REFERENCE + name}

    def _document(self, kind: typing.Any) -> Schema:  # noqa: ANN401 - a typed dictionary, which has no type of its own
        hints = typing.get_type_hints(kind, include_extras=True)
        return {
            "type": "object", "description": _said_of(kind),
            "properties": {name: self.of(hint) for name, hint in hints.items()},
            "required": [name for name in hints if name in kind.__required_keys__],
        }  # fmt: skip

    def _change(self, change: Change) -> Schema:
        properties: Schema = {}
        for kind in (change.of, change.more):
            for name, hint in typing.get_type_hints(kind, include_extras=True).items():
                properties[name] = _any_of([self.of(hint), {"type": "null"}])
        return {"type": "object", "description": _said_of(change.more), "properties": properties}


def _said_of(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "")


def _any_of(schemas: list[Schema]) -> Schema:
    """Return the schema of either; plain types together, as in `["string", "null"]`."""
    if all(schema.keys() == {"type"} for schema in schemas):
        found: list[object] = []
        for schema in schemas:
            kinds = schema["type"]
            found += [one for one in (kinds if isinstance(kinds, list) else [kinds]) if one not in found]
        return {"type": found if len(found) > 1 else found[0]}
    flat: list[Schema] = []
    for schema in schemas:
        inner = schema.get("anyOf") if schema.keys() == {"anyOf"} else [schema]
        flat += [one for one in (inner if isinstance(inner, list) else []) if one not in flat]
    return {"anyOf": flat}
