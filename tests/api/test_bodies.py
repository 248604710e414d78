"""Values of a body, and the parameter that is named when one is wrong."""

from collections.abc import Callable

import pytest

from meshllm.api.answers import ApiError
from meshllm.api.bodies import Body
from meshllm.core.limits import MODEL_NAME_BYTES


def test_values_are_read_by_type() -> None:
    """Null is as good as absent."""
    body = Body({"model": " m ", "yes": True, "null": None, "text": "t"})

    assert body.name("model_id", "model") == "m"
    assert (body.flag("yes"), body.flag("null"), body.flag("absent", default=True)) == (True, False, True)
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
    ],
)
def test_wrong_value_is_a_400_that_names_it(read: Callable[[Body], object], param: str, code: str) -> None:
    """A person finds it at once."""
    body = Body({"number": 1, "empty": " ", "long": "ü" * (MODEL_NAME_BYTES // 2 + 1), "half": "a\ud800"})

    with pytest.raises(ApiError) as caught:
        read(body)

    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
