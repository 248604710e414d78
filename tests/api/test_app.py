"""Every path and method gets an answer in the envelope, and the socket is private."""

import io
import stat
from pathlib import Path

import aiohttp
import pytest

from meshllm.api.app import ManagementServer
from meshllm.api.routes import ROUTES
from meshllm.core.limits import MANAGEMENT_BODY_BYTES
from tests.api.node import FakeNode, a_node
from tests.core.builders import a_spec, a_story

NAMES_NONE = {"/health/check", "/cache/allocation"}
"""Of all models where none is named."""
POSTS_WITH_MODEL = [
    route.path
    for route in ROUTES
    if route.method == "POST" and "`model" in route.summary and route.path not in NAMES_NONE
]
PLAIN_GETS = [route.path for route in ROUTES if route.method == "GET" and route.path != "/api/events"]


def session_of(socket: Path) -> aiohttp.ClientSession:
    """Return a client of a Unix socket."""
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)))


@pytest.mark.parametrize("path", PLAIN_GETS)
async def test_every_reading_route_answers(path: str) -> None:
    """The table has no dead entries."""
    async with a_node() as (node, client):
        node.lines[None] = ("a line",)

        answer = await client.get(path.replace("{model}", "tiny").replace("{model:.+}", "tiny"))

        assert answer.status == 200
        assert await answer.read()


@pytest.mark.parametrize("path", POSTS_WITH_MODEL)
@pytest.mark.parametrize("text", [r"\ud800", r"\udfff", r"tiny\ud83d"])
async def test_half_a_character_in_a_name_is_refused_with_the_parameter(path: str, text: str) -> None:
    """JSON can write a lone surrogate, which no name is and no encoder takes."""
    async with a_node() as (node, client):
        answer = await client.post(path, data=f'{{"model":"{text}"}}')
        error = (await answer.json())["error"]

        assert (answer.status, error["code"], error["param"]) == (400, "invalid_value", "model")
        assert not node.intents


async def test_head_of_the_console_is_answered() -> None:
    """Clients ask so whether somebody is there."""
    async with a_node() as (_, client):
        answer = await client.head("/")

        assert answer.status == 200
        assert await answer.read() == b""


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("POST", "/nope", 404, "not_found"),
        ("GET", "/static/../../etc/passwd", 404, "not_found"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404, "not_found"),
        ("GET", "/v1/models/unload", 405, "method_not_allowed"),
        ("POST", "/api/status", 405, "method_not_allowed"),
        ("DELETE", "/", 405, "method_not_allowed"),
        ("GET", "/api/logs?tail=x", 400, "invalid_value"),
        ("GET", "/api/logs?model=nope", 404, "model_not_found"),
        ("GET", "/api/journal?count=-1", 400, "invalid_value"),
    ],
)
async def test_wrong_request_gets_the_envelope(method: str, path: str, status: int, code: str) -> None:
    """Programs look for `error.code` on every path."""
    async with a_node() as (_, client):
        answer = await client.request(method, path)
        error = (await answer.json())["error"]

        assert (answer.status, error["code"]) == (status, code)
        assert set(error) == {"message", "type", "param", "code"}
        assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.rows("LIF-15")
@pytest.mark.parametrize("path", POSTS_WITH_MODEL)
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b"\xff", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b"{}", 400, "missing_parameter"),
        (b'{"model":1,"model_id":1}', 400, "invalid_type"),
        (b'{"model":" ","model_id":" "}', 400, "invalid_value"),
        (b'{"model":"%s","model_id":"%s"}' % (b"x" * 513, b"x" * 513), 400, "invalid_value"),
        (b" " * (MANAGEMENT_BODY_BYTES + 1), 413, "body_too_large"),
    ],
)
async def test_bad_body_is_refused_and_the_parameter_named(path: str, body: bytes, status: int, code: str) -> None:
    """Nothing reaches the core that is not what it says."""
    async with a_node() as (node, client):
        answer = await client.post(path, data=io.BytesIO(body))
        error = (await answer.json())["error"]

        assert (answer.status, error["code"]) == (status, code)
        assert (error["param"] in ("model", "model_id")) == (code not in ("invalid_json", "body_too_large"))
        assert not node.intents


async def test_mistake_of_ours_is_an_id_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The answer tells nothing that the log does not tell better."""
    async with a_node() as (node, client):
        node.log_lines = None  # type: ignore[method-assign,assignment]

        answer = await client.get("/api/logs")
        error = (await answer.json())["error"]

        assert (answer.status, error["code"]) == (500, "internal_error")
        assert "NoneType" not in error["message"]
        assert error["message"].split()[-1] in caplog.text


async def test_server_listens_on_a_private_socket(tmp_path: Path) -> None:
    """A socket file that a killed daemon left is replaced; this one is gone at the end."""
    socket = tmp_path / "api.sock"
    socket.touch()
    server = ManagementServer(FakeNode(a_story(a_spec())), socket)  # type: ignore[arg-type]

    await server.open()
    mode = stat.S_IMODE(socket.stat().st_mode)
    async with session_of(socket) as session, session.get("http://node/healthz") as answer:
        status = answer.status
    await server.close()

    assert (mode, status) == (0o600, 200)
    assert not socket.exists()


async def test_open_streams_end_with_the_server(tmp_path: Path) -> None:
    """A console that is watching must not keep the daemon from leaving."""
    socket = tmp_path / "api.sock"
    server = ManagementServer(FakeNode(a_story(a_spec())), socket)  # type: ignore[arg-type]
    await server.open()

    async with session_of(socket) as session, session.get("http://node/api/events") as answer:
        await answer.content.readline()
        await server.close()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.read()
