"""Live status: what a watcher sees, and when."""

import asyncio
import json
from typing import Self

import pytest
from aiohttp import ClientConnectionResetError

from meshllm.api import background, stream
from meshllm.core.events import EngineProgressed
from meshllm.core.ids import ModelId
from tests.api.node import WAIT_S, Client, a_node
from tests.core.builders import a_spec


class Watcher:
    """Reads events of one stream."""

    def __init__(self, client: Client) -> None:
        """Use a client of the node."""
        self._client = client

    async def __aenter__(self) -> Self:
        """Open the stream."""
        self._answer = await self._client.get("/api/events")
        assert self._answer.headers["Content-Type"] == "text/event-stream"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up."""
        self._answer.close()

    async def lines(self) -> list[str]:
        """Return the lines of the next event or comment."""
        found: list[str] = []
        async with asyncio.timeout(WAIT_S):
            while (line := (await self._answer.content.readline()).decode().rstrip("\n")) or not found:
                found.append(line)
        return found

    async def document(self) -> dict[str, object]:
        """Return the next event's document."""
        lines = await self.lines()
        assert lines[1] == "event: status"
        document: dict[str, object] = json.loads(lines[2].removeprefix("data: "))
        return document


async def test_watcher_sees_the_state_at_once_and_each_change() -> None:
    """No polling in the console."""
    async with a_node(is_ready=False) as (node, client), Watcher(client) as watcher:
        first = await watcher.document()
        node.tell(EngineProgressed(model=ModelId("tiny"), share=0.5))
        second = await watcher.document()

        assert first["epoch"] == node.views.newest.epoch - 1
        assert second["models"][0]["progress"]["share"] == 0.5  # type: ignore[index]


async def test_quick_changes_are_sent_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most four in a second: the last one tells everything."""
    monkeypatch.setattr(stream, "STATUS_INTERVAL_S", 0.05)
    async with a_node(is_ready=False) as (node, client), Watcher(client) as watcher:
        await watcher.document()
        node.tell(EngineProgressed(model=ModelId("tiny"), share=0.1))
        await watcher.document()
        for share in (0.2, 0.3, 0.4, 0.5):
            node.tell(EngineProgressed(model=ModelId("tiny"), share=share))

        document = await watcher.document()
        assert document["models"][0]["progress"]["share"] == 0.5  # type: ignore[index]


async def test_request_in_flight_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """The view does not know of it, people want to see it."""
    monkeypatch.setattr(stream, "TRAFFIC_INTERVAL_S", 0.01)
    async with a_node() as (node, client), Watcher(client) as watcher:
        await watcher.document()
        node.flying[ModelId("tiny")] = 3

        document = await watcher.document()
        assert document["models"][0]["in_flight"] == 3  # type: ignore[index]


async def test_quiet_stream_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies close what says nothing."""
    monkeypatch.setattr(stream, "TRAFFIC_INTERVAL_S", 0.01)
    monkeypatch.setattr(stream, "KEEP_ALIVE_COMMENT_S", 0.02)
    async with a_node() as (_, client), Watcher(client) as watcher:
        await watcher.document()

        assert await watcher.lines() == [": still here"]


async def test_streams_are_counted_and_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends makes room for another."""
    monkeypatch.setattr(background, "MANAGEMENT_STREAMS", 1)
    async with a_node(a_spec("tiny")) as (_, client):
        async with Watcher(client) as watcher:
            await watcher.document()
            refused = await client.get("/api/events")

            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == "too_many_streams"
        async with asyncio.timeout(WAIT_S):
            while (answer := await client.get("/api/events")).status != 200:
                await answer.read()
        answer.close()


async def test_page_that_is_closed_while_it_is_written_to_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """People close pages at any moment: that is nothing to write a traceback about."""
    tried = asyncio.Event()

    async def write(_: object, __: str) -> None:
        tried.set()
        raise ClientConnectionResetError("Cannot write to closing transport")

    monkeypatch.setattr(stream, "write", write)
    async with a_node() as (_, client):
        async with client.get("/api/events") as answer:
            assert await answer.read() == b""

        assert tried.is_set()
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
