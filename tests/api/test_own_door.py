"""The management app reaches this node's own front door, wherever that listens."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request

from meshllm.api.answers import ApiError
from meshllm.api.own_door import OwnDoor
from tests.api.node import a_node
from tests.core.builders import a_spec


async def told(request: web.Request) -> web.Response:
    """Answer with what came."""
    return web.json_response({"body": await request.json(), "headers": dict(request.headers)})


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_the_door_is_found_wherever_it_listens(host: str) -> None:
    """With its key and the client's session, and without whatever else the client sent."""
    app = web.Application()
    app.router.add_post("/ask", told)
    async with TestServer(app) as server, a_node(a_spec("tiny")) as (node, _):
        node.address, node.api_key = f"{host}:{server.port}", "k"
        door = OwnDoor(node)
        request = _request({"X-Session-ID": "s", "Cookie": "c=1"})

        async with door.ask(request, "/ask", {"a": 1}) as answer:
            found = await answer.json()
        await door.close(app)

    assert found["body"] == {"a": 1}
    assert (found["headers"]["Authorization"], found["headers"]["X-Session-ID"]) == ("Bearer k", "s")
    assert "Cookie" not in found["headers"]


async def test_a_door_that_does_not_answer_is_an_error() -> None:
    """With a code for programs."""
    async with a_node() as (node, _):
        node.address = "127.0.0.1:9"
        door = OwnDoor(node)

        with pytest.raises(ApiError) as caught:
            async with door.ask(_request({}), "/ask", {}):
                pass
        await door.close(web.Application())

    assert (caught.value.status, caught.value.code) == (502, "host_lost")


def _request(headers: dict[str, str]) -> web.Request:
    return make_mocked_request("POST", "/v1/generate", headers=headers)
