"""Copies of requests: made of what was answered, compared with it, and nobody's burden."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshllm.core.events import ModelWanted
from meshllm.core.ids import ModelId
from meshllm.core.quota_config import NO_QUOTAS
from meshllm.core.routing.priorities import Priority
from meshllm.core.routing_config import DEFAULT, Shadow
from meshllm.core.view import LocalModel
from meshllm.wire.tunnel_frames import TunnelRefusal
from tests.proxy.builders import (
    NODE,
    STREAM_HEAD,
    House,
    Request,
    a_house,
    a_model,
    answer_ok,
    chunk,
    event,
    until,
    whole,
)
from tests.proxy.tunnels import FIRST, a_mesh, a_replica, a_served_model

USAGE = {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
COPIED = replace(DEFAULT, shadow=(Shadow(of="ONE", to="two", sample=1.0),))


def both(socket: Path, **changes: Any) -> tuple[LocalModel, ...]:
    """Return two ready models."""
    return a_model("one", socket=socket, key="one"), a_model("two", socket=socket, key="two", **changes)


def shown(house: House) -> dict[str, Any]:
    """Return the figures of the one pair."""
    document: Any = house.door.memory.stats.shown()
    [pair] = document["shadow"]
    return dict(pair)


def ended(house: House, copied: int, dropped: int = 0) -> Callable[[], bool]:
    """Return whether so many copies are over."""
    stats = house.door.memory.stats.shadows
    return lambda: [(one["copied"], one["dropped"]) for one in stats.shown()] == [(copied, dropped)]


async def telling(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer with the usage; the model that is tried makes no more than half."""
    usage = USAGE if request.json["model"] == "one" else USAGE | {"completion_tokens": 1}
    if request.json.get("stream"):
        writer.write(
            STREAM_HEAD + event(0) + chunk(b'data: {"usage":%b}\n\n' % json.dumps(usage).encode()) + b"0\r\n\r\n"
        )
    else:
        writer.write(whole({"model": request.json["model"], "usage": usage}))


@pytest.mark.rows("EXP-5")
async def test_what_is_answered_is_copied_and_both_answers_are_compared() -> None:
    """The client sees its own answer alone; streams and whole answers are told apart on neither side."""
    async with a_house(telling, models=both, routing=COPIED) as house:
        replies = [await house.chat(model="one", stream=stream) for stream in (False, True, False)]
        await house.chat(model="two")
        await until(ended(house, 3), "the end of all copies")
        pair = shown(house)
        asked = [(request.json["model"], request.headers["x-request-id"]) for request in house.engine.requests]
        assert house.door.planner.open == 0
        assert all(traffic.in_flight == 0 for traffic in house.door.traffic.models.values())

    assert [reply.status for reply in replies] == [200] * 3
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert [asked_id for model, asked_id in asked if model == "one"] == ids
    assert [asked_id for model, asked_id in asked if model == "two"][:3] == [f"{one}-copy" for one in ids]
    assert (pair["of"], pair["to"]) == ("ONE", "two")
    assert (pair["original"]["requests"], pair["copy"]["requests"]) == (3, 3)
    assert (pair["original"]["completion_tokens"], pair["copy"]["completion_tokens"]) == (9, 3)
    assert (pair["diff"]["completion_tokens"], pair["diff"]["error_rate"]) == (-6, 0.0)
    assert pair["copy"]["avg_first_byte_ms"] > 0
    assert pair["diff"]["avg_first_byte_ms"] is not None


async def test_without_a_copy_to_make_a_request_takes_the_straight_lane() -> None:
    """And leaves it when one is configured."""
    async with a_house(models=both) as house:
        await house.chat(model="one")
        before = [model for model in ("one", "two") if (model, b"/v1/chat/completions") in house.door.routes.known]
    async with a_house(models=both, routing=COPIED) as house:
        for model in ("one", "two"):
            await house.chat(model=model)
        await until(ended(house, 1), "the copy")
        with_copies = [model for model in ("one", "two") if (model, b"/v1/chat/completions") in house.door.routes.known]

    assert (before, with_copies) == (["one"], ["two"])


@pytest.mark.rows("EXP-5")
async def test_no_quota_lets_a_copy_in_or_hears_of_it() -> None:
    """The model that is tried may be used up: what it may be used for is for its own clients."""
    async with a_house(telling, models=both, routing=COPIED) as house:
        quotas = NO_QUOTAS.changed(ModelId("two"), {"hourly_token_limit": 1_000_000}, NODE)
        house.views.newest = replace(house.views.newest, quotas=quotas, epoch=2)
        await house.chat(model="one")
        await until(ended(house, 1), "the copy")
        report: Any = house.door.metering.report(ModelId("two"))
        used = [window["used"] for window in report["windows"].values()]
        await house.chat(model="two")
        after: Any = house.door.metering.report(ModelId("two"))

    assert used
    assert not any(used)
    assert any(window["used"] for window in after["windows"].values())


@pytest.mark.rows("EXP-5")
async def test_a_model_that_is_busy_or_not_there_takes_no_copies() -> None:
    """Nothing waits, and nothing is loaded for it."""
    release = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.json["model"] == "two":
            await release.wait()
        await answer_ok(request, writer)

    async with a_house(answer, models=lambda socket: both(socket, slots=2), routing=COPIED) as house:
        async with asyncio.TaskGroup() as own:
            for _ in range(2):
                own.create_task(house.chat(model="two"))
            await until(lambda: house.door.in_flight(ModelId("two")) == 2, "two requests of its own")
            await house.chat(model="one")
            release.set()
        busy = shown(house)
        house.views.publish(a_model("one", socket=house.engine.socket))
        house.views.newest = replace(house.views.newest, routing=replace(house.views.newest.routing, node=COPIED))
        status = (await house.chat(model="one")).status
        gone = shown(house)

    assert (status, busy["dropped"], gone["dropped"], gone["copied"]) == (200, 1, 2, 0)
    assert not any(isinstance(event, ModelWanted) for event in house.events)


async def test_a_copy_whose_engine_breaks_off_is_an_error_of_the_copy_alone() -> None:
    """And one that hangs ends with its node."""
    hanging = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.json["model"] == "one":
            await answer_ok(request, writer)
        elif hanging.is_set():
            await asyncio.Event().wait()
        else:
            writer.write(STREAM_HEAD + event(0))
            await writer.drain()
            writer.transport.abort()

    async with a_house(answer, models=both, routing=COPIED) as house:
        first = await house.chat(model="one", stream=True)
        await until(ended(house, 1), "the copy that broke off")
        pair = shown(house)
        hanging.set()
        second = await house.chat(model="one")
        await until(lambda: house.door.in_flight(ModelId("two")) == 1, "the copy that hangs")
    traffic = house.door.traffic.models[ModelId("two")]

    assert (first.status, second.status, traffic.in_flight) == (200, 200, 0)
    assert (pair["original"]["errors"], pair["copy"]["errors"]) == (0, 1)


@pytest.mark.rows("EXP-5")
async def test_a_copy_for_another_node_is_of_the_lowest_priority_and_dropped_where_it_is_refused() -> None:
    """Nobody makes room for one; and a node whose model has quotas gets none, since it would charge them."""
    replicas = (a_replica(FIRST, model="two"),)
    async with a_mesh(
        answer_ok, replicas=replicas, routing=COPIED, far_models=lambda socket: (a_served_model(socket, name="two"),),
        models=lambda socket: (a_served_model(socket, name="one"),),
    ) as (entry, mesh):  # fmt: skip
        await entry.chat(model="one")
        await until(ended(entry, 1), "the copy at another node")
        [(peer, head)] = mesh.heads
        mesh.refusals[FIRST] = TunnelRefusal(code="busy", message="no")
        await entry.chat(model="one")
        await until(ended(entry, 1, dropped=1), "the copy that is refused")
        quotas = NO_QUOTAS.changed(ModelId("two"), {"hourly_token_limit": 1_000_000}, NODE)
        entry.views.newest = replace(entry.views.newest, quotas=quotas, epoch=entry.views.newest.epoch + 1)
        await entry.chat(model="one")

    assert (peer, head.model, head.priority) == (FIRST, "two", Priority.LOW)
    assert (shown(entry)["copied"], shown(entry)["dropped"], len(mesh.heads)) == (1, 2, 2)
