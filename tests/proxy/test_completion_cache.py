"""Kept completions at the front door: what is told again instead of asking an engine, and what never is."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from meshllm.core.cache_config import CacheConfig
from meshllm.core.cache_use import CachePicture
from meshllm.core.engines import EngineBuild, EngineOptions, EnginePlan, MemoryNeed
from meshllm.core.limits import MIB
from meshllm.core.view import LocalModel
from tests.core.builders import a_spec
from tests.proxy.builders import (
    STREAM_HEAD,
    Answer,
    House,
    Reply,
    Request,
    a_chat,
    a_house,
    a_model,
    a_post,
    chunk,
    whole,
)
from tests.proxy.tunnels import FIRST, SECOND, a_mesh, a_replica

BUILD = EngineBuild(kind="fake", version="b1", uses_gpu=False)
ON = CachePicture(config=CacheConfig(completions=True))
OFF = CachePicture()
END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def a_planned_model(socket: Path, digest: str = "sha256:" + "1" * 64, **more: Any) -> LocalModel:
    """Return a ready model of which is known how it runs."""
    spec = replace(a_spec("tiny"), digest=digest)
    plan = EnginePlan(
        model=spec, context_tokens=2048, slots=2, gpu_layers=0, threads=1, options=EngineOptions(),
        memory=MemoryNeed(weights_bytes=1, kv_bytes=1, overhead_bytes=1),
    )  # fmt: skip
    return a_model("tiny", socket=socket, spec=spec, plan=plan, **more)


class Counting:
    """Answers as an engine does, another text each time."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer."""
        asked = request.json
        self.asked.append(asked)
        text = f"answer {len(self.asked)}"
        if asked.get("stream"):
            writer.write(STREAM_HEAD + an_event(text) + an_event("", "stop") + END)
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            writer.write(whole({"id": "1", "model": asked["model"], "choices": [choice]}))
        await writer.drain()


def an_event(text: str, finish: str | None = None) -> bytes:
    """Return an event of a chat's stream, as a chunk."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    document = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "tiny", "choices": [choice]}
    return chunk(b"data: %b\n\n" % json.dumps(document).encode())


@asynccontextmanager
async def a_keeping_house(answer: Answer, caches: CachePicture = ON) -> AsyncIterator[House]:
    """Open a front door that keeps completions."""
    async with a_house(answer, models=lambda socket: (a_planned_model(socket),)) as house:
        show(house, caches)
        yield house


def show(house: House, caches: CachePicture = ON, *, build: EngineBuild = BUILD, **more: Any) -> None:
    """Let the front door see another view."""
    house.views.publish(a_planned_model(house.engine.socket, **more), caches=caches, engine_build=build)


def text_of(reply: Reply) -> str:
    """Return what an answer says."""
    text: str = reply.json["choices"][0]["message"]["content"]
    return text


def events_of(reply: Reply) -> list[dict[str, Any]]:
    """Return the events of a stream but its last."""
    return [json.loads(event.removeprefix(b"data: ")) for event in reply.body.split(b"\n\n")[:-2]]


@pytest.mark.rows("CAC-8")
async def test_the_same_question_is_answered_from_memory() -> None:
    """Whatever its fields' order; the answer says so, and names model and node as others do."""
    engine = Counting()
    async with a_keeping_house(engine) as house:
        first = await house.chat(temperature=0, max_tokens=5)
        swapped = dict(reversed(a_chat(temperature=0, max_tokens=5).items()))
        second = await house.ask(a_post(swapped, "/v1/chat/completions", "X-Request-ID: mine"))
        counters = house.door.counters()

    assert len(engine.asked) == 1
    assert second.json == first.json | {"cached": True}
    assert (second.headers["x-cache"], second.headers["x-request-id"]) == ("hit", "mine")
    assert (second.headers["x-mesh-model"], second.headers["x-mesh-node"]) == ("tiny", first.headers["x-mesh-node"])
    assert "x-cache" not in first.headers
    assert "cached" not in first.json
    assert (counters["completion_cache_hits"], counters["completion_cache_misses"]) == (1, 1)


async def test_a_connection_goes_on_after_an_answer_from_memory() -> None:
    """Also where requests come one behind the other."""
    engine = Counting()
    async with a_keeping_house(engine) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(seed=1)) * 3 + a_post(a_chat(seed=2)))
        replies = [await client.receive() for _ in range(4)]

    assert [text_of(reply) for reply in replies] == ["answer 1"] * 3 + ["answer 2"]
    assert len(engine.asked) == 2


@pytest.mark.rows("T28")
@pytest.mark.parametrize("fields", [{}, {"temperature": 0.7}, {"temperature": 1, "seed": -1}, {"top_k": 1}])
async def test_a_sampled_request_without_a_seed_always_reaches_an_engine(fields: dict[str, Any]) -> None:
    """Whatever was asked before."""
    engine = Counting()
    async with a_keeping_house(engine) as house:
        replies = [await house.chat(**fields) for _ in range(3)]

    assert [text_of(reply) for reply in replies] == ["answer 1", "answer 2", "answer 3"]
    assert all("x-cache" not in reply.headers for reply in replies)


@pytest.mark.rows("T28", "CAC-10")
async def test_another_file_or_build_misses() -> None:
    """What the one said is nothing that the other would say; the first is found again when it is back."""
    engine = Counting()
    async with a_keeping_house(engine) as house:
        first = await house.chat(temperature=0)
        show(house, digest="sha256:" + "2" * 64)
        other_file = await house.chat(temperature=0)
        show(house, build=replace(BUILD, version="b2"))
        other_build = await house.chat(temperature=0)
        show(house)
        again = await house.chat(temperature=0)

    found = [text_of(reply) for reply in (first, other_file, other_build, again)]
    assert found == ["answer 1", "answer 2", "answer 3", "answer 1"]


@pytest.mark.rows("CAC-8")
async def test_a_client_may_have_its_answer_computed() -> None:
    """By a field, which no engine sees, or by a header; neither is kept for others."""
    engine = Counting()
    async with a_keeping_house(engine) as house:
        bodies = [
            a_post(a_chat(temperature=0, cache=False)),
            a_post(a_chat(temperature=0), "/v1/chat/completions", "Cache-Control: max-age=0, no-store"),
            a_post(a_chat(temperature=0), "/v1/chat/completions", "Cache-Control: no-cache"),
            a_post(a_chat(temperature=0, cache=True)),
            a_post(a_chat(temperature=0)),
        ]
        replies = [await house.ask(body) for body in bodies]
        wrong = await house.ask(a_post(a_chat(cache="no")))

    assert [text_of(reply) for reply in replies] == ["answer 1", "answer 2", "answer 3", "answer 4", "answer 4"]
    assert not any("cache" in asked for asked in engine.asked)
    assert (wrong.status, wrong.error["param"]) == (400, "cache")


@pytest.mark.rows("CAC-8")
async def test_nothing_is_kept_unless_somebody_asks_for_it() -> None:
    """And what was kept is forgotten as soon as nobody does; the straight lane is taken as ever."""
    engine = Counting()
    async with a_keeping_house(engine, OFF) as house:
        for _ in range(3):
            await house.chat(temperature=0)
        lane_before = list(house.door.traffic.on_lane())
        show(house)
        await house.chat(temperature=0)
        await house.chat(temperature=0)
        asked_when_on, kept_when_on = len(engine.asked), len(house.door.completions.memory)
        show(house, OFF)
        await house.chat(temperature=0)
        show(house)
        last = await house.chat(temperature=0)

    assert (asked_when_on, kept_when_on) == (4, 1)
    assert lane_before == [("tiny", 2)]
    assert text_of(last) == "answer 6"


async def test_a_stream_is_told_again_as_a_stream() -> None:
    """With its events and its end; the openai client reads it, and a whole answer is another one."""
    engine = Counting()
    async with a_keeping_house(engine) as house:
        told = [await house.chat(temperature=0, stream=True) for _ in range(2)]
        whole_one = await house.chat(temperature=0)
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{house.port}/v1", api_key="x") as client:
            stream = await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hi"}], temperature=0, stream=True
            )
            text = "".join([event.choices[0].delta.content or "" async for event in stream])

    assert [reply.headers.get("x-cache") for reply in told] == [None, "hit"]
    assert told[1].headers["content-type"] == "text/event-stream"
    assert events_of(told[1]) == [event | {"cached": True} for event in events_of(told[0])]
    assert all(reply.body.endswith(b"}\n\ndata: [DONE]\n\n") for reply in told)
    assert text == "answer 1"
    assert text_of(whole_one) == "answer 2"


async def broken(request: Request, writer: asyncio.StreamWriter) -> None:
    """Break off in the middle of a stream, or answer with an error."""
    if request.json.get("stream"):
        writer.write(STREAM_HEAD + an_event("half"))
        await writer.drain()
        writer.close()
    else:
        writer.write(whole({"error": {"message": "no", "code": 500}}, "500 Internal Server Error"))


@pytest.mark.parametrize("is_stream", [True, False])
async def test_answers_that_failed_are_not_kept(*, is_stream: bool) -> None:
    """The next one may be good."""
    async with a_keeping_house(broken) as house:
        await house.chat(temperature=0, stream=is_stream)
        kept = len(house.door.completions.memory)
        engine = house.engine.answer = Counting()
        good = await house.chat(temperature=0, stream=is_stream)

    assert kept == 0
    assert good.status == 200
    assert len(engine.asked) == 1


async def test_an_answer_that_is_too_large_passes_and_is_not_kept() -> None:
    """It takes no more than its share, also while it passes."""

    async def large(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for _ in range(40):
            writer.write(an_event("x" * (MIB // 32)))
            await writer.drain()
        writer.write(an_event("", "stop") + END)
        await writer.drain()

    async with a_keeping_house(large, CachePicture(config=CacheConfig(completions=True, completions_mb=1))) as house:
        reply = await house.chat(temperature=0, stream=True)
        kept = len(house.door.completions.memory)

    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert len(reply.body) > MIB
    assert kept == 0


async def test_a_model_of_which_too_little_is_known_is_asked() -> None:
    """Its file is still being hashed."""
    engine = Counting()
    async with a_keeping_house(engine) as house:
        show(house, digest="")
        replies = [await house.chat(temperature=0) for _ in range(2)]

    assert [text_of(reply) for reply in replies] == ["answer 1", "answer 2"]


@pytest.mark.rows("CAC-10")
async def test_what_one_host_said_is_told_where_another_would_say_the_same() -> None:
    """The entry node asks nobody; a host whose engine or file is another one is asked."""
    first, second = Counting(), Counting()
    async with a_mesh(first, second) as (entry, mesh):

        def hosts(*recipes: str) -> None:
            nodes = zip((FIRST, SECOND), recipes, strict=False)
            replicas = tuple(a_replica(node, recipe=recipe) for node, recipe in nodes)
            entry.views.publish(replicas=replicas, caches=ON)

        hosts("a", "a")
        replies = [await entry.chat(temperature=0) for _ in range(3)]
        hosts("b", "a")
        mixed = await entry.chat(temperature=0)
        hosts("b", "c")
        others = await entry.chat(temperature=0)
        hosts("", "")
        unknown = [await entry.chat(temperature=0) for _ in range(2)]

    assert len({text_of(reply) for reply in replies}) == 1
    assert [reply.headers.get("x-cache") for reply in (*replies, mixed)] == [None, "hit", "hit", "hit"]
    assert [reply.headers.get("x-cache") for reply in (others, *unknown)] == [None, None, None]
    assert len(first.asked) + len(second.asked) == len(mesh.asked) == 4


@pytest.mark.parametrize("is_stream", [True, False])
async def test_an_answer_of_another_form_than_was_asked_for_is_not_kept(*, is_stream: bool) -> None:
    """It passes as it is; whoever asks for a stream is never told anything else from memory."""

    async def contrary(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.json.get("stream"):
            writer.write(whole({"choices": [{"index": 0, "message": {}, "finish_reason": "stop"}]}))
        else:
            writer.write(STREAM_HEAD + an_event("", "stop") + END)
        await writer.drain()

    async with a_keeping_house(contrary) as house:
        reply = await house.chat(temperature=0, stream=is_stream)
        kept = len(house.door.completions.memory)

    assert (reply.status, kept) == (200, 0)
