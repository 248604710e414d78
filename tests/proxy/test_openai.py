"""Every error has one shape, and every refusal its status."""

import json

import pytest

from meshllm.core.routing.routes import Refusal, RefusalCode
from meshllm.proxy.openai import Problem, error_document, reason_phrase, refused, unknown_model


def test_an_error_has_the_four_fields_of_openai() -> None:
    """Clients read `error.message` without looking whether it is there."""
    problem = Problem(status=400, code="c", message="m", param="p")

    assert json.loads(error_document(problem)) == {
        "error": {"message": "m", "type": "invalid_request_error", "param": "p", "code": "c"}
    }
    assert json.loads(error_document(problem, anthropic=True))["type"] == "error"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.MODEL_NOT_FOUND, 404), (RefusalCode.AMBIGUOUS_MODEL, 409), (RefusalCode.NO_DEFAULT_MODEL, 503),
        (RefusalCode.CAPABILITY_NOT_SUPPORTED, 400), (RefusalCode.NO_CAPACITY, 503), (RefusalCode.MODEL_HELD, 503),
        (RefusalCode.MODEL_UNLOADED, 503), (RefusalCode.MODEL_FAILED, 503), (RefusalCode.LEAVING, 503),
        (RefusalCode.MODEL_DISABLED, 403), (RefusalCode.MODEL_NOT_LOADED, 503),
    ],
)  # fmt: skip
def test_refusals_have_their_status(code: RefusalCode, status: int) -> None:
    """What the client can mend is 4xx, what time can mend is 503."""
    problem = refused(Refusal(code=code, message="m"), 3)

    assert (problem.status, problem.code) == (status, code.value)
    assert reason_phrase(problem.status) != "Error"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"),
        (404, "not_found_error"), (409, "invalid_request_error"), (413, "request_too_large"),
        (429, "rate_limit_error"), (500, "api_error"), (502, "api_error"), (503, "overloaded_error"),
    ],
)  # fmt: skip
def test_anthropics_clients_get_its_own_types(status: int, kind: str) -> None:
    """Its SDK chooses the exception, and whether to try again, by them."""
    problem = Problem(status=status, code="c", message="m", type="server_error" if status >= 500 else "")

    document = json.loads(error_document(problem, anthropic=True))

    assert (document["type"], document["error"]["type"]) == ("error", kind)


def test_every_refusal_of_routing_has_a_status() -> None:
    """A new one must not become a KeyError."""
    for code in RefusalCode:
        assert refused(Refusal(code=code, message="m"), 3).status >= 400


def test_a_name_of_ten_kilobytes_is_not_repeated() -> None:
    """An answer is not an amplifier."""
    assert len(unknown_model("x" * 10_000).message) < 200
