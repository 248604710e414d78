"""`auto`: which of several ready models a request gets."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from meshllm.core.ids import ModelId
from meshllm.core.policy import ModelPolicy
from meshllm.core.routing_config import DEFAULT, Rollout, RoutingRegister
from meshllm.core.view import LocalModel
from tests.proxy.builders import (
    CHAT,
    STREAM_HEAD,
    House,
    Reply,
    Request,
    a_chat,
    a_house,
    a_model,
    a_post,
    answer_ok,
    chunk,
    event,
    until,
    whole,
)
from tests.proxy.tunnels import FIRST, SECOND, a_mesh, a_replica, a_served_model


def three(socket: Path) -> tuple[LocalModel, ...]:
    """Return three ready models."""
    return tuple(a_model(name, socket=socket, key=name) for name in ("one", "two", "three"))


def configured(house: House, *, policies: dict[str, tuple[str, ...]] | None = None, **config: Any) -> None:
    """Change how the node routes, and what people say of its models."""
    view = house.views.newest
    said = {ModelId(model): ModelPolicy(name=model, tags=tags) for model, tags in (policies or {}).items()}
    house.views.newest = replace(
        view, routing=RoutingRegister(node=replace(DEFAULT, **config)), policies=MappingProxyType(said),
        epoch=view.epoch + 1,
    )  # fmt: skip


async def ask(house: House, *lines: str, **fields: Any) -> Reply:
    """Ask whichever model."""
    return await house.ask(a_post(a_chat(**({"model": "auto"} | fields)), CHAT, *lines))


def is_busy(house: House, model: str) -> bool:
    """Tell whether one request is at a model."""
    return house.door.in_flight(ModelId(model)) == 1


async def models_of(house: House, count: int, *lines: str, **fields: Any) -> Counter[str]:
    """Return which models answered so many requests."""
    return Counter([(await ask(house, *lines, **fields)).headers["x-mesh-model"] for _ in range(count)])


@pytest.mark.rows("ADR-8")
async def test_the_strategy_chooses_the_model_and_the_engine_hears_its_name() -> None:
    """The one with the least to do, at this moment, with what went there from here; then its host."""
    gate = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.json.get("stream"):
            await gate.wait()
        writer.write(whole({"model": request.json["model"]}))

    async with a_house(answer, models=three) as house, asyncio.TaskGroup() as group:
        for model in ("one", "two"):
            group.create_task(ask(house, model=model, stream=True))
            await until(partial(is_busy, house, model), "a model being busy")
        reply = await ask(house)
        [kept] = house.door.memory.decisions.newest()
        gate.set()

    assert (reply.json["model"], reply.headers["x-mesh-model"]) == ("three", "three")
    assert (kept.decision.model, kept.decision.reason, kept.decision.picked) == ("", "least_loaded", "three")


@pytest.mark.rows("AFF-1", "RTE-10")
@pytest.mark.parametrize(
    ("line", "fields"), [("X-Session-ID: user-abc-123", {}), ("X-Nothing: x", {"session_id": "s"})]
)
async def test_a_session_keeps_its_model(line: str, fields: dict[str, Any]) -> None:
    """Whatever it was, and though the others have less to do."""
    async with a_house(models=three) as house:
        first = (await ask(house, line, **fields)).headers["x-mesh-model"]
        house.door.traffic.of(ModelId(first)).in_flight = 1
        session = await models_of(house, 6, line, **fields)
        others = await models_of(house, 6)
        house.door.traffic.of(ModelId(first)).in_flight = 0

    assert session == {first: 6}
    assert first not in others


@pytest.mark.rows("AFF-3")
async def test_a_session_whose_model_is_gone_gets_another_one_and_stays_there() -> None:
    """And that is counted."""
    async with a_house(models=three) as house:
        first = (await ask(house, "X-Session-ID: s")).headers["x-mesh-model"]
        house.views.publish(*(model for model in house.views.newest.local.values() if model.id != first))
        moved = await models_of(house, 4, "X-Session-ID: s")
        rebinds = house.door.memory.stats.shown()["affinity_rebinds"]

    assert len(moved) == 1
    assert first not in moved
    assert rebinds == 1


@pytest.mark.rows("AFF-6", "AFF-8", "T13")
async def test_only_models_that_fit_are_chosen_among_and_preferred_ones_first() -> None:
    """A session does not lead to one that cannot do it."""
    async with a_house(models=three) as house:
        configured(house, policies={"one": ("law",), "two": ("law", "poems")})
        lawyers = await models_of(house, 12, capabilities=["law"])
        poets = await models_of(house, 4, preferred_capabilities=["poems"])
        refused = await ask(house, capabilities=["music"])
        await ask(house, "X-Session-ID: s", capabilities=["poems"])
        stays = await models_of(house, 3, "X-Session-ID: s")
        leaves = (await ask(house, "X-Session-ID: s", min_context=9000)).error

    assert set(lawyers) <= {"one", "two"}
    assert poets == {"two": 4}
    assert stays == {"two": 3}
    assert (refused.status, refused.error["code"]) == (400, "no_capable_model")
    assert leaves["code"] == "context_length_exceeded"


@pytest.mark.rows("EXP-1", "EXP-2", "EXP-8")
async def test_two_models_are_compared_by_share_and_session_and_stand_in_for_each_other() -> None:
    """A named model is never part of it."""
    async with a_house(models=three) as house:
        compared = {"ab_test_enabled": True, "ab_test_model_a": "one", "ab_test_model_b": "TWO", "ab_test_split": 0.7}
        configured(house, **compared)
        plain = await models_of(house, 100)
        by_session = [await models_of(house, 3, f"X-Session-ID: s{number}") for number in range(20)]
        named = await models_of(house, 5, model="three")
        shown: Any = house.door.memory.stats.shown()["ab"]
        house.views.publish(*(model for model in house.views.newest.local.values() if model.id != "one"))
        configured(house, **compared)
        spilled = await models_of(house, 10)
        spills: Any = house.door.memory.stats.shown()["ab"]
        house.views.publish(a_model("three", socket=house.engine.socket))
        configured(house, **compared)
        neither = await models_of(house, 3)

    assert plain.keys() == {"one", "two"}
    assert 68 <= plain["one"] <= 72
    assert all(len(models) == 1 for models in by_session)
    assert {model for models in by_session for model in models} == {"one", "two"}
    assert (named, neither) == ({"three": 5}, {"three": 3})
    assert (shown["a"] + shown["b"], shown["spill"]) == (120, 0)
    assert spilled == {"two": 10}
    assert 5 <= spills["spill"] <= 9


@pytest.mark.rows("EXP-4")
async def test_any_number_of_models_share_requests_by_their_weights() -> None:
    """Those without weight get none, and one that is not there is stood in for."""
    async with a_house(models=three) as house:
        configured(house, ab_test_enabled=True, variants=(("gone", 1.0), ("one", 5.0), ("three", 0.0), ("two", 4.0)))
        found = await models_of(house, 100)
        shown: Any = house.door.memory.stats.shown()["ab"]

    assert found.keys() == {"one", "two"}
    assert 58 <= found["one"] <= 62
    assert 8 <= shown["spill"] <= 12


@pytest.mark.rows("EXP-3")
async def test_what_comes_of_compared_models_is_counted_for_each_of_them() -> None:
    """Errors, times, tokens and what was cached; whole answers and streams, and nothing of other requests."""
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        body = request.json
        if body["model"] == "two":
            writer.write(whole({"error": {"message": "no", "code": 500}}, "500 Oh"))
        elif body.get("stream"):
            last = b'data: {"choices":[],"usage":%b}\n\n' % json.dumps(usage).encode()
            writer.write(STREAM_HEAD + event(0) + chunk(last) + b"0\r\n\r\n")
        else:
            writer.write(whole({"model": body["model"], "usage": usage}))

    async with a_house(answer, models=three) as house:
        configured(house, ab_test_enabled=True, variants=(("one", 1.0), ("two", 1.0)))
        for number in range(20):
            await ask(house, stream=number % 3 == 0)
        await ask(house, model="three")
        compared: Any = house.door.memory.stats.shown()["ab"]
        shown = compared["variants"]
        configured(house, ab_test_enabled=False, variants=(("one", 1.0), ("two", 1.0)))
        await ask(house)
        assert house.door.memory.stats.shown()["ab"] == compared
        assert house.door.planner.open == 0

    one, two = shown["one"], shown["two"]
    assert shown.keys() == {"one", "two"}
    assert one["requests"] + two["requests"] == 20
    assert (one["errors"], two["errors"], two["error_rate"]) == (0, two["requests"], 1.0)
    assert one["prompt_tokens"] == 10 * one["requests"]
    assert (one["completion_tokens"], one["cache_hit_rate"]) == (3 * one["requests"], 0.4)
    assert 0 < one["avg_first_byte_ms"] <= one["avg_latency_ms"]
    assert two["prompt_tokens"] == 0


@pytest.mark.rows("EXP-6")
async def test_a_new_model_takes_over_step_by_step_and_is_halted_when_it_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Sessions that got it stay with it, until it is halted; who names a model gets that one."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        is_bad = request.json["model"] == "two" and broken
        writer.write(
            whole({"error": {"message": "no"}}, "500 Oh") if is_bad else whole({"model": request.json["model"]})
        )

    broken: list[str] = []
    async with a_house(answer, models=three) as house:
        house.door.planner.clock = lambda: now_s
        rollout, now_s = Rollout(of="one", to="two", steps=((0.1, 600.0), (0.5, 60.0), (1.0, 0.0))), 0.0
        configured(house, rollout=rollout)
        first = await models_of(house, 100)
        now_s = 600.0
        second = await models_of(house, 100)
        sessions = [f"X-Session-ID: s{number}" for number in range(12)]
        at_half = [set(await models_of(house, 2, line)) for line in sessions]
        broken.append("now")
        for _ in range(100):
            await ask(house)
        shown: Any = house.door.memory.stats.shown()["rollout"]
        halted = await models_of(house, 20)
        of_sessions = [set(await models_of(house, 1, line)) for line in sessions]
        named = (await ask(house, model="two")).status
        configured(house)
        await ask(house)

    assert (8 <= first["two"] <= 12, 45 <= second["two"] <= 55) == (True, True)
    assert all(len(models) == 1 for models in at_half)
    assert {"two"} in at_half
    assert "requests failed" in shown["halted"]
    assert (halted, of_sessions, named) == ({"one": 20}, [{"one"}] * 12, 500)
    assert "rollout" not in house.door.memory.stats.shown()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"].count("rollout halted") == 1


async def test_an_open_request_turns_to_another_model_where_the_host_of_the_first_is_gone() -> None:
    """A client that says `auto` does not care which one died."""
    near, far = a_replica(FIRST, model="one"), a_replica(SECOND, model="two", busy=1)
    doubles = {"far_models": lambda socket: (a_served_model(socket, name="two"),)}
    async with a_mesh(answer_ok, answer_ok, replicas=(near, far), **doubles) as (entry, mesh):
        mesh.unreachable.add(FIRST)
        served = await ask(entry)
        named = await ask(entry, model="one")

    assert mesh.asked == [FIRST, SECOND, FIRST]
    assert (served.status, served.json["model"], served.headers["x-mesh-attempts"]) == (200, "two", "2")
    assert (named.status, named.error["code"]) == (502, "host_lost")


async def test_without_a_ready_model_the_request_goes_on_as_it_came() -> None:
    """It waits, or is told, as it always was."""
    async with a_house(models=lambda _: ()) as house:
        reply = await ask(house)
        embedded = await house.ask(a_post({"model": "auto", "input": "x"}, "/v1/embeddings"))

    assert (reply.status, reply.error["code"]) == (503, "no_default_model")
    assert (embedded.status, embedded.error["code"]) == (503, "no_default_model")


async def test_a_decision_among_fifty_models_with_twenty_hosts_takes_little() -> None:
    """Beside the reading of the request itself."""
    nodes = [f"{number:052d}" for number in range(20)]
    replicas = tuple(
        a_replica(node, model=f"m{number}", busy=random.Random(number).randrange(4))
        for number in range(50)
        for node in nodes
    )
    async with a_mesh(replicas=replicas) as (entry, _):
        for _ in range(50):
            await ask(entry)
        took_s = sorted(kept.took_s for kept in entry.door.memory.decisions.newest() if kept.decision.model == "")

    assert took_s[len(took_s) // 2] < 0.05
