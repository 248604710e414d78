"""Every way a host can fail, at every phase of a request: what the client sees, how soon, and what the engines saw.

The tunnels are the real ones over a pretended network, their patience shortened. Before the first byte has gone to the
client there is one whole answer from another host; after it the stream ends with one error event, or, where streams
are resumed, with the whole text. Nothing is silent, nothing is asked twice of one engine, nothing stays occupied.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from openai import APIError, AsyncOpenAI

from meshllm.core import limits
from meshllm.core.events import PathFailed
from meshllm.core.ids import NodeId
from meshllm.proxy.openai import LEAVING, Problem
from meshllm.testing.fake_answers import STYLES, Counts
from meshllm.wire.tunnel_frames import TunnelRefusal
from tests.proxy.builders import CHAT, STREAM_HEAD, TINY, Client, House, Request, a_chat, a_post, chunk, until, whole
from tests.proxy.tunnels import FIRST, SECOND
from tests.proxy.wires import Grid, a_grid

SILENCE_S, HEARTBEAT_S, OPENING_S = 0.4, 0.05, 0.3
"""In the place of 10, 2 and 6 s."""
FIRST_BYTE_S = 0.6
"""In the place of 15 s."""
AT_ONCE_S = 1.0
"""For what is noticed at once."""
BUSY_MACHINE_S = 15.0
"""Granted on top of what is promised: a machine that does other things is no failure."""
WORDS = [f"{number} " for number in range(8)]
LARGE = "x" * (2 * limits.ENGINE_ANSWER_HELD_BYTES)
COUNTS = Counts(prompt_tokens=1, cached_tokens=0, made_tokens=len(WORDS), took_ms=1.0)

CONNECT, HEADERS, FIRST_TOKEN, MIDDLE, LAST_TOKEN = "connect", "headers", "first token", "middle", "last token"
COMPLETIONS = "/v1/completions"
PHASES = (CONNECT, HEADERS, FIRST_TOKEN, MIDDLE, LAST_TOKEN)
STREAM, WHOLE, LARGE_WHOLE, LOSABLE = "stream", "whole", "large", "stream that is not to be resumed"
SHAPES = {STREAM: PHASES, WHOLE: PHASES, LARGE_WHOLE: (MIDDLE, LAST_TOKEN), LOSABLE: (MIDDLE, LAST_TOKEN)}
TURN = "<|assistant|>"


def _leave(grid: Grid) -> None:
    """Let a host end what it has, as one does that leaves and has drained for long enough."""
    problem = Problem(status=503, code=LEAVING, message="this node is shutting down", retry_after_s=1)
    grid.houses[FIRST].door.far_end.end(problem)


@dataclass(frozen=True)
class Fault:
    """One way to fail."""

    at_connect: Callable[[Grid], object]
    later: Callable[[Grid], object]
    within_s: float
    """What is promised."""
    is_death: bool = True
    """Membership is told, and asks at once whether the host lives."""
    code: str = "host_lost"
    """Of the error event."""
    is_silent: bool = False
    """Nothing says that the host is lost; only its silence does."""


FAULTS = {
    "killed": Fault(lambda grid: grid.kill(FIRST), lambda grid: grid.kill(FIRST), AT_ONCE_S),
    "hung": Fault(lambda grid: grid.deaf.add(FIRST), lambda grid: grid.hang(FIRST), SILENCE_S, is_silent=True),
    "cut": Fault(lambda grid: grid.cut_off(FIRST), lambda grid: grid.cut_off(FIRST), SILENCE_S, is_silent=True),
    "refusing": Fault(
        lambda grid: grid.refusals.update({FIRST: TunnelRefusal(code="busy")}), _leave, AT_ONCE_S,
        is_death=False, code=LEAVING,
    ),
    "resetting": Fault(lambda grid: grid.reset.add(FIRST), lambda grid: grid.break_all(FIRST), AT_ONCE_S),
}  # fmt: skip


@dataclass
class Engine:
    """A host's engine that fails once, at one phase, or never."""

    grid: Grid | None = None
    phase: str = ""
    fault: Callable[[Grid], object] | None = None
    pause_s: float = 0.0
    """Instead of failing, do nothing for so long."""
    release: asyncio.Event = field(default_factory=asyncio.Event)
    node: NodeId = FIRST

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer with eight words, or with much text; or go on behind the words that a prompt ends with."""
        path, body = request.line.split()[1], request.json
        if path == "/apply-template":
            writer.write(whole({"prompt": TURN}))
        elif path == "/tokenize":
            writer.write(whole({"tokens": list(range(len(body["content"].split())))}))
        elif path == COMPLETIONS:
            prompt = body["prompt"] if isinstance(body["prompt"], str) else str(body["prompt"][-1])
            said, style = len(prompt.rpartition(TURN)[2].split()), STYLES[COMPLETIONS]
            events = [*(style.piece("tiny", word) for word in WORDS[said:]), *style.ending("tiny", COUNTS, body)]
            writer.write(STREAM_HEAD + b"".join(map(_event, events)) + b"0\r\n\r\n")
        else:
            await self.chat(body, writer)

    async def chat(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Answer a chat request, or fail in the middle of it."""
        style = STYLES[CHAT]
        await self.reach(HEADERS, b"")
        if body.get("stream"):
            writer.write(STREAM_HEAD)
            await self.reach(FIRST_TOKEN, b"")
            event = b""
            for number, word in enumerate(WORDS):
                event = _event(style.piece("tiny", word))
                writer.write(event)
                if number == len(WORDS) // 2:
                    await self.reach(MIDDLE, event)
            await self.reach(LAST_TOKEN, event)
            for last in style.ending("tiny", COUNTS, body):
                writer.write(_event(last))
            writer.write(b"0\r\n\r\n")
            return
        text = LARGE if body.get("user") == LARGE_WHOLE else "".join(WORDS)
        head, _, data = whole(style.whole("tiny", text, COUNTS, body)).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        await self.reach(FIRST_TOKEN, b"")
        half, is_passed_on = len(data) // 2, text is LARGE
        writer.write(data[:half])
        await self.reach(MIDDLE, data[half - 9 : half] if is_passed_on else b"")
        writer.write(data[half:-1])
        await self.reach(LAST_TOKEN, data[-9:-1] if is_passed_on else b"")
        writer.write(data[-1:])

    async def reach(self, phase: str, passed: bytes) -> None:
        """Fail here if this is the phase; `passed` is what the entry node has got by then."""
        if phase != self.phase or self.grid is None:
            return
        self.phase = ""
        (cable,) = self.grid.cables[self.node]
        await until(lambda: cable.near.came.endswith(passed) if passed else True, f"arrival before {phase}")
        if self.pause_s:
            await pause(self.pause_s)
        if self.fault is not None:
            self.fault(self.grid)
            await self.release.wait()


def _event(piece: object) -> bytes:
    data = piece if isinstance(piece, str) else json.dumps(piece)
    return chunk(f"data: {data}\n\n".encode())


async def pause(seconds: float) -> None:
    """Let time pass that a test is about."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


@dataclass(frozen=True)
class Outcome:
    """What a client saw."""

    status: int = 0
    text: str = ""
    is_whole: bool = False
    """With its proper end."""
    code: str = ""
    """Of an error, as an answer or as an event."""
    is_cut: bool = False
    """The connection broke inside the answer."""
    node: str = ""
    took_s: float = 0.0


async def ask(client: Client, shape: str, request_id: str) -> Outcome:
    """Send one request and say how it ended."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    is_stream = shape in {STREAM, LOSABLE}
    body = a_chat(stream=True) if is_stream else a_chat(user=shape)
    wishes = ["X-Mesh-Resume: off"] if shape is LOSABLE else []
    await client.send(a_post(body, CHAT, f"X-Request-ID: {request_id}", *wishes))
    try:
        reply = await client.receive()
    except (asyncio.IncompleteReadError, ConnectionError):
        return Outcome(is_cut=True, took_s=loop.time() - begun_s)
    took_s, node = loop.time() - begun_s, reply.headers.get("x-mesh-node", "")
    if not is_stream or reply.status != 200:
        document = reply.json
        text = document["choices"][0]["message"]["content"] if "choices" in document else ""
        code = document.get("error", {}).get("code", "")
        return Outcome(reply.status, text, bool(text), code, node=node, took_s=took_s)
    events = [line[6:] for line in reply.body.decode().split("\n") if line.startswith("data: ")]
    assert all(not event.startswith('{"error"') for event in events[:-1]), "an error event is the last one"
    said = [json.loads(event) for event in events if event != "[DONE]"]
    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in said if one.get("choices"))
    code = said[-1].get("error", {}).get("code", "")
    return Outcome(200, text, events[-1] == "[DONE]", code, node=node, took_s=took_s)


def has_begun(phase: str, shape: str) -> bool:
    """Tell whether bytes of the answer have gone to the client by then. Small answers are held until they are whole."""
    return phase in {MIDDLE, LAST_TOKEN} and shape is not WHOLE


def assert_promised(outcome: Outcome, fault: Fault, phase: str, shape: str) -> None:
    """Check what the failure model promises."""
    text = LARGE if shape is LARGE_WHOLE else "".join(WORDS)
    if not has_begun(phase, shape):
        assert (outcome.status, outcome.text, outcome.is_whole, outcome.node) == (200, text, True, SECOND)
    elif shape is LARGE_WHOLE:
        assert outcome.is_cut
    elif shape is STREAM:
        assert (outcome.status, outcome.text, outcome.is_whole, outcome.code) == (200, text, True, "")
    else:
        assert (outcome.status, outcome.is_whole) == (200, False)
        assert outcome.code in {fault.code, "host_lost"}
        assert text.startswith(outcome.text)
        assert outcome.text


def asked_by_id(grid: Grid) -> dict[str, Counter[str]]:
    """Return how often each engine was asked for the whole answer to each request."""
    return {
        node: Counter(one.headers["x-request-id"] for one in house.engine.requests if CHAT in one.line)
        for node, house in grid.houses.items()
    }


def deaths(entry: House) -> list[PathFailed]:
    """Return what membership was told."""
    return [event for event in entry.events if isinstance(event, PathFailed)]


async def until_quiet(entry: House, grid: Grid) -> None:
    """Wait until no request occupies anything anywhere."""

    def is_quiet() -> bool:
        hosts = [house.door.in_flight(TINY) for house in grid.houses.values()]
        return not (entry.door.traffic.in_flight or any(hosts) or entry.door.traffic.waiting)

    await until(is_quiet, "all slots being free")


def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the patience of tunnels."""
    monkeypatch.setattr(limits, "TUNNEL_SILENCE_S", SILENCE_S)
    monkeypatch.setattr(limits, "TUNNEL_HEARTBEAT_S", HEARTBEAT_S)
    monkeypatch.setattr(limits, "TUNNEL_OPEN_TIMEOUT_S", OPENING_S)


CELLS = [(name, phase, shape) for name in FAULTS for shape, phases in SHAPES.items() for phase in phases]


@pytest.mark.rows("PRX-8")
@pytest.mark.parametrize(("name", "phase", "shape"), CELLS)
async def test_a_host_that_fails(name: str, phase: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """F2, F4, F6, F19, F20: one whole answer from another host, or one error; in the time that is promised."""
    in_no_time(monkeypatch)
    fault, failing, healthy = FAULTS[name], Engine(), Engine()
    async with a_grid(failing.answer, healthy.answer) as (entry, grid):
        if phase is CONNECT:
            fault.at_connect(grid)
        else:
            failing.grid, failing.phase, failing.fault = grid, phase, fault.later
        client = await entry.connect()

        outcome = await ask(client, shape, "r1")
        grid.mend(FIRST)
        failing.release.set()

        assert_promised(outcome, fault, phase, shape)
        assert outcome.took_s < fault.within_s + BUSY_MACHINE_S
        assert bool(deaths(entry)) is fault.is_death
        asked = asked_by_id(grid)
        assert asked[SECOND]["r1"] == (not has_begun(phase, shape))
        assert asked[FIRST]["r1"] <= 1
        assert phase is CONNECT or asked[FIRST]["r1"] == 1
        if not fault.is_silent or name == "hung":
            await until_quiet(entry, grid)
        assert entry.door.traffic.in_flight == 0
        again = await entry.connect()
        assert (await ask(again, shape, "r2")).status == 200


@pytest.mark.parametrize("phase", [HEADERS, FIRST_TOKEN, MIDDLE, LAST_TOKEN])
@pytest.mark.parametrize("shape", [STREAM, WHOLE])
async def test_a_slow_host_is_not_a_dead_one(phase: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it lives for much longer than silence would be endured, so nobody cuts it or asks elsewhere."""
    in_no_time(monkeypatch)
    slow, other = Engine(phase=phase, pause_s=2 * SILENCE_S), Engine()
    async with a_grid(slow.answer, other.answer) as (entry, grid):
        slow.grid = grid
        outcome = await ask(await entry.connect(), shape, "r1")

        assert (outcome.status, outcome.text, outcome.is_whole) == (200, "".join(WORDS), True)
        assert outcome.node == FIRST
        assert grid.asked == [FIRST]
        assert deaths(entry) == []
        await until_quiet(entry, grid)


@pytest.mark.parametrize("name", FAULTS)
async def test_openais_sdk_gets_the_whole_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stream that lost its host in the middle, without an exception."""
    in_no_time(monkeypatch)
    fault, failing, healthy = FAULTS[name], Engine(), Engine()
    async with a_grid(failing.answer, healthy.answer) as (entry, grid):
        failing.grid, failing.phase, failing.fault = grid, MIDDLE, fault.later
        texts: list[str] = []
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{entry.port}/v1", api_key="x", max_retries=0) as sdk:
            stream = await sdk.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "x"}], stream=True
            )
            raised: list[Any] = []
            try:
                async for piece in stream:
                    texts.extend(choice.delta.content or "" for choice in piece.choices)
            except APIError as error:
                raised.append(error.code)
        failing.release.set()
        grid.mend(FIRST)

    assert (raised, "".join(texts)) == ([], "".join(WORDS))


@pytest.mark.parametrize("how", ["busy", "draining", "429 Too Many Requests", "503 Service Unavailable"])
async def test_overload_is_never_taken_for_death(how: str) -> None:
    """A host that has too much to do is asked again with the next request, and nobody looks whether it lives."""

    async def overloaded(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole({"error": {"message": "no", "type": "overloaded"}}, how))

    async with a_grid(overloaded, Engine().answer) as (entry, grid):
        if how in {"busy", "draining"}:
            grid.refusals[FIRST] = TunnelRefusal(code=how, retry_after_s=1.0)
        outcomes = [await ask(await entry.connect(), WHOLE, f"r{number}") for number in range(6)]

        assert [(outcome.status, outcome.node) for outcome in outcomes] == [(200, SECOND)] * 6
        assert grid.asked == [FIRST, SECOND] * 6
        assert deaths(entry) == []


def stands_still(grid: Grid, node: NodeId) -> None:
    """Let the watch over a host's engine say that its counters have not moved since long ago."""
    grid.houses[node].door.moved(TINY, 1.0)


@pytest.mark.parametrize("shape", [STREAM, WHOLE])
@pytest.mark.parametrize("phase", [HEADERS, FIRST_TOKEN])
async def test_an_engine_that_stands_still_is_left_before_the_first_byte(
    phase: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F6: its host says that it lives and that nothing moves; another one answers, and nobody is called dead."""
    in_no_time(monkeypatch)
    monkeypatch.setattr(limits, "FIRST_BYTE_S", FIRST_BYTE_S)
    still = Engine(phase=phase, fault=lambda grid: stands_still(grid, FIRST))
    async with a_grid(still.answer, Engine().answer) as (entry, grid):
        still.grid = grid
        outcome = await ask(await entry.connect(), shape, "r1")
        await until(lambda: grid.houses[FIRST].door.in_flight(TINY) == 0, "its slot being free")

        assert (outcome.status, outcome.text, outcome.is_whole, outcome.node) == (200, "".join(WORDS), True, SECOND)
        assert FIRST_BYTE_S <= outcome.took_s < FIRST_BYTE_S + BUSY_MACHINE_S
        assert grid.asked == [FIRST, SECOND]
        assert deaths(entry) == []


async def test_a_stream_that_has_heard_comments_leaves_an_engine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What went out so far is no byte of an answer."""
    in_no_time(monkeypatch)
    monkeypatch.setattr(limits, "FIRST_BYTE_S", FIRST_BYTE_S)
    still = Engine(phase=HEADERS, fault=lambda grid: stands_still(grid, FIRST))
    async with a_grid(still.answer, Engine().answer, comment_s=FIRST_BYTE_S / 4) as (entry, grid):
        still.grid = grid
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=True)))
        reply = await client.receive()

        assert b": waiting: computing" in reply.body
        assert reply.body.count(b"data: [DONE]") == 1
        assert b'"error"' not in reply.body
        assert grid.asked == [FIRST, SECOND]


async def test_an_engine_that_used_to_answer_at_once_is_left_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of a host counts, not the time for one of which nothing is."""
    in_no_time(monkeypatch)
    monkeypatch.setattr(limits, "FIRST_BYTE_LEAST_S", FIRST_BYTE_S)
    monkeypatch.setattr(limits, "FIRST_BYTE_S", 600.0)
    asked = a_post(a_chat(stream=True), CHAT, "X-Session-ID: one")
    async with a_grid(Engine().answer, Engine().answer) as (entry, grid):
        quick = await entry.ask(asked)
        node = NodeId(quick.headers["x-mesh-node"])

        async def still(*_: object) -> None:
            stands_still(grid, node)
            await asyncio.Event().wait()

        grid.houses[node].engine.answer = still
        async with asyncio.timeout(60):
            left = await entry.ask(asked)

        assert quick.body.count(b"data: [DONE]") == left.body.count(b"data: [DONE]") == 1
        assert grid.asked == [node, node, SECOND if node == FIRST else FIRST]


@pytest.mark.parametrize("others", [0, 1])
async def test_a_request_leaves_an_engine_that_stands_still_once_and_only_for_another(
    others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all are like that the model may be slow: the last one that is asked has all the time that it needs."""
    in_no_time(monkeypatch)
    monkeypatch.setattr(limits, "FIRST_BYTE_S", FIRST_BYTE_S)
    engines = [Engine(phase=HEADERS, pause_s=3 * FIRST_BYTE_S, node=node) for node in (FIRST, SECOND)[: others + 1]]
    async with a_grid(*(engine.answer for engine in engines)) as (entry, grid):
        for engine in engines:
            engine.grid = grid
            stands_still(grid, engine.node)
        outcome = await ask(await entry.connect(), WHOLE, "r1")

        assert (outcome.status, outcome.text, outcome.node) == (200, "".join(WORDS), engines[-1].node)
        assert grid.asked == [engine.node for engine in engines]
        assert deaths(entry) == []
