"""Plain prompts become completions at the node's own front door, and its answers plain answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from meshllm.core import limits
from tests.api.node import Client, a_node


class Door:
    """Stands in for the front door: repeats each prompt, as a completion."""

    def __init__(self) -> None:
        """Answer well."""
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.refused = ""
        """The prompt that is refused."""
        self.answer: object = None
        """What is answered in the place of a completion."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a completion."""
        document = await request.json()
        self.asked.append(document)
        self.headers.append(dict(request.headers))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if document["prompt"] == self.refused:
            error = {"message": "nobody has it", "code": "model_not_found", "param": "model", "type": "x"}
            return web.json_response({"error": error}, status=404, headers={"Retry-After": "3"})
        if document.get("stream"):
            return await self._stream(request)
        usage = {"prompt_tokens": 1, "completion_tokens": 2}
        answer = {"model": "tiny", "choices": [{"text": f"{document['prompt']}!"}], "usage": usage}
        return web.json_response(self.answer or answer, headers={"X-Mesh-Node": "n7"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b": waiting\n\n")
        for word in ("one", "two"):
            event = {"model": "tiny", "choices": [{"text": word}]}
            await answer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await answer.write(b'data: {"error": {"code": "host_lost"}}\n\ndata: [DONE]\n\n')
        return answer


@asynccontextmanager
async def a_door(key: str = "") -> AsyncIterator[tuple[Door, Client]]:
    """Yield a front door and a client of the management app that asks there."""
    door, app = Door(), web.Application()
    app.router.add_post("/v1/completions", door.handle)
    async with TestServer(app) as server, a_node() as (node, client):
        node.address, node.api_key = f"127.0.0.1:{server.port}", key
        yield door, client


@pytest.mark.rows("API-4")
async def test_a_prompt_is_a_completion() -> None:
    """Its words are translated, what was not said is not made up, and who answered is told."""
    body = {
        "prompt": "say", "model": "tiny", "max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3,
        "stop": ["x"], "cache": True,
    }  # fmt: skip
    async with a_door(key="secret") as (door, client):
        answer = await client.post("/v1/generate", json=body, headers={"X-Session-ID": "s1"})
        plain = await client.post("/v1/generate", json={"prompt": "hm"})

        assert await answer.json() == {
            "model": "tiny", "output": "say!", "cached": False, "prompt_tokens": 1, "completion_tokens": 2,
        }  # fmt: skip
        assert answer.headers["X-Mesh-Node"] == "n7"
        assert door.asked[0] == {
            "prompt": "say", "model": "tiny", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3,
            "stop": ["x"],
        }  # fmt: skip
        assert (door.headers[0]["X-Session-ID"], door.headers[0]["Authorization"]) == ("s1", "Bearer secret")
        assert plain.status == 200
        assert door.asked[1] == {"prompt": "hm"}


@pytest.mark.rows("API-4")
async def test_a_refusal_of_the_front_door_is_told_as_it_is() -> None:
    """Status, code and when to come back; so is an answer that makes no sense."""
    async with a_door() as (door, client):
        door.refused = "no"
        refused = await client.post("/v1/generate", json={"prompt": "no"})
        door.answer = ["odd"]
        odd = await client.post("/v1/generate", json={"prompt": "x"})

        assert (refused.status, refused.headers["Retry-After"]) == (404, "3")
        assert (await refused.json())["error"]["code"] == "model_not_found"
        assert (odd.status, (await odd.json())["error"]["code"]) == (502, "engine_error")


async def test_a_front_door_that_is_gone_is_said() -> None:
    """The process ends meanwhile."""
    async with a_node() as (node, client):
        node.address = "127.0.0.1:9"

        answer = await client.post("/v1/generate", json={"prompt": "x"})

        assert (answer.status, (await answer.json())["error"]["code"]) == (502, "host_lost")


@pytest.mark.rows("API-5")
async def test_a_batch_runs_side_by_side_and_keeps_its_order() -> None:
    """Never more at once than is written down."""
    prompts = [f"p{number}" for number in range(3 * limits.GENERATE_AT_ONCE)]
    async with a_door() as (door, client):
        answer = await (await client.post("/v1/generate/batch", json={"prompts": prompts, "temperature": 0})).json()

        assert answer["model"] == "tiny"
        assert [result["output"] for result in answer["results"]] == [f"{prompt}!" for prompt in prompts]
        assert answer["results"][0]["completion_tokens"] == 2
        assert 1 < door.most_at_once <= limits.GENERATE_AT_ONCE


@pytest.mark.rows("API-5")
async def test_one_refused_prompt_refuses_the_batch() -> None:
    """In the front door's words."""
    async with a_door() as (door, client):
        door.refused = "b"

        answer = await client.post("/v1/generate/batch", json={"prompts": ["a", "b", "c"]})

        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "model_not_found")


@pytest.mark.rows("API-5")
async def test_a_stream_comes_in_pieces() -> None:
    """Comments and errors pass as they are; it ends as streams do."""
    async with a_door() as (door, client):
        answer = await client.post("/v1/stream", json={"prompt": "x"})
        lines = [line for line in (await answer.text()).split("\n") if line]
        door.refused = "no"
        refused = await client.post("/v1/stream", json={"prompt": "no"})

        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert lines == [
            ": waiting", 'data: {"model":"tiny","output":"one"}', 'data: {"model":"tiny","output":"two"}',
            'data: {"error": {"code": "host_lost"}}', "data: [DONE]",
        ]  # fmt: skip
        assert refused.status == 404


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/generate", {}, "prompt"),
        ("/v1/generate", {"prompt": ""}, "prompt"),
        ("/v1/generate", {"prompt": "x", "model": 5}, "model"),
        ("/v1/generate", {"prompt": "x", "max_new_tokens": 0}, "max_new_tokens"),
        ("/v1/generate", {"prompt": "x", "stop": [1]}, "stop"),
        ("/v1/stream", {}, "prompt"),
        ("/v1/generate/batch", {}, "prompts"),
        ("/v1/generate/batch", {"prompts": []}, "prompts"),
        ("/v1/generate/batch", {"prompts": [""]}, "prompts"),
        ("/v1/generate/batch", {"prompts": ["x"] * (limits.GENERATE_PROMPTS + 1)}, "prompts"),
    ],
)
async def test_what_is_no_prompt_is_refused_by_its_name(path: str, body: dict[str, object], param: str) -> None:
    """Nobody is asked."""
    async with a_door() as (door, client):
        answer = await client.post(path, json=body)

        assert (answer.status, (await answer.json())["error"]["param"]) == (400, param)
        assert door.asked == []
