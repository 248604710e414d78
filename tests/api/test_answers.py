"""The envelope of errors."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from meshllm.api.answers import ApiError, envelope, errors_as_json, json_answer


@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request_error"), (500, "server_error")])
def test_envelope_says_whose_mistake_it_was(status: int, kind: str) -> None:
    """Clients retry one and not the other."""
    assert envelope(status, "c", "m", "p") == {"error": {"message": "m", "type": kind, "param": "p", "code": "c"}}


def test_answer_is_compact_and_not_kept() -> None:
    """A status from a cache would be a lie."""
    answer = json_answer({"a": ["ü", 1]})

    assert answer.text == '{"a":["ü",1]}'
    assert answer.headers["Cache-Control"] == "no-store"


def test_answer_never_fails_on_half_a_character() -> None:
    """Paths of odd folders have such; a client gets a question mark rather than a 500."""
    assert json_answer({"\ud800": "a\udfff"}).text == '{"?":"a?"}'


async def test_every_kind_of_error_is_answered_in_the_envelope() -> None:
    """Ours, the framework's, and mistakes; redirects are no errors."""
    errors = {
        "/ours": ApiError(409, "clash", "no", headers={"Retry-After": "1"}),
        "/framework": web.HTTPForbidden(),
        "/mistake": ZeroDivisionError("secret"),
        "/redirect": web.HTTPFound("/elsewhere"),
    }

    async def fail(request: web.Request) -> web.Response:
        raise errors[request.path]

    app = web.Application(middlewares=[errors_as_json])
    for path in errors:
        app.router.add_get(path, fail)
    async with TestClient(TestServer(app)) as client:
        answers = {path: await client.get(path, allow_redirects=False) for path in errors}
        bodies = {path: await answer.text() for path, answer in answers.items()}

    assert [answer.status for answer in answers.values()] == [409, 403, 500, 302]
    assert answers["/ours"].headers["Retry-After"] == "1"
    assert all('{"error":{"message":' in bodies[path] for path in ("/ours", "/framework", "/mistake"))
    assert "secret" not in bodies["/mistake"]
