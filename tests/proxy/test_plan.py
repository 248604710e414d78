"""The front door asks its memory where a request goes, and tells it what comes of each."""

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.announcement import ServingState
from meshllm.core.ids import NodeId
from meshllm.core.routing import explain
from meshllm.core.routing.attempts import Setback
from meshllm.core.routing_config import DEFAULT, RoutingConfig, RoutingRegister, Strategy
from meshllm.proxy.front_door import FrontDoor
from meshllm.wire.tunnel_frames import TunnelRefusal
from tests.proxy.builders import (
    CHAT,
    FALLING_BACK,
    NODE,
    STREAM_HEAD,
    TINY,
    Answer,
    House,
    Reply,
    Request,
    a_chat,
    a_model,
    a_post,
    answer_ok,
    chunk,
    event,
    until,
    whole,
)
from tests.proxy.tunnels import FIRST, FOURTH, SECOND, THIRD, a_mesh, a_replica, a_served_model

LONG = "word " * 800


def reporting(cached: int, prompt: int = 1000) -> Answer:
    """Return an engine that says how much of each prompt it had cached."""
    timings = {"prompt_n": prompt - cached, "cache_n": cached, "prompt_ms": 100.0}

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.json.get("stream"):
            last = chunk(b"data: " + json.dumps({"timings": timings}).encode() + b"\n\n")
            writer.write(STREAM_HEAD + event(0) + last + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            writer.write(whole({"model": "tiny", "timings": timings}))

    return answer


def configured(entry: House, **config: Any) -> None:
    """Change how the entry node routes."""
    register = RoutingRegister(node=replace(DEFAULT, **config))
    entry.views.newest = replace(entry.views.newest, routing=register, epoch=entry.views.newest.epoch + 1)


def left(door: FrontDoor) -> tuple[int, float]:
    """Return what the memory thinks is under way: requests, and prompt tokens that are being read."""
    loads = door.memory.loads.known.values()
    return sum(load.sent for load in loads), sum(load.reading_tokens for load in loads)


async def ask(entry: House, *lines: str, **fields: Any) -> Reply:
    """Ask the model something, with these header fields."""
    return await entry.ask(a_post(a_chat(**fields), CHAT, *lines))


def stats(door: FrontDoor) -> dict[str, Any]:
    """Return the counts."""
    return door.memory.stats.shown(is_detailed=True)


# -- decisions -------------------------------------------------------------------------------------------


async def test_a_model_with_one_way_is_never_decided_about_and_yet_counted() -> None:
    """Most front doors: the straight lane takes it."""
    async with a_mesh(models=lambda socket: (a_model(socket=socket),)) as (entry, _):
        entry.views.publish(*entry.views.newest.local.values())
        replies = [await entry.chat() for _ in range(5)]
        entry.door.traffic.measured()
        replies.append(await entry.chat())

        assert {reply.headers["x-mesh-route-reason"] for reply in replies} == {"local"}
        assert len(entry.door.memory.decisions) == 0
        shown = stats(entry.door)

    assert (shown["total_routes"], shown["successful_routes"], shown["failed_routes"]) == (6, 6, 0)
    assert (shown["per_model"], shown["per_node"]) == ({"tiny": 6}, {NODE: 6})


async def test_a_request_with_several_ways_is_decided_about_once_and_its_outcome_kept() -> None:
    """Its first way refuses; the second one is the next of the same decision."""
    async with a_mesh(answer_ok, answer_ok) as (entry, mesh):
        mesh.refusals[FIRST] = TunnelRefusal(code="busy", message="no")
        reply = await entry.chat()
        [kept] = entry.door.memory.decisions.newest()

    assert reply.headers["x-mesh-node"] == SECOND
    assert reply.headers["x-mesh-route-reason"] == kept.decision.reason == "least_loaded"
    assert [rating.name for rating in kept.decision.ratings] == [FIRST, SECOND]
    assert (kept.went, kept.is_ok, kept.decision.request_id) == (SECOND, True, reply.headers["x-request-id"])
    assert kept.first_byte_s is not None
    assert kept.took_s > 0


@pytest.mark.rows("T9")
async def test_every_request_is_counted_once_whatever_became_of_it() -> None:
    """On the lane, through a tunnel, after a retry, in vain, by another model: the total is successful plus failed."""
    async with a_mesh(
        answer_ok, answer_ok, models=lambda socket: (a_served_model(socket, name="own"),), routing=FALLING_BACK
    ) as (entry, mesh):
        for _ in range(3):
            await entry.chat(model="own")
        await entry.chat(model="nobody")
        await entry.chat()
        mesh.unreachable.add(FIRST)
        await entry.chat()
        await entry.chat()
        mesh.unreachable.add(SECOND)
        statuses = [(await entry.chat()).status, (await entry.chat(model="own", stream=True)).status]
        shown = stats(entry.door)

    assert statuses == [502, 200]
    assert (shown["total_routes"], shown["successful_routes"], shown["failed_routes"]) == (9, 8, 1)
    assert shown["fallback_routes"] == 1
    assert shown["per_model"] == {"own": 5, "tiny": 4}
    assert sum(shown["per_node"].values()) == 8


@pytest.mark.rows("RTE-21")
async def test_one_request_may_name_its_strategy() -> None:
    """The others keep the node's own."""
    async with a_mesh(answer_ok, answer_ok) as (entry, _):
        configured(entry, strategy=Strategy.ROUND_ROBIN)
        plain = await ask(entry)
        named = await ask(entry, "X-Mesh-Strategy: latency_based")
        wrong = await ask(entry, "X-Mesh-Strategy: fastest")

    assert plain.headers["x-mesh-route-reason"] == "round_robin"
    assert named.headers["x-mesh-route-reason"] == "latency_based"
    assert (wrong.status, wrong.error["code"]) == (400, "invalid_strategy")


@pytest.mark.rows("RTE-3")
async def test_round_robin_is_exactly_even_at_the_front_door() -> None:
    """300 requests on three hosts."""
    async with a_mesh(answer_ok, answer_ok, answer_ok) as (entry, mesh):
        configured(entry, strategy=Strategy.ROUND_ROBIN)
        client = await entry.connect()
        for _ in range(300):
            await client.send(a_post(a_chat()))
            assert (await client.receive()).status == 200

    assert {node: mesh.asked.count(node) for node in (FIRST, SECOND, THIRD)} == dict.fromkeys(
        (FIRST, SECOND, THIRD), 100
    )


@pytest.mark.rows("RTE-20", "RTE-23")
async def test_a_decision_that_took_long_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Model, strategy, score, time; `routing_time_alarm_us` says what is long."""
    async with a_mesh(answer_ok, answer_ok) as (entry, _):
        with caplog.at_level(logging.DEBUG, "meshllm.proxy.plan"):
            await entry.chat()
            configured(entry, alarm_s=0.0)
            for _ in range(3):
                await entry.chat()

    (warning,) = caplog.records
    fields: dict[str, Any] = warning.fields  # type: ignore[attr-defined]
    assert (fields["model_id"], fields["strategy"], warning.levelname) == ("tiny", "cache_aware", "WARNING")
    assert 0 < fields["score"] <= 1
    assert fields["routing_time_us"] > 0


async def test_with_info_alone_nothing_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of requests are no news."""
    async with a_mesh(answer_ok, answer_ok) as (entry, _):
        with caplog.at_level(logging.INFO):
            await entry.chat()

    assert [record for record in caplog.records if record.name == "meshllm.proxy.plan"] == []


# -- prompts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_conversation_goes_where_its_prompt_is_cached(is_stream: bool) -> None:
    """However many others come in between; what answers report is learnt from whole ones and streams alike."""
    async with a_mesh(*[reporting(900)] * 3) as (entry, _):
        turns = [{"role": "user", "content": LONG}]
        first = await ask(entry, messages=turns, stream=is_stream)
        places = set()
        for number in range(4):
            await ask(entry, messages=[{"role": "user", "content": f"{number}{LONG}"}], stream=is_stream)
            turns += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": f"and {number}?"}]
            reply = await ask(entry, messages=turns, stream=is_stream)
            places.add((reply.headers["x-mesh-node"], reply.headers["x-mesh-route-reason"]))
        load = entry.door.memory.loads.of((NodeId(first.headers["x-mesh-node"]), TINY))

        amounts: list[Any] = [explain.shown(kept)["usage"] for kept in entry.door.memory.decisions.newest()]

    assert [(said["prompt_tokens"], said["cached_tokens"]) for said in amounts] == [(1000, 900)] * 9
    assert places == {(first.headers["x-mesh-node"], "cache_aware")}
    assert load is not None
    assert load.prefill_tokens_per_s == pytest.approx(1000.0)


async def test_an_engine_that_started_anew_has_forgotten_its_prompts() -> None:
    """Its node said that it was loading."""
    async with a_mesh(answer_ok, answer_ok) as (entry, _):
        turns = [{"role": "user", "content": LONG}]
        first = (await ask(entry, messages=turns)).headers["x-mesh-node"]
        entry.views.publish(
            replicas=(a_replica(FIRST, state=ServingState.LOADING), a_replica(SECOND, state=ServingState.LOADING))
        )
        entry.door.planner.hear()
        entry.views.publish(replicas=(a_replica(FIRST), a_replica(SECOND)))
        again = await ask(entry, messages=turns)

    assert first
    assert again.headers["x-mesh-route-reason"] == "least_loaded"


# -- sessions --------------------------------------------------------------------------------------------


@pytest.mark.rows("T8", "AFF-2", "AFF-3", "RTE-10")
async def test_a_session_stays_put_and_moves_once_when_its_host_dies() -> None:
    """One request a minute for twenty minutes, though it expires after five; then its host is gone, and comes back."""
    now_s = 0.0
    async with a_mesh(answer_ok, answer_ok, answer_ok) as (entry, _):
        entry.door.planner.clock = lambda: now_s

        async def places(count: int) -> set[str]:
            nonlocal now_s
            found = set()
            for _ in range(count):
                now_s += 60.0
                await ask(entry)
                found.add((await ask(entry, "X-Session-ID: user-abc-123")).headers["x-mesh-node"])
            return found

        [home] = await places(20)
        alive = tuple(a_replica(node) for node in (FIRST, SECOND, THIRD) if node != home)
        entry.views.publish(replicas=alive)
        [second] = await places(5)
        entry.views.publish(replicas=(a_replica(NodeId(home)), *alive))
        assert await places(20) == {second}
        assert stats(entry.door)["affinity_rebinds"] == 1
        now_s += 301.0
        assert await places(1) == {home}

    assert second != home


@pytest.mark.rows("AFF-4")
async def test_two_entry_nodes_send_a_session_to_the_same_host() -> None:
    """Without a word between them."""
    async with a_mesh(*[answer_ok] * 4) as (one, mesh), a_mesh(*[answer_ok] * 4) as (other, _):
        places = [
            [(await ask(door, f"X-Session-ID: s{number}")).headers["x-mesh-node"] for number in range(12)]
            for door in (one, other)
        ]

    assert places[0] == places[1]
    assert len(set(places[0])) > 1
    assert FOURTH in mesh.doors


async def test_a_session_may_be_named_in_the_body() -> None:
    """The reason says that it was followed."""
    async with a_mesh(answer_ok, answer_ok) as (entry, _):
        replies = [await ask(entry, session_id="s") for _ in range(4)]

    assert {reply.headers["x-mesh-route-reason"] for reply in replies} == {"affinity"}
    assert len({reply.headers["x-mesh-node"] for reply in replies}) == 1


# -- places ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["none", "error", "refused", "unreachable", "crash", "cut"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_place_is_given_back_however_a_request_ends(fault: str, is_stream: bool) -> None:
    """Nothing is left behind, or a host would look busy for ever."""

    async def crash(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def fail(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole({"error": {"message": "no"}}, "500 Internal Server Error"))

    async def cut(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + event(0))
        await writer.drain()
        writer.transport.close()

    answer: Answer = {"error": fail, "crash": crash, "cut": cut}.get(fault, answer_ok)
    async with a_mesh(answer, answer, load_wait_s=0.2) as (entry, mesh):
        if fault == "unreachable":
            mesh.unreachable |= {FIRST, SECOND}
        if fault == "refused":
            mesh.refusals |= dict.fromkeys((FIRST, SECOND), TunnelRefusal(code="busy", message="no"))
        client = await entry.connect()
        await client.send(a_post(a_chat(messages=[{"role": "user", "content": LONG}], stream=is_stream)))
        await until(lambda: sum(entry.door.traffic.by_status) or fault == "cut", "an answer")
        await until(lambda: left(entry.door) == (0, 0.0), "every place to be given back")
        await until(lambda: stats(entry.door)["total_routes"] == 1, "the request to be counted")

        assert entry.door.planner.retries.under_way == entry.door.planner.open == 0


@pytest.mark.parametrize("when", ["opening", "computing", "streaming"])
async def test_a_client_that_leaves_gives_its_place_back(when: str) -> None:
    """While the tunnel opens, while the engine thinks, in the middle of a stream."""
    begun = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        if when == "streaming":
            writer.write(STREAM_HEAD + event(0))
        begun.set()
        await asyncio.Event().wait()

    async with a_mesh(slow, slow) as (entry, mesh):
        mesh.lag = 1_000_000 if when == "opening" else 0
        client = await entry.connect()
        await client.send(a_post(a_chat(messages=[{"role": "user", "content": LONG}], stream=True)))
        if when == "streaming":
            await client.until(event(0))
        else:
            await until(lambda: left(entry.door)[0] > 0, "a place")
        client.writer.transport.abort()
        await until(lambda: left(entry.door) == (0, 0.0), "the place to be given back")


async def test_a_leaving_node_gives_every_place_back() -> None:
    """Streams under way are ended."""

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + event(0))
        await asyncio.Event().wait()

    async with a_mesh(slow, slow) as (entry, _):
        client = await entry.connect()
        await client.send(a_post(a_chat(stream=True)))
        await client.until(event(0))
        assert left(entry.door)[0] > 0
        await entry.door.close()

        assert left(entry.door) == (0, 0.0)


@pytest.mark.rows("PRX-7")
async def test_at_equal_score_this_nodes_own_engine_answers() -> None:
    """Though two others have the model as well; requests of other nodes count as its load."""
    async with a_mesh(answer_ok, answer_ok, models=lambda socket: (a_served_model(socket),)) as (entry, _):
        first = await entry.chat()
        entry.door.traffic.of(TINY).in_flight += 1
        second = await entry.chat()
        entry.door.traffic.of(TINY).in_flight -= 1
        named = await ask(entry, "X-Mesh-Strategy: latency_based")

    assert first.headers["x-mesh-node"] == NODE
    assert second.headers["x-mesh-node"] != NODE
    assert named.status == 200


async def test_a_resting_connection_of_this_nodes_engine_is_used() -> None:
    """No task, and no new connection for each request."""
    async with a_mesh(models=lambda socket: (a_served_model(socket, slots=8),)) as (entry, _):
        configured(entry, strategy=Strategy.ROUND_ROBIN)
        for _ in range(8):
            await entry.chat()

    assert len(entry.engine.requests) == 4
    assert entry.engine.connections == 1


async def test_a_burst_spreads_before_any_news_of_it_arrives() -> None:
    """Thirty requests in one moment, over three hosts, while every tunnel takes a while to open."""
    release = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(whole({"model": "tiny"}))

    replicas = tuple(a_replica(node, slots=4) for node in (FIRST, SECOND, THIRD))
    far = {"far_models": lambda socket: (a_served_model(socket, slots=16),)}
    async with a_mesh(slow, slow, slow, replicas=replicas, **far) as (entry, mesh), asyncio.TaskGroup() as group:
        mesh.lag = 50
        for _ in range(30):
            group.create_task(entry.chat())
        await until(lambda: len(mesh.asked) == 30, "thirty tunnels")
        release.set()

    assert sorted(mesh.asked.count(node) for node in (FIRST, SECOND, THIRD)) == [10, 10, 10]


# -- retries ---------------------------------------------------------------------------------------------


@pytest.mark.rows("RTE-14")
@pytest.mark.parametrize(("max_retries", "asked"), [(0, 1), (1, 2), (2, 3), (9, 3)])
async def test_no_more_is_retried_than_the_configuration_says(max_retries: int, asked: int) -> None:
    """And never at more than three hosts."""
    async with a_mesh(*[answer_ok] * 4) as (entry, mesh):
        configured(entry, max_retries=max_retries, retry_delay_s=0.001)
        mesh.unreachable |= {FIRST, SECOND, THIRD, FOURTH}
        reply = await entry.chat()

        (kept,) = entry.door.planner.memory.decisions.newest()

    assert (reply.status, reply.error["code"]) == (502, "host_lost")
    assert len(mesh.asked) == len(set(mesh.asked)) == asked
    assert [one.node for one in kept.attempts] == mesh.asked
    assert {one.setback for one in kept.attempts} == {Setback.UNREACHABLE}


async def test_the_second_retry_waits_and_the_first_does_not() -> None:
    """`retry_delay_ms`, spread."""
    async with a_mesh(*[answer_ok] * 3) as (entry, mesh):
        configured(entry, retry_delay_s=60.0)
        mesh.unreachable |= {FIRST, SECOND}
        client = await entry.connect()
        await client.send(a_post(a_chat()))
        await until(lambda: len(mesh.asked) == 2, "the first retry")
        for _ in range(limits.HOST_ATTEMPTS * 100):
            await asyncio.sleep(0)
        assert len(mesh.asked) == 2
        client.writer.transport.abort()
        await until(lambda: entry.door.planner.retries.under_way == 0, "the retry to be over")

        configured(entry, retry_delay_s=0.001)
        assert (await entry.chat()).headers["x-mesh-node"] == THIRD


async def test_when_much_is_retried_already_the_last_error_is_the_answer() -> None:
    """Three at a time, else a fifth of all: the others come back later."""
    async with a_mesh(answer_ok, answer_ok) as (entry, mesh):
        mesh.unreachable.add(FIRST)
        entry.door.planner.retries.under_way = limits.RETRIES_LEAST
        refused = await entry.chat()
        entry.door.planner.retries.under_way = 0
        served = await entry.chat()

    assert (refused.status, refused.error["code"]) == (503, "host_lost")
    assert 1 <= int(refused.headers["retry-after"]) <= 5
    assert (served.status, served.headers["x-mesh-node"]) == (200, SECOND)


async def test_of_many_requests_that_a_host_loses_at_once_a_fifth_is_retried() -> None:
    """The others come back when they are told to, and not all at once: the hosts that are left are not run over."""
    release = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(whole({"model": "tiny"}))

    far = {"far_models": lambda socket: (a_served_model(socket, slots=64),)}
    async with a_mesh(slow, slow, **far) as (entry, mesh):
        entry.views.publish(replicas=(a_replica(FIRST, slots=64), a_replica(SECOND, slots=64)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(entry, "X-Session-ID: one")) for _ in range(40)]
            await until(lambda: sum(len(house.engine.requests) for house in mesh.houses.values()) == 40, "forty")
            for near, _ in tuple(mesh.ends):
                near.break_off()
            await until(lambda: len(mesh.heads) >= 48, "retries")
            release.set()
        replies = [task.result() for task in tasks]

        assert entry.door.planner.open == entry.door.planner.retries.under_way == 0
    refused = [reply for reply in replies if reply.status == 503]
    assert (len(replies) - len(refused), len(refused)) == (8, 32)
    assert len({reply.headers["retry-after"] for reply in refused}) > 1
    assert len(set(mesh.asked[:40])) == 1


def test_the_default_is_to_look_for_caches() -> None:
    """Among hosts; among models the least loaded one."""
    assert (RoutingConfig().strategy, RoutingConfig().model_strategy) == ("cache_aware", "least_loaded")
