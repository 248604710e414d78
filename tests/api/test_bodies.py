"""Values of a body, and the parameter that is named when one is wrong."""

from collections.abc import Callable

import pytest

from meshllm.api.answers import ApiError
from meshllm.api.bodies import Body
from meshllm.core.limits import MODEL_NAME_BYTES


def test_values_are_read_by_type() -> None:
    """Null is as good as absent."""
    body = Body({"model": " m ", "yes": True, "null": None, "text": "t", "two": 2, "half": 0.5, "list": ["a", "b"]})

    assert body.name("model_id", "model") == "m"
    assert (body.flag("yes"), body.flag("null"), body.flag("absent", default=True)) == (True, False, True)
    assert (body.whole("two", 1, 2), body.number("half", 0, 1), body.whole("null", 1, 2)) == (2, 0.5, None)
    assert (body.texts("list"), body.texts("null"), body.is_text("text"), body.is_text("list")) == (
        ("a", "b"), None, True, False,
    )  # fmt: skip
    assert (body.text("text"), body.text("null", "d"), body.text("absent", "d")) == ("t", "d", "d")


@pytest.mark.parametrize(
    ("read", "param", "code"),
    [
        (lambda body: body.name("absent", "other"), "absent", "missing_parameter"),
        (lambda body: body.name("number"), "number", "invalid_type"),
        (lambda body: body.name("empty"), "empty", "invalid_value"),
        (lambda body: body.name("long"), "long", "invalid_value"),
        (lambda body: body.name("half"), "half", "invalid_value"),
        (lambda body: body.text("half"), "half", "invalid_value"),
        (lambda body: body.flag("number"), "number", "invalid_type"),
        (lambda body: body.text("number"), "number", "invalid_type"),
        (lambda body: body.number("empty", 0, 9), "empty", "invalid_type"),
        (lambda body: body.number("yes", 0, 9), "yes", "invalid_type"),
        (lambda body: body.number("number", 2, 9), "number", "invalid_value"),
        (lambda body: body.number("nan", 0, 9), "nan", "invalid_value"),
        (lambda body: body.number("huge", 0, 9), "huge", "invalid_value"),
        (lambda body: body.whole("fraction", 0, 9), "fraction", "invalid_type"),
        (lambda body: body.texts("number"), "number", "invalid_type"),
        (lambda body: body.texts("mixed"), "mixed", "invalid_type"),
        (lambda body: body.texts("nulls"), "nulls", "invalid_type"),
    ],
)
def test_wrong_value_is_a_400_that_names_it(read: Callable[[Body], object], param: str, code: str) -> None:
    """A person finds it at once."""
    body = Body({
        "number": 1, "empty": " ", "long": "ü" * (MODEL_NAME_BYTES // 2 + 1), "half": "a\ud800", "yes": True,
        "nan": float("nan"), "huge": 10**400, "fraction": 1.5, "mixed": ["a", 1], "nulls": [None],
    })  # fmt: skip

    with pytest.raises(ApiError) as caught:
        read(body)

    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
