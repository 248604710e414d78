"""Types become schemas, and what has none is refused."""

import enum
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict

import pytest

from meshllm.api.schemas import Change, Schemas

Name = NewType("Name", str)


class Colour(enum.StrEnum):
    """Two words."""

    RED = "red"
    BLUE = "blue"


class Inner(TypedDict, total=False):
    """A document within another."""

    deep: "Outer"


class Outer(TypedDict):
    """A document."""

    name: Name
    inner: NotRequired[Inner | None]


class OuterChange(TypedDict):
    """What only a change has."""

    force: bool


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (str, {"type": "string"}),
        (int | None, {"type": ["integer", "null"]}),
        (object, {}),
        (Name, {"type": "string"}),
        (list[float], {"type": "array", "items": {"type": "number"}}),
        (dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Annotated[int, "How many."], {"type": "integer", "description": "How many."}),
        (Outer | None, {"anyOf": [{"$ref": "#/components/schemas/Outer"}, {"type": "null"}]}),
    ],
)
def test_a_type_has_its_schema(kind: Any, schema: dict[str, object]) -> None:
    """One for each kind of type that the tables use."""
    assert Schemas().of(kind) == schema


def test_documents_are_described_once_and_may_hold_one_another() -> None:
    """By name, with what has to be there."""
    schemas = Schemas()

    schemas.of(list[Outer])
    schemas.of(Outer)

    assert list(schemas.named) == ["Outer", "Inner"]
    assert schemas.named["Outer"]["required"] == ["name"]
    assert schemas.named["Outer"]["description"] == "A document."
    assert schemas.named["Inner"]["properties"] == {"deep": {"$ref": "#/components/schemas/Outer"}}


def test_a_change_has_any_of_the_keys_or_null() -> None:
    """Null brings a default back."""
    schemas = Schemas()

    reference = schemas.of(Change(Outer, OuterChange))

    assert reference == {"$ref": "#/components/schemas/OuterChange"}
    assert schemas.named["OuterChange"] == {
        "type": "object", "description": "What only a change has.",
        "properties": {
            "name": {"type": ["string", "null"]},
            "inner": {"anyOf": [{"$ref": "#/components/schemas/Inner"}, {"type": "null"}]},
            "force": {"type": ["boolean", "null"]},
        },
    }  # fmt: skip


def test_two_types_of_one_name_are_a_mistake() -> None:
    """One of them would be lost."""
    schemas = Schemas()
    schemas.of(Outer)

    with pytest.raises(TypeError, match="two types are called Outer"):
        schemas.of(TypedDict("Outer", {"other": int}))  # type: ignore[operator]


@pytest.mark.parametrize("kind", [bytes, tuple[int, ...], set[str]])
def test_a_type_without_a_schema_is_refused(kind: object) -> None:
    """JSON has no such thing."""
    with pytest.raises(TypeError, match="has no schema"):
        Schemas().of(kind)
