"""Logs, journal and limits over HTTP."""

import asyncio

import pytest

from meshllm.api import diagnostics
from meshllm.api.diagnostics import added_lines
from meshllm.core.ids import ModelId
from meshllm.core.limits import all_limits
from tests.api.node import WAIT_S, a_node


async def test_logs_of_the_node_and_of_an_engine() -> None:
    """Two rings."""
    async with a_node() as (node, client):
        node.lines = {None: ("n1", "n2"), ModelId("tiny"): ("e1",)}

        assert await (await client.get("/api/logs")).text() == "n1\nn2\n"
        assert await (await client.get("/api/logs?tail=1")).text() == "n2\n"
        assert await (await client.get("/api/logs?model=TINY")).text() == "e1\n"


async def test_logs_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there first, then what comes."""
    monkeypatch.setattr(diagnostics, "LOG_FOLLOW_INTERVAL_S", 0.01)
    async with a_node() as (node, client):
        node.lines[None] = ("1", "2")
        answer = await client.get("/api/logs?follow=1&tail=1")
        async with asyncio.timeout(WAIT_S):
            first = await answer.content.readline()
            node.lines[None] = ("2", "3")
            second = await answer.content.readline()
        answer.close()

        assert (first, second) == (b"2\n", b"3\n")


@pytest.mark.parametrize(
    ("old", "new", "added"),
    [
        ("", "ab", "ab"),
        ("ab", "ab", ""),
        ("ab", "abc", "c"),
        ("abc", "bcd", "d"),
        ("abc", "xyz", "xyz"),
        ("aaa", "aaa", ""),
        ("ab", "", ""),
    ],
)
def test_new_lines_of_a_ring_are_found(old: str, new: str, added: str) -> None:
    """The ring forgets at one end while it grows at the other."""
    assert added_lines(tuple(old), tuple(new)) == tuple(added)


async def test_journal_tells_what_happened_and_what_followed() -> None:
    """Engines' keys are not in it."""
    async with a_node() as (_, client):
        document = await (await client.get("/api/journal?count=1")).json()

        (entry,) = document["entries"]
        assert (entry["id"], entry["event"]) == ("e1", "EngineReady")
        assert "tiny" in entry["detail"]
        assert "key" not in entry["detail"]


async def test_limits_are_all_there() -> None:
    """The same list as `doctor` prints."""
    async with a_node() as (_, client):
        assert await (await client.get("/api/limits")).json() == all_limits()
