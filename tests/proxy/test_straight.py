"""The straight lane is a shortcut and nothing else: with it and without it, everybody sees the same bytes."""

import asyncio
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshllm.proxy import framing, pool
from meshllm.proxy.client import ClientConnection
from meshllm.proxy.forward import Exchange
from meshllm.proxy.front_door import FrontDoor, FrontDoorConfig
from meshllm.proxy.intake import SANE_REQUEST_ID
from meshllm.proxy.pool import EngineConnection
from meshllm.proxy.straight import Phase, StraightLane, request_ids
from tests.proxy.builders import (
    CHAT,
    NODE,
    STREAM_END,
    STREAM_HEAD,
    TransportDouble,
    ViewsDouble,
    a_chat,
    a_get,
    a_model,
    a_post,
    a_view,
    chunk,
    event,
    whole,
)


class Door(FrontDoor):
    """A front door that only writes down what would become a task."""

    def __init__(self) -> None:
        self.views = ViewsDouble(a_view(*MODELS, aliases={"short": "tiny"}))
        super().__init__(
            FrontDoorConfig(host="127.0.0.1", port=0, node=NODE, api_key="k"), self.views, lambda _: None,
            Path("/nowhere"), random.Random(1),
        )  # fmt: skip
        self.pursued: list[object] = []
        self.request_ids: Iterator[bytes] = map(b"id-%d".__mod__, count())

    def _pursue(self, exchange: Exchange) -> None:
        asked = exchange.asked_model, exchange.is_stream, exchange.body
        self.pursued.append((exchange.request_id, *asked, exchange.attempts, exchange.failures))


MODELS = (a_model(socket="/engine", slots=2, context_tokens=64), a_model("other", socket="/other"))


class Scene:
    """A client, an engine with two connections, and a front door between them; no sockets, no tasks."""

    def __init__(self) -> None:
        self.door = Door()
        self.client = ClientConnection(self.door)
        self.transport = TransportDouble()
        self.client.connection_made(self.transport)  # type: ignore[arg-type]
        door = self.door.heads("127.0.0.1")
        assert self.client._heads is door
        self.client.data_received(a_post(a_chat(model="tiny"), CHAT, KEY))  # finds the route, has no connection
        exchange = self.client.exchange
        assert exchange is not None
        self.pool = exchange.target.pool
        self.engines: list[tuple[EngineConnection, TransportDouble]] = []
        for _ in range(2):
            connection, transport = EngineConnection(self.pool), TransportDouble()
            connection.connection_made(transport)  # type: ignore[arg-type]
            self.engines.append((connection, transport))
        self.pool.keep(self.engines[0][0])
        exchange.begin(self.engines[1][0])

    def step(self, what: str, data: bytes) -> None:
        """Let something happen, if it can."""
        if what == "leave":
            self.door._begin_leaving()
        elif what == "crowd":
            self.pool.traffic.in_flight += 100
        elif what == "view":
            self.door.views.publish(*(MODELS if data else MODELS[1:]), aliases={"short": "tiny"})
        elif what.startswith("engine"):
            self._engine_step(what, data)
        elif self.client._transport is not None:
            self._client_step(what, data)

    def _engine_step(self, what: str, data: bytes) -> None:
        for connection, transport in self.engines:
            if connection.relay is not None and connection.transport is not None:
                if what == "engine lost" or not transport.is_open:
                    connection.connection_lost(None)
                elif transport.is_read:
                    connection.data_received(data)
                return

    def _client_step(self, what: str, data: bytes) -> None:
        client = self.client
        if what == "client" and self.transport.is_open and self.transport.is_read and not client._has_eof:
            client.data_received(data)
        elif what == "eof":
            if not client.eof_received():
                self.transport.close()
        elif what == "lost" or not self.transport.is_open:
            client.connection_lost(None)
        elif what == "pause" and not client.is_paused:
            client.pause_writing()
        elif what == "resume" and client.is_paused:
            client.resume_writing()

    def seen(self) -> object:
        """Return everything that anybody outside can see."""
        traffic = self.door.traffic
        return (
            self.transport.done, [transport.done for _, transport in self.engines], self.door.pursued,
            traffic.counters(), traffic.in_flight, traffic.lost, traffic.waiting,
            [self.engines.index(pair) for pair in self.engines if pair[0] in self.pool.idle],
            [(model.finished_since + model.answered_since, model.failed_since) for model in traffic.models.values()],
            self.client._phase in {Phase.HEAD, Phase.BODY, Phase.STRAIGHT, Phase.BUSY},
        )  # fmt: skip


KEY = "Authorization: Bearer k"
PLAIN = a_post(a_chat(), CHAT, KEY)
NAMED = a_post(a_chat(model="tiny", stream=False, temperature=0.5), CHAT, KEY, "X-Request-ID: mine")
REQUESTS = [
    PLAIN, PLAIN, PLAIN, NAMED, NAMED,
    a_post(a_chat(), "/chat/completions", KEY), a_post(a_chat(), "/apply-template", KEY), a_post(a_chat(), CHAT),
    a_post(a_chat(stream=True), CHAT, KEY), a_post(a_chat(stop=["a"]), CHAT, KEY), a_post(a_chat(n_keep=1), CHAT, KEY),
    a_post(a_chat(model="short"), CHAT, KEY), a_post(a_chat(model=None), CHAT, KEY),
    a_post(a_chat(model="nobody"), CHAT, KEY), a_post(a_chat(model="other"), CHAT, KEY),
    a_post(a_chat(max_tokens=0), CHAT, KEY), a_post(b'{"model":"tiny",' + b'"model":"tiny"}', CHAT, KEY),
    a_post(a_chat(messages=[{"role": "user", "content": "word " * 400}]), CHAT, KEY), a_post(b"{", CHAT, KEY),
    a_post(a_chat(), CHAT, KEY, "Origin: http://localhost:1"), a_post(a_chat(), CHAT, KEY, host="evil.example"),
    a_post(a_chat(), CHAT, KEY, "Connection: close"), PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    a_post({"model": "tiny", "prompt": "x"}, "/v1/completions", KEY), a_get("/v1/models", KEY),
    PLAIN + PLAIN, PLAIN[:100], PLAIN[100:], b"\r\n" + PLAIN, b"GET /\r\n\r\n",
]  # fmt: skip
OK = whole({"model": "tiny"})
ERROR = chunk(b'data: {"error":{"message":"m","code":500}}\n\n')
ANSWERS = [
    OK, OK, OK, whole({"model": "tiny", "more": "x" * 300}), whole({}, Connection="close"),
    whole({"error": {"message": "m", "type": "t"}}, "500 Oops"), whole({"error": {"message": "m"}}, "400 Bad"),
    OK[:40], OK[40:], OK[:-1], OK[-1:], STREAM_HEAD, STREAM_HEAD + event(1), event(2), ERROR, STREAM_HEAD + STREAM_END,
    STREAM_END, OK + b"surplus", b"HTTP/1.1 103 Early\r\n\r\n" + OK, b"HTTP/1.1 204 No Content\r\n\r\n",
    b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", whole(b"y" * 300_000),
]  # fmt: skip
STEP = st.one_of(
    st.tuples(st.just("client"), st.sampled_from(REQUESTS)),
    st.tuples(st.just("engine"), st.sampled_from(ANSWERS)),
    st.tuples(st.sampled_from(["eof", "lost", "pause", "resume", "engine lost", "leave", "crowd"]), st.just(b"")),
    st.tuples(st.just("view"), st.sampled_from([b"", b"same"])),
)
PAIR = st.tuples(
    st.tuples(st.just("client"), st.sampled_from(REQUESTS)), st.tuples(st.just("engine"), st.sampled_from(ANSWERS))
)
STEPS = st.lists(PAIR | st.tuples(STEP), max_size=8).map(lambda parts: [step for part in parts for step in part])
WARM = [("engine", OK), ("client", PLAIN), ("engine", OK)]


def played(steps: list[tuple[str, bytes]], *, is_straight: bool) -> tuple[object, int]:
    """Return what is seen after some steps, and how many requests took the lane."""
    taken = 0
    go = StraightLane._go

    def counted(*arguments: Any) -> bool:
        nonlocal taken
        is_taken = is_straight and go(*arguments)
        taken += is_taken
        return is_taken

    async def play() -> object:
        scene = Scene()
        for what, data in steps:
            scene.step(what, data)
        return scene.seen()

    forgotten = patch.dict(pool._heads, clear=True), patch.dict(framing._sizes, clear=True)
    with patch.object(StraightLane, "_go", counted), forgotten[0], forgotten[1]:
        return asyncio.run(play()), taken


STREAM = a_post(a_chat(stream=True), CHAT, KEY)
BEGUN = [("client", STREAM), ("engine", STREAM_HEAD + event(1)), ("engine", event(2))]


@settings(max_examples=300, deadline=None)
@given(STEPS)
@example(
    [*BEGUN, ("engine", STREAM_END), ("client", STREAM), ("engine", STREAM_HEAD), ("engine", event(1) + STREAM_END)]
)
@example([*BEGUN, ("engine", ERROR + STREAM_END)])
@example([*BEGUN, ("engine lost", b"")])
@example([*BEGUN, ("engine", b"nonsense")])
@example([*BEGUN, ("pause", b""), ("engine", event(3)), ("resume", b""), ("engine", STREAM_END)])
@example([*BEGUN, ("client", PLAIN), ("engine", STREAM_END), ("engine", OK)])
@example([*BEGUN, ("leave", b""), ("engine", STREAM_END)])
@example([*BEGUN, ("eof", b""), ("engine", STREAM_END)])
@example([("client", STREAM), ("engine", STREAM_HEAD), ("lost", b"")])
@example([("client", STREAM), ("engine", STREAM_HEAD), ("engine lost", b"")])
@example([("client", STREAM.replace(b"HTTP/1.1", b"HTTP/1.0")), *BEGUN[1:], ("engine", STREAM_END)])
@example([("client", a_post(a_chat(stream=True), CHAT, KEY, "X-Mesh-Resume: off")), *BEGUN[1:], ("engine lost", b"")])
@example([("client", PLAIN), ("engine", whole({}, "500 Oops"))])
@example([("client", PLAIN), ("engine lost", b""), ("client", PLAIN)])
@example([("client", PLAIN), ("engine", STREAM_HEAD), ("engine", event(1)), ("lost", b"")])
@example([("client", PLAIN), ("engine", OK[:40]), ("engine", OK[40:] + b"surplus")])
@example([("client", PLAIN), ("client", PLAIN), ("engine", OK), ("engine", OK)])
@example([("client", NAMED), ("leave", b""), ("engine", OK)])
@example([("client", PLAIN), ("engine", OK), ("leave", b""), ("client", PLAIN), ("engine", OK)])
@example([("client", PLAIN), ("engine", OK), ("client", PLAIN[:-1]), ("client", PLAIN[-1:]), ("engine", OK)])
@example([("client", PLAIN), ("engine", OK), ("client", PLAIN), ("engine", OK[:-2]), ("engine", OK[-2:])])
@example([("client", PLAIN), ("engine", OK), ("client", PLAIN + b"x"), ("engine", OK + b"x")])
@example([("client", PLAIN), ("engine", OK), ("view", b""), ("client", PLAIN), ("view", b"same"), ("client", PLAIN)])
@example([("client", PLAIN), ("engine", OK), ("client", a_get("/v1/models", KEY)[:-4]), ("client", b"\r\n\r\n")])
@example([("client", a_get("/v1/models", KEY)), ("client", a_get("/v1/models", KEY)[:-2]), ("client", b"\r\n")])
def test_with_the_lane_and_without_it_all_is_the_same(steps: list[tuple[str, bytes]]) -> None:
    """Whatever clients and engines do, the lane changes nothing but the time it takes."""
    straight, _ = played([*WARM, *steps], is_straight=True)
    general, _ = played([*WARM, *steps], is_straight=False)

    assert straight == general


def test_ids_are_never_the_same() -> None:
    """They begin with what is this node's own, and a number goes on where two digits do not do."""
    ids = request_ids(b"req-1a-")

    first = [next(ids) for _ in range(70_000)]

    assert len(set(first)) == len(first)
    assert first[:2] + first[255:257] + first[-1:] == [
        b"req-1a-00", b"req-1a-01", b"req-1a-ff", b"req-1a-100", b"req-1a-1116f",
    ]  # fmt: skip
    assert all(SANE_REQUEST_ID.fullmatch(one.decode()) for one in first[::1000])


@pytest.mark.parametrize("request_bytes", [PLAIN, NAMED, a_post(a_chat(), "/chat/completions", KEY)])
def test_plain_requests_take_the_lane(request_bytes: bytes) -> None:
    """Also with a head that was never seen: only the body, the route and the engine's room matter."""
    _, taken = played([*WARM, ("client", request_bytes), ("engine", OK), ("client", request_bytes)], is_straight=True)

    assert taken >= 2


async def test_a_stream_stays_on_the_lane_to_its_end() -> None:
    """No exchange is made for it, and what came of it is there where another engine has to go on."""
    scene = Scene()
    for what, data in [*WARM, *BEGUN]:
        scene.step(what, data)
    kept, is_on_lane = scene.client._journal, scene.client._phase is Phase.STRAIGHT

    scene.step("engine", STREAM_END)

    assert is_on_lane
    assert kept is not None
    assert (kept.story().has_opened, kept.story().is_done) == (True, True)
    assert (scene.client._journal, scene.client._phase) == (None, Phase.IDLE)


async def test_the_house_alone_says_whether_a_stream_is_kept() -> None:
    """Whatever it says of streams of the general path holds on the lane: a journal is begun in one place."""
    scene = Scene()
    with patch.object(FrontDoor, "journal", return_value=None) as asked:
        for what, data in [*WARM, *BEGUN]:
            scene.step(what, data)

    intake, seen, target = asked.call_args.args
    assert (intake.inference.path, seen.may_resume, target.model) == (b"/v1/chat/completions", True, "tiny")
    assert (scene.client._journal, scene.client._phase) == (None, Phase.STRAIGHT)


async def test_nothing_of_a_request_is_kept_after_its_answer() -> None:
    """Hundreds of connections rest for minutes; their last bodies would be megabytes."""
    scene = Scene()
    for what, data in WARM:
        scene.step(what, data)

    assert scene.client._phase is Phase.IDLE
    assert scene.client._underway is None
    assert scene.client.exchange is None
