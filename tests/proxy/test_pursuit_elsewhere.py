"""Requests for models of other nodes that nobody serves at the moment: waited for, asked for, answered."""

import asyncio
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.announcement import Announcement, ModelOrder, Role, ServingState
from meshllm.core.engines import EngineState
from meshllm.core.events import ModelWanted
from meshllm.core.ids import NodeId
from meshllm.core.intents import Verb
from meshllm.core.standing import MemberState
from meshllm.core.view import ColdModel, Member
from meshllm.wire.tunnel_frames import TunnelRefusal
from tests.proxy.builders import (
    FALLING_BACK,
    TINY,
    House,
    Reply,
    Request,
    a_chat,
    a_house,
    a_model,
    a_post,
    answer_ok,
    until,
)
from tests.proxy.tunnels import DIGEST, FIRST, SECOND, Mesh, a_mesh, a_replica

COLD = ColdModel(model=TINY, nodes=(FIRST,), digest=DIGEST)
WANTED = ModelWanted(model=TINY)


def waiting(house: House) -> int:
    """Return how many requests wait."""
    return house.door.traffic.waiting


def an_order(version: int, verb: Verb = Verb.UNLOAD, *, hold: bool = False) -> Any:
    """Return the orders of a mesh in which one is about the model."""
    return MappingProxyType({TINY: ModelOrder(model=TINY, verb=verb, version=version, author=FIRST, hold=hold)})


@pytest.mark.rows("LIF-6", "T3", "T29")
async def test_fifty_requests_for_a_cold_model_elsewhere_ask_once_and_are_answered() -> None:
    """The entry node says what it waits for; whoever loads it, it goes there."""
    async with a_mesh(answer_ok, replicas=()) as (entry, _), asyncio.TaskGroup() as group:
        entry.views.publish(cold=(COLD,))
        tasks = [group.create_task(entry.chat()) for _ in range(50)]
        await until(lambda: waiting(entry) == 50, "all requests waiting")
        entry.views.publish(replicas=(a_replica(state=ServingState.CLAIMED),))
        entry.views.publish(replicas=(a_replica(state=ServingState.LOADING),))
        asked = list(entry.events)
        entry.views.publish(replicas=(a_replica(slots=64),))
        replies = [await task for task in tasks]

    assert asked == [WANTED]
    assert [reply.status for reply in replies] == [200] * 50
    assert {reply.headers["x-mesh-node"] for reply in replies} == {FIRST}


async def test_a_model_that_stays_cold_is_asked_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node forgets a wish that nobody repeats; when nobody waits, nobody asks."""
    monkeypatch.setattr(limits, "WANTED_AGAIN_S", 0.02)
    async with a_house(models=lambda _: ()) as house:
        house.views.publish(cold=(COLD,))
        client = await house.connect()
        await client.send(a_post(a_chat()))
        await until(lambda: house.events == [WANTED] * 3, "the model being asked for three times")
        await client.close()
        await until(lambda: waiting(house) == 0, "nobody waiting")
        count = len(house.events)
        house.views.publish(cold=(COLD,))

    assert len(house.events) == count


async def test_many_views_make_no_more_wishes() -> None:
    """A mesh that talks much must not be asked more for it."""
    async with a_house(models=lambda _: ()) as house, asyncio.TaskGroup() as group:
        house.views.publish(cold=(COLD,))
        task = group.create_task(house.chat())
        await until(lambda: waiting(house) == 1, "the request waiting")
        for _ in range(20):
            house.views.publish(cold=(COLD,))
            await asyncio.sleep(0)
        asked = list(house.events)
        house.views.publish(a_model(socket=house.engine.socket))

        assert (await task).status == 200
    assert asked == [WANTED]


@pytest.mark.rows("LIF-6")
async def test_a_load_that_comes_to_nothing_is_asked_for_at_once_again() -> None:
    """Its host died, or yielded to one that died."""
    async with a_house(models=lambda _: ()) as house, asyncio.TaskGroup() as group:
        house.views.publish(cold=(COLD,))
        task = group.create_task(house.chat())
        await until(lambda: house.events == [WANTED], "the model being asked for")
        seen = []
        for view in ({"replicas": (a_replica(state=ServingState.CLAIMED),)}, {"cold": (COLD,)}):
            house.views.publish(**view)
            epoch = house.views.newest.epoch
            seen.append(epoch)
            for _ in range(20):
                await asyncio.sleep(0)
        await until(lambda: house.events == [WANTED] * 2, "the model being asked for again")
        house.views.publish(a_model(socket=house.engine.socket))

        assert (await task).status == 200


async def test_a_model_that_no_node_takes_up_is_not_waited_for_as_long_as_a_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The words say what it waits for, and the client may come back."""
    monkeypatch.setattr(limits, "UNCLAIMED_WAIT_S", 0.05)
    async with a_house(models=lambda _: ()) as house:
        house.views.publish(cold=(COLD,))
        reply = await house.chat()

    assert (reply.status, reply.error["code"]) == (503, "model_loading")
    assert reply.error["message"].endswith("and not in memory yet; no node takes it up")
    assert "retry-after" in reply.headers


@pytest.mark.rows("PRX-6")
async def test_no_room_anywhere_ends_the_waiting_with_the_lack() -> None:
    """In bytes, with a time to come back."""
    lack = "it needs 9.0 GiB, and the most that a node has is 3.0 GiB"
    async with a_house(models=lambda _: ()) as house, asyncio.TaskGroup() as group:
        house.views.publish(cold=(COLD,))
        task = group.create_task(house.chat())
        await until(lambda: waiting(house) == 1, "the request waiting")
        house.views.publish(cold=(replace(COLD, lack=lack),))
        reply = await task

    assert (reply.status, reply.error["code"]) == (503, "no_capacity")
    assert lack in reply.error["message"]
    assert "retry-after" in reply.headers


@pytest.mark.parametrize(("hold", "hint"), [(False, "another request loads it again"), (True, "mesh-llm load tiny")])
async def test_an_order_to_unload_is_not_undone_by_requests_that_waited_before_it(*, hold: bool, hint: str) -> None:
    """A request that comes after it loads the model again, unless it is held."""
    async with a_house(models=lambda _: ()) as house, asyncio.TaskGroup() as group:
        house.views.publish(cold=(COLD,), orders=an_order(1))
        task = group.create_task(house.chat())
        await until(lambda: waiting(house) == 1, "the request waiting")
        house.views.publish(replicas=(a_replica(state=ServingState.LOADING),), orders=an_order(2, Verb.LOAD))
        house.views.publish(cold=(COLD,), orders=an_order(3, hold=hold))
        reply = await task
        late = group.create_task(house.chat())
        await until(lambda: waiting(house) == 1, "the late request waiting")
        house.views.publish(a_model(socket=house.engine.socket), orders=an_order(3, hold=hold))

        assert (await late).status == 200
    assert (reply.status, reply.error["code"]) == (503, "model_unloaded")
    assert hint in reply.error["message"]


async def test_a_load_that_yields_to_another_nodes_is_no_unloading() -> None:
    """The request goes where the model comes to be."""
    here = a_model(state=EngineState.STARTING)
    async with a_mesh(replicas=(), models=lambda _: (here,)) as (entry, _), asyncio.TaskGroup() as group:
        task = group.create_task(entry.chat())
        await until(lambda: waiting(entry) == 1, "the request waiting")
        mine = replace(here, state=EngineState.STOPPED, wanted=False)
        mine = replace(mine, spec=replace(mine.spec, digest=DIGEST)) if mine.spec is not None else mine
        entry.views.publish(mine, replicas=(a_replica(state=ServingState.LOADING),))
        for _ in range(20):
            await asyncio.sleep(0)
        entry.views.publish(mine, replicas=(a_replica(),))
        reply = await task

    assert (reply.status, reply.headers["x-mesh-node"]) == (200, FIRST)
    assert entry.events == []


# -- hosts that live and have lost their engine ----------------------------------------------------------


async def crash_once(request: Request, writer: asyncio.StreamWriter) -> None:
    """Die of the first request and answer the second."""
    if request.headers.get("x-request-id") not in CRASHED:
        CRASHED.add(request.headers.get("x-request-id"))
        writer.transport.abort()
    else:
        await answer_ok(request, writer)


CRASHED: set[str | None] = set()


def says(node: NodeId, version: int) -> Any:
    """Return the members of a mesh in which a node has said so much."""
    said = Announcement(node=node, name="b", incarnation=1, version=version, role=Role.HOST, resources=None)
    return {node: Member(announcement=said, state=MemberState.ALIVE, since_s=0.0)}


@pytest.mark.rows("LIF-6")
async def test_an_engine_lost_at_the_only_host_is_waited_for() -> None:
    """As one of this node: it is back in a second, and the client sees one answer."""
    CRASHED.clear()
    async with a_mesh(crash_once) as (entry, mesh), asyncio.TaskGroup() as group:
        entry.views.publish(replicas=(a_replica(),), members=says(FIRST, 1))
        task = group.create_task(entry.chat())
        await until(lambda: waiting(entry) == 1, "the request waiting")
        entry.views.publish(replicas=(a_replica(),), members=says(SECOND, 1) | says(FIRST, 1))
        for _ in range(20):
            await asyncio.sleep(0)
        asked = list(mesh.asked)
        entry.views.publish(replicas=(a_replica(state=ServingState.LOADING),), members=says(FIRST, 2))
        entry.views.publish(replicas=(a_replica(),), members=says(FIRST, 3))
        reply = await task

    assert asked == [FIRST]
    assert (reply.status, reply.headers["x-mesh-attempts"]) == (200, "2")
    assert mesh.asked == [FIRST, FIRST]
    assert waiting(entry) == 0


@pytest.mark.rows("T29")
@pytest.mark.parametrize("code", ["draining", "not_hosting", "loading"])
async def test_a_host_that_has_just_unloaded_the_model_leads_to_a_load(code: str) -> None:
    """The view was a moment late; nobody is told 404 or 503 for that."""
    async with a_mesh() as (entry, mesh), asyncio.TaskGroup() as group:
        mesh.refusals[FIRST] = TunnelRefusal(code=code, message="no")
        task = group.create_task(entry.chat())
        await until(lambda: waiting(entry) == 1, "the request waiting")
        entry.views.publish(cold=(COLD,))
        await until(lambda: entry.events == [WANTED], "the model being asked for")
        mesh.refusals.clear()
        entry.views.publish(replicas=(a_replica(state=ServingState.LOADING),))
        entry.views.publish(replicas=(a_replica(),))
        reply = await task

    assert reply.status == 200


def is_asked_again(task: asyncio.Task[Reply], mesh: Mesh, tries: int) -> bool:
    """Tell whether a host was tried once more, or the request has ended."""
    return task.done() or len(mesh.asked) > tries


async def test_a_host_that_refuses_again_and_again_has_one_requests_time_and_no_more() -> None:
    """Each try is no new wait: what a request waits in all is what counts."""
    async with a_mesh(load_wait_s=0.5) as (entry, mesh), asyncio.TaskGroup() as group:
        mesh.refusals[FIRST] = TunnelRefusal(code="loading", message="no")
        task = group.create_task(entry.chat())
        await until(lambda: mesh.asked, "the first try")
        while not task.done():
            entry.views.publish(replicas=(a_replica(),))
            await until(partial(is_asked_again, task, mesh, len(mesh.asked)), "another try or the end")
        reply = await task

    assert (reply.status, reply.error["code"]) == (503, "model_loading")
    assert len(mesh.asked) > 2


async def test_a_request_that_ends_engines_is_not_sent_a_third_time() -> None:
    """Two are what one request may cost, also at one host."""

    async def crash(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with a_mesh(crash) as (entry, mesh), asyncio.TaskGroup() as group:
        task = group.create_task(entry.chat())
        await until(lambda: waiting(entry) == 1, "the request waiting")
        entry.views.publish(replicas=(a_replica(),))
        reply = await task

    assert (reply.status, reply.error["code"]) == (502, "host_lost")
    assert mesh.asked == [FIRST, FIRST]


async def test_a_host_that_never_gets_its_engine_back_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its node notices soon, or not at all."""
    monkeypatch.setattr(limits, "ENGINE_LOST_WAIT_S", 0.05)
    async with a_mesh() as (entry, mesh):
        mesh.refusals[FIRST] = TunnelRefusal(code="engine_lost", message="no")
        reply = await entry.chat()

    assert (reply.status, reply.error["code"]) == (502, "host_lost")


async def test_a_hold_is_told_to_requests_that_had_come_too_far() -> None:
    """What keeps the model away is worth more than where the request was."""
    async with a_mesh() as (entry, mesh), asyncio.TaskGroup() as group:
        mesh.refusals[FIRST] = TunnelRefusal(code="draining", message="no")
        task = group.create_task(entry.chat())
        await until(lambda: waiting(entry) == 1, "the request waiting")
        held = replace(COLD, order=ModelOrder(model=TINY, verb=Verb.UNLOAD, version=1, author=FIRST, hold=True))
        entry.views.publish(cold=(held,))
        reply = await task

    assert (reply.status, reply.error["code"]) == (503, "model_held")


# -- names that nothing has ------------------------------------------------------------------------------


@pytest.mark.rows("PRX-5")
async def test_a_fallback_is_seen_in_the_answer_the_counters_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The body names the model that answered; nobody is deceived."""
    async with a_house(routing=FALLING_BACK) as house:
        replies = [await house.chat(model="nonsense") for _ in range(2)]
        known = await house.chat()
        vectors = await house.ask(a_post({"model": "nonsense", "input": "x"}, "/v1/embeddings"))
        counted = house.door.counters()["fallback_routes"]

    assert [(reply.status, reply.headers["x-mesh-fallback"]) for reply in replies] == [(200, "unknown_model")] * 2
    assert {reply.json["model"] for reply in replies} == {"tiny"} == {replies[0].headers["x-mesh-model"]}
    assert "x-mesh-fallback" not in known.headers
    assert vectors.status == 404
    assert counted == 2
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "unknown model falls back"
    ]


@pytest.mark.rows("PRX-5")
async def test_a_fallback_to_a_cold_default_loads_it_and_a_known_model_never_falls_back() -> None:
    """Dropped, held or cold is not unknown."""
    async with a_house(routing=FALLING_BACK, models=lambda _: ()) as house, asyncio.TaskGroup() as group:
        other = a_model("other", state=EngineState.STOPPED, dropped=True)
        house.views.publish(other, cold=(COLD,), default="tiny")
        dropped = await house.chat(model="other")
        task = group.create_task(house.chat(model="nonsense"))
        await until(lambda: house.events == [WANTED], "the default being asked for")
        house.views.publish(a_model(socket=house.engine.socket), other)
        reply = await task
        counted = house.door.counters()["fallback_routes"]

    assert (dropped.status, dropped.error["code"]) == (404, "model_not_found")
    assert (reply.status, reply.headers["x-mesh-model"]) == (200, "tiny")
    assert counted == 1


@pytest.mark.parametrize(("joining", "status"), [(False, 404), (True, 200)])
async def test_an_unknown_name_is_told_at_once_but_while_joining(*, joining: bool, status: int) -> None:
    """What a mesh serves is not known before it was heard."""
    async with a_house(models=lambda _: ()) as house, asyncio.TaskGroup() as group:
        house.views.publish(joining=joining)
        task = group.create_task(house.chat(model="tiny"))
        await until(lambda: task.done() or waiting(house) == 1, "an answer or a wait")
        house.views.publish(a_model(socket=house.engine.socket))

        assert (await task).status == status
    assert house.events == []
