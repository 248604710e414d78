"""Live status: what a watcher sees, and when."""

import asyncio
import json
from typing import Any, Self

import pytest
from aiohttp import ClientConnectionResetError

from meshllm.api import background, stream
from meshllm.core.events import EngineProgressed
from meshllm.core.ids import ModelId
from tests.api.node import WAIT_S, Client, a_node
from tests.core.builders import a_member, a_spec


class Watcher:
    """Reads events of one stream."""

    def __init__(self, client: Client, last_id: str = "") -> None:
        """Use a client of the node; go on after an event."""
        self._client, self._last_id = client, last_id

    async def __aenter__(self) -> Self:
        """Open the stream."""
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        self._answer = await self._client.get("/api/events", headers=headers)
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

    async def event(self) -> tuple[str, str, dict[str, Any]]:
        """Return the next event: its id, its name and its document."""
        lines = await self.lines()
        event_id, name, data = (line.partition(": ")[2] for line in lines[:3])
        return event_id, name, json.loads(data)

    async def document(self) -> dict[str, Any]:
        """Return the whole document, which has to be next."""
        _, name, document = await self.event()
        assert name == "status"
        return document

    async def changed_model(self) -> dict[str, Any]:
        """Return the only model that changed, which has to be told next."""
        _, name, document = await self.event()
        assert name == "changes"
        (model,) = document["entries"]["models"]
        return dict(model)


async def test_watcher_sees_the_state_at_once_and_each_change() -> None:
    """No polling in the console."""
    async with a_node(is_ready=False) as (node, client), Watcher(client) as watcher:
        first = await watcher.document()
        node.tell(EngineProgressed(model=ModelId("tiny"), share=0.5))
        model = await watcher.changed_model()

        assert first["models"][0]["progress"]["share"] == 0.0
        assert model["progress"]["share"] == 0.5


async def test_quick_changes_are_sent_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most four in a second: the last one tells everything."""
    monkeypatch.setattr(stream, "STATUS_INTERVAL_S", 0.05)
    async with a_node(is_ready=False) as (node, client), Watcher(client) as watcher:
        await watcher.document()
        node.tell(EngineProgressed(model=ModelId("tiny"), share=0.1))
        await watcher.changed_model()
        for share in (0.2, 0.3, 0.4, 0.5):
            node.tell(EngineProgressed(model=ModelId("tiny"), share=share))

        assert (await watcher.changed_model())["progress"]["share"] == 0.5


async def test_request_in_flight_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """The view does not know of it, people want to see it."""
    monkeypatch.setattr(stream, "TRAFFIC_INTERVAL_S", 0.01)
    async with a_node() as (node, client), Watcher(client) as watcher:
        await watcher.document()
        node.flying[ModelId("tiny")] = 3

        assert (await watcher.changed_model())["in_flight"] == 3


async def test_a_line_more_or_less_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """The view does not know of lines either; only the member that they go to is told."""
    monkeypatch.setattr(stream, "TRAFFIC_INTERVAL_S", 0.01)
    async with a_node() as (node, client):
        desk = a_member("desk")
        node.meet(desk, a_member("shed"))
        async with Watcher(client) as watcher:
            first = await watcher.document()
            told = []
            for lines in (2, 1):
                node.warm[desk.announcement.node] = lines
                _, name, document = await watcher.event()
                told.append((name, [(one["name"], one["lines"]) for one in document["entries"]["members"]]))

        assert [member["lines"] for member in first["members"]] == [0, 0, 0]
        assert told == [("changes", [("desk", 2)]), ("changes", [("desk", 1)])]


async def test_who_was_cut_off_is_told_what_changed_meanwhile() -> None:
    """By the id of the last event that it had."""
    async with a_node(is_ready=False) as (node, client):
        async with Watcher(client) as watcher:
            last_id, *_ = await watcher.event()
        node.tell(EngineProgressed(model=ModelId("tiny"), share=0.5))

        async with Watcher(client, last_id) as watcher:
            assert (await watcher.changed_model())["progress"]["share"] == 0.5


async def test_who_missed_nothing_hears_so_at_once() -> None:
    """An event without changes says that the node is there."""
    async with a_node() as (_, client):
        async with Watcher(client) as watcher:
            last_id, *_ = await watcher.event()

        async with Watcher(client, last_id) as watcher:
            event_id, name, document = await watcher.event()

    assert (event_id, name) == (last_id, "changes")
    assert not any(document["entries"].values())


@pytest.mark.parametrize("last_id", ["x", "0.1", "{run}.99", "{run}.-1", "{run}.\u0663", "{run}." + "9" * 40])
async def test_an_id_of_another_run_is_answered_with_everything(last_id: str) -> None:
    """Also one that this run has not given."""
    async with a_node() as (_, client):
        async with Watcher(client) as watcher:
            run = (await watcher.event())[0].partition(".")[0]

        async with Watcher(client, last_id.replace("{run}", run)) as watcher:
            assert (await watcher.document())["models"]


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
