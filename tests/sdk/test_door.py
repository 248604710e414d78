"""A program's way to its node: what is refused or breaks off is an error, and early ends leave nothing open."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from meshllm.sdk.door import Door
from meshllm.sdk.errors import RequestError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def a_door(handler: Handler, key: str = "k") -> AsyncIterator[Door]:
    """Yield a door to a server that answers everything alike."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        door = Door(f"{server.host}:{server.port}", key)
        yield door
        await door.close()


def streaming(*pieces: bytes) -> Handler:
    """Return a handler that writes these."""

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for piece in pieces:
            await answer.write(piece)
        return answer

    return handle


async def test_the_key_is_shown_and_the_document_comes_back() -> None:
    """As any client's."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response({"key": request.headers.get("Authorization"), "said": await request.json()})

    async with a_door(handle) as door:
        assert await door.ask("POST", "/x", {"a": 1}) == {"key": "Bearer k", "said": {"a": 1}}
    async with a_door(handle, "") as door:
        assert (await door.ask("POST", "/x", {}))["key"] is None


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_refusal_is_an_error_with_its_words(is_stream: bool) -> None:
    """Whether a whole answer or a stream was asked for; a body that is no JSON has its status."""
    bodies = [b'{"error":{"message":"no","code":"model_not_found","param":"model"}}', b"<html>"]

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(body=bodies.pop(0), status=404)

    async def asked(door: Door) -> None:
        if is_stream:
            assert [event async for event in door.events("/x", {})]
        await door.ask("POST", "/x", {})

    async with a_door(handle) as door:
        with pytest.raises(RequestError) as refused:
            await asked(door)
        with pytest.raises(RequestError) as plain:
            await asked(door)

    assert (refused.value.status, refused.value.code, refused.value.param) == (404, "model_not_found", "model")
    assert (plain.value.status, plain.value.code) == (404, "")


async def test_events_come_until_the_end_is_said() -> None:
    """Comments are no events, and what follows the end is nobody's."""
    handle = streaming(b': hello\n\ndata: {"a":1}\n\n', b'data:{"a":2}\n\ndata: [DONE]\n\ndata: {"a":3}\n\n')

    async with a_door(handle) as door:
        assert [event["a"] async for event in door.events("/x", {})] == [1, 2]


@pytest.mark.parametrize(
    ("piece", "code"),
    [(b'data: {"error":{"message":"gone","code":"host_lost"}}\n\n', "host_lost"), (b'data: {"a":1}\n\n', "host_lost")],
)
async def test_a_stream_that_breaks_off_is_an_error(piece: bytes, code: str) -> None:
    """Never a shorter answer in silence."""
    async with a_door(streaming(piece)) as door:
        with pytest.raises(RequestError) as lost:
            assert [event async for event in door.events("/x", {})]

    assert lost.value.code == code


async def test_nobody_there_is_an_error() -> None:
    """The node left, or this program closed it."""
    async with a_door(streaming()) as door:
        pass
    gone = Door("127.0.0.1:1", "")

    for closed, code in ((door, "node_closed"), (gone, "node_lost")):
        with pytest.raises(RequestError) as lost:
            await closed.ask("GET", "/x")
        with pytest.raises(RequestError) as stream_lost:
            assert [event async for event in closed.events("/x", {})]
        assert (lost.value.code, stream_lost.value.code, lost.value.status) == (code, code, 0)
    await gone.close()


async def test_whoever_stops_early_cancels_the_stream() -> None:
    """The server hears of it."""
    hung_up = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b'data: {"a":1}\n\n' * 1000)
                await asyncio.sleep(0)
        except ConnectionError:
            hung_up.set()
            raise

    async with a_door(handle) as door:
        events = door.events("/x", {})
        assert await anext(events) == {"a": 1}
        await events.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(30):
            await hung_up.wait()
