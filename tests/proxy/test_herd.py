"""A host dies with all the streams that it has: they end or move, and those of the other hosts hardly notice."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tests.proxy.builders import CHAT, STREAM_END, STREAM_HEAD, House, Request, a_chat, a_post, event, until
from tests.proxy.test_failure_matrix import pause
from tests.proxy.tunnels import FIRST, SECOND, THIRD
from tests.proxy.wires import Grid, a_grid

STREAMS, SLOTS = 150, 16
"""Of three hosts: fifty each, of which a survivor takes 64 from one peer."""
FIRST_TOKEN_S, TOKEN_S, TOKENS = 0.05, 0.01, 5
BUSY_MACHINE_S = 5.0
"""Granted on top of what is promised: less than a tunnel's silence, so that nobody has waited for that."""


@dataclass
class Slots:
    """An engine that computes so many streams at a time."""

    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLOTS))
    holds: str = ""
    """Where the streams of an engine that is about to die stand still: `before` or `after` the first byte."""
    held: int = 0
    start: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing is computed before: all streams are there by then."""
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer with a few tokens."""
        if self.holds == "after":
            writer.write(STREAM_HEAD + event(0))
        if self.holds:
            self.held += 1
            await self.release.wait()
            return
        await self.start.wait()
        async with self.free:
            await pause(FIRST_TOKEN_S)
            writer.write(STREAM_HEAD + event(0))
            for number in range(1, TOKENS):
                await pause(TOKEN_S)
                writer.write(event(number))
            writer.write(STREAM_END)


@dataclass(frozen=True)
class Seen:
    """What one client saw."""

    request_id: str
    status: int
    first_token_s: float = 0.0
    is_whole: bool = False
    code: str = ""
    retry_after_s: int = 0
    node: str = ""


async def one(entry: House, request_id: str) -> Seen:
    """Send one stream and read it to its end."""
    loop, client = asyncio.get_running_loop(), await entry.connect()
    begun_s = loop.time()
    await client.send(a_post(a_chat(stream=True), CHAT, f"X-Request-ID: {request_id}", "X-Mesh-Resume: off"))
    async with asyncio.timeout(90):
        head = (await client.reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split()[1])
        fields = dict(line.split(": ", 1) for line in head.split("\r\n") if ": " in line)
        if status != 200:
            body = json.loads(await client.reader.readexactly(int(fields["content-length"])))
            retry_after_s = int(fields.get("retry-after", 0))
            return Seen(request_id, status, code=body["error"]["code"], retry_after_s=retry_after_s)
        await client.reader.readuntil(b"data: ")
        first_token_s = loop.time() - begun_s
        rest = await client.reader.readuntil(b"\r\n0\r\n\r\n")
    code = (
        json.loads(b'{"error"' + rest.partition(b'{"error"')[2].partition(b"\n\n")[0])["error"]["code"]
        if (b'{"error"' in rest)
        else ""
    )
    return Seen(request_id, status, first_token_s, b"data: [DONE]" in rest, code, node=fields["x-mesh-node"])


async def a_run(dies: str) -> tuple[list[Seen], Grid]:
    """Send all streams at once, let the first host die when it has its part; return what the clients saw."""
    engines = [Slots(holds=dies), Slots(), Slots()]
    async with a_grid(*(engine.answer for engine in engines), slots=SLOTS) as (entry, grid):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(entry, f"r{number}")) for number in range(STREAMS)]
            await until(lambda: len(grid.heads) == STREAMS, "all streams having a host", within_s=60)
            if dies:
                share = grid.asked.count(FIRST)
                await until(lambda: engines[0].held == share, "the first host's streams standing still", within_s=60)
                grid.kill(FIRST)
            for engine in engines:
                engine.start.set()
        engines[0].release.set()
        return [task.result() for task in tasks], grid


def p99(seen: list[Seen]) -> float:
    """Return the time to the first token that one in a hundred exceeds."""
    times = sorted(one.first_token_s for one in seen)
    return times[int(len(times) * 0.99)]


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_a_herd_ends_or_moves_and_the_others_hardly_notice(dies: str) -> None:
    """F21: nobody is left hanging, nobody is asked twice, and who has to come back does not do so with all others."""
    steady, _ = await a_run("")
    seen, grid = await a_run(dies)

    of_survivors = [one for one in seen if one.status == 200 and one.node in {SECOND, THIRD} and one.is_whole]
    refused = [one for one in seen if one.status != 200]
    ended = [one for one in seen if one.status == 200 and not one.is_whole]
    asked = Counter(
        (node, request.headers["x-request-id"])
        for node, house in grid.houses.items()
        for request in house.engine.requests
    )
    assert [one.is_whole for one in steady] == [True] * STREAMS
    assert len(of_survivors) + len(refused) + len(ended) == STREAMS
    assert {one.code for one in ended} <= {"host_lost"}
    assert bool(ended) is (dies == "after")
    assert {(one.status, one.code) for one in refused} <= {(429, "overloaded"), (503, "host_lost")}
    assert set(asked.values()) == {1}
    assert p99(of_survivors) <= 2 * p99(steady) + BUSY_MACHINE_S
    if dies == "before":
        assert len(of_survivors) > STREAMS * 2 / 3
        assert all(1 <= one.retry_after_s <= 5 for one in refused)
        assert len({one.retry_after_s for one in refused}) > 1
