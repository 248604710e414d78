"""The double of servers that people already run: as much like them as other tests believe."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshllm.testing.fake_openai_server import SEEN, FakeOpenAIServer, a_server

ROOT = Path(__file__).parents[2]
BODY = {"model": "remote-model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


async def post(server: FakeOpenAIServer, body: dict[str, Any], **headers: str) -> tuple[int, str]:
    """Return an answer's status and text."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/chat/completions", json=body, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status, await answer.text()


@pytest.mark.parametrize("framing", ["sized", "chunked", "closed"])
async def test_it_answers_and_says_what_came(framing: str) -> None:
    """In every framing."""
    async with a_server(framing=framing, prefix="/api") as server:
        status, text = await post(server, BODY)

        answer = json.loads(text)
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "0 1 2 3 ")
        assert (answer[SEEN]["path"], answer[SEEN]["asked_for"]) == ("/api/v1/chat/completions", "remote-model")


async def test_it_streams() -> None:
    """One event for each token, and the last word."""
    async with a_server() as server:
        _, text = await post(server, BODY | {"stream": True})

        assert text.count("data: ") == 7
        assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("ways", "status"),
    [({"key": "k"}, 401), ({"trouble": "overload"}, 429), ({"trouble": "move"}, 302), ({"models": []}, 404)],
)
async def test_it_refuses_as_told(ways: dict[str, object], status: int) -> None:
    """With the status that real ones have."""
    async with a_server(**ways) as server:
        assert (await post(server, BODY))[0] == status


@pytest.mark.parametrize("trouble", ["close", "garbage", "die_mid_stream"])
async def test_it_breaks_off_as_told(trouble: str) -> None:
    """Its client notices."""
    async with a_server(trouble=trouble) as server:
        with pytest.raises(aiohttp.ClientError):
            await post(server, BODY | {"stream": True})


async def test_it_stops_and_starts_again_at_the_same_place() -> None:
    """As a server that was restarted."""
    async with a_server() as server:
        url = server.url
        await server.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(server, BODY)
        await server.start()

        assert (server.url, (await post(server, BODY))[0]) == (url, 200)


async def test_it_runs_as_a_process_and_says_its_port() -> None:
    """For daemons that are processes too."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshllm.testing.fake_openai_server", json.dumps({"models": ["a"]}),
        stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            port = int(await process.stdout.readline())
        async with aiohttp.ClientSession() as session, session.get(f"http://localhost:{port}/v1/models") as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["a"]
    finally:
        process.kill()
        await process.wait()
