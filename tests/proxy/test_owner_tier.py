"""Kept answers at other nodes: told from there where this one has none, and never at the price of an answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from meshllm.core.cache_config import CacheConfig
from meshllm.core.cache_limits import COMPLETION_LOOKUPS, COMPLETION_SENDS, COMPLETION_SHARED_BYTES
from meshllm.core.cache_use import CachePicture
from meshllm.core.caches.completions import recipe_of
from meshllm.core.rights import CLIENT_ONLY, GUEST
from meshllm.core.standing import MemberState
from meshllm.core.view import Member, Replica
from meshllm.proxy.traffic import admitted
from meshllm.wire.tunnel_frames import TunnelRefusal
from tests.core.builders import a_member
from tests.proxy.builders import STREAM_HEAD, House, Request, a_chat, a_post, until
from tests.proxy.test_client import leave
from tests.proxy.test_completion_cache import BUILD, END, ON, Counting, a_planned_model, an_event, text_of
from tests.proxy.tunnels import FIRST, SECOND, Half, Mesh, a_mesh, a_replica

RECIPE = "ab" * 16
ALONE = CachePicture(config=CacheConfig(completions=True, completions_shared=False))


def an_owner(**changes: Any) -> Member:
    """Return the second node as a member that keeps answers."""
    member = a_member("c", rights=GUEST)
    said = replace(member.announcement, node=SECOND, keeps_answers=True)
    return replace(member, **({"announcement": said, "state": MemberState.ALIVE, "rtt_s": 0.001} | changes))


def show(house: House, *owners: Member, caches: CachePicture = ON, replicas: tuple[Replica, ...] | None = None) -> None:
    """Let a house know of the host of the model and of these owners."""
    hosts = (a_replica(FIRST, recipe=RECIPE),) if replicas is None else replicas
    members = MappingProxyType({one.announcement.node: one for one in owners})
    house.views.publish(replicas=hosts, caches=caches, members=members)


@asynccontextmanager
async def an_owned_mesh(*answers: Any, **owner: Any) -> AsyncIterator[tuple[House, Mesh, Counting]]:
    """Open an entry node, a host of the model, and a second node that owns all answers of its."""
    engine = Counting()
    async with a_mesh(*(answers or (engine, Counting()))) as (entry, mesh):
        mesh.rights = GUEST
        show(entry, an_owner(**owner))
        show(mesh.houses[SECOND])
        yield entry, mesh, engine


def forget(entry: House) -> None:
    """Let an entry node be another one, that has not asked anything yet."""
    entry.door.completions.memory.resize(0)


async def until_counted(house: House, name: str, least: int = 1) -> None:
    """Wait until something about kept answers was counted."""
    await until(lambda: house.door.counters()[f"completion_cache_{name}"] >= least, name)


@pytest.mark.rows("CAC-9")
@pytest.mark.parametrize("is_stream", [True, False])
async def test_an_answer_is_found_at_its_owner(*, is_stream: bool) -> None:
    """Whoever was given it before; then it lies here too, and its owner is not asked again."""
    async with an_owned_mesh() as (entry, mesh, engine):
        first = await entry.chat(temperature=0, stream=is_stream)
        await until_counted(mesh.houses[SECOND], "taken")
        forget(entry)
        second = await entry.chat(temperature=0, stream=is_stream)
        asked = len(mesh.heads)
        third = await entry.chat(temperature=0, stream=is_stream)
        counters = entry.door.counters()

    assert len(engine.asked) == 1
    assert [reply.headers.get("x-cache") for reply in (first, second, third)] == [None, "hit", "hit"]
    assert (second.headers["x-cache-owner"], "x-cache-owner" in third.headers) == (SECOND, False)
    assert second.body == third.body
    if not is_stream:
        assert second.json == first.json | {"cached": True}
    assert len(mesh.heads) == asked
    assert (counters["completion_cache_owner_hits"], counters["completion_cache_owner_misses"]) == (1, 1)


async def test_a_connection_goes_on_after_an_answer_of_an_owner() -> None:
    """Requests that come one behind the other are answered in order."""
    async with an_owned_mesh() as (entry, mesh, engine):
        await entry.chat(temperature=0)
        await until_counted(mesh.houses[SECOND], "taken")
        forget(entry)
        client = await entry.connect()
        await client.send(a_post(a_chat(temperature=0)) * 2 + a_post(a_chat(seed=2)))
        replies = [await client.receive() for _ in range(3)]

    assert [text_of(reply) for reply in replies] == ["answer 1", "answer 1", "answer 2"]
    assert len(engine.asked) == 2


@pytest.mark.rows("CAC-9")
@pytest.mark.parametrize("trouble", ["away", "silent", "cut", "refuses", "rubbish", "too much", "the other form"])
async def test_a_request_is_answered_whatever_its_owner_does(trouble: str) -> None:
    """By the engine. One that is not heard is left in peace; one that has an answer of no use is not that."""

    def fault(near: Half, far: Half) -> None:
        del near
        if trouble == "silent":
            far.is_held = True
        elif trouble == "cut":
            far.is_held = True
            far.loop.call_soon(far.break_off)
        elif trouble == "rubbish":
            far.loop.call_soon(far.other.protocol.data_received, b"rubbish")
        else:
            far.loop.call_soon(far.other.protocol.data_received, b" " * (COMPLETION_SHARED_BYTES + 1))

    async with an_owned_mesh() as (entry, mesh, engine):
        await entry.chat(temperature=0, stream=trouble == "the other form")
        await until_counted(mesh.houses[SECOND], "taken")
        forget(entry)
        if trouble == "away":
            mesh.unreachable.add(SECOND)
        elif trouble == "refuses":
            mesh.refusals[SECOND] = TunnelRefusal(code="not_kept")
        elif trouble != "the other form":
            mesh.faults[SECOND] = fault
        before = len(mesh.heads)
        replies = [await entry.chat(temperature=0), await entry.chat(seed=1)]
        counters = entry.door.counters()
        looked = [peer for peer, head in mesh.heads[before:] if head.kept is not None and not head.kept.keeps]

    is_heard = trouble in {"refuses", "rubbish", "the other form"}
    assert [reply.status for reply in replies] == [200, 200]
    assert [reply.headers.get("x-cache") for reply in replies] == [None, None]
    assert len(engine.asked) == 3
    assert counters["completion_cache_owner_failures"] == (0 if is_heard else 1)
    assert looked == [SECOND] * (2 if is_heard else 1)


@pytest.mark.parametrize(
    "changes", [{"state": MemberState.SUSPECT}, {"rtt_s": 10.0}, {"state": MemberState.DEAD}], ids=str
)
async def test_an_owner_that_is_not_worth_asking_is_not_asked(changes: dict[str, Any]) -> None:
    """A suspect, one that is far away, one that is gone."""
    async with an_owned_mesh(**changes) as (entry, mesh, _):
        reply = await entry.chat(temperature=0)
        looked = [head for _, head in mesh.heads if head.kept is not None and not head.kept.keeps]

    assert reply.status == 200
    assert looked == []


async def test_nothing_leaves_a_node_that_keeps_its_answers_to_itself() -> None:
    """Nor is anybody asked."""
    async with an_owned_mesh() as (entry, mesh, _):
        show(entry, an_owner(), caches=ALONE)
        replies = [await entry.chat(temperature=0) for _ in range(2)]
        kept = [head.kept for _, head in mesh.heads]

    assert [reply.headers.get("x-cache") for reply in replies] == [None, "hit"]
    assert kept == [None]


@pytest.mark.rows("CAC-9")
async def test_a_guest_without_the_right_to_host_looks_and_leaves_nothing() -> None:
    """Whoever may only ask could have asked a host; but nobody has to believe its answers."""
    async with an_owned_mesh() as (entry, mesh, engine):
        mesh.rights = CLIENT_ONLY
        await entry.chat(temperature=0)
        await until_counted(entry, "unsent")
        untaken = mesh.doors[SECOND].counters()["completion_cache_taken"]
        mesh.rights = GUEST
        await entry.chat(seed=5)
        await until_counted(mesh.houses[SECOND], "taken")
        forget(entry)
        mesh.rights = CLIENT_ONLY
        found = await entry.chat(seed=5)
        again = await entry.chat(temperature=0)

    assert untaken == 0
    assert (found.headers.get("x-cache"), again.headers.get("x-cache")) == ("hit", None)
    assert len(engine.asked) == 3


async def test_what_no_host_says_any_more_is_not_told_by_its_owner() -> None:
    """An owner that knows of no such host gives nothing out, though it still has it."""
    async with an_owned_mesh() as (entry, mesh, engine):
        await entry.chat(temperature=0)
        await until_counted(mesh.houses[SECOND], "taken")
        forget(entry)
        show(mesh.houses[SECOND], replicas=())
        reply = await entry.chat(temperature=0)

    assert (reply.status, reply.headers.get("x-cache"), len(engine.asked)) == (200, None, 2)


async def test_an_answer_that_is_too_large_to_be_sent_is_kept_here() -> None:
    """The owner never hears of it."""

    async def large(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for _ in range(5):
            writer.write(an_event("x" * (COMPLETION_SHARED_BYTES // 4)))
            await writer.drain()
        writer.write(an_event("", "stop") + END)
        await writer.drain()

    async with an_owned_mesh(large, Counting()) as (entry, mesh, _):
        replies = [await entry.chat(temperature=0, stream=True) for _ in range(2)]
        counters = entry.door.counters()
        sent = [head for _, head in mesh.heads if head.kept is not None and head.kept.keeps]

    assert [reply.headers.get("x-cache") for reply in replies] == [None, "hit"]
    assert (counters["completion_cache_unsent"], sent) == (1, [])


async def test_a_client_that_leaves_ends_its_lookup() -> None:
    """And no engine is asked for it; the node is as well as before."""

    def hold(near: Half, far: Half) -> None:
        del near
        far.is_held = True

    async with an_owned_mesh() as (entry, mesh, engine):
        await entry.chat(temperature=0)
        await until_counted(mesh.houses[SECOND], "taken")
        forget(entry)
        mesh.faults[SECOND] = hold
        client = await entry.connect()
        asked = len(mesh.heads)
        await client.send(a_post(a_chat(temperature=0)))
        await until(lambda: len(mesh.heads) > asked, "the lookup")
        await leave(client, "reset")
        await until(lambda: entry.door.connections == 0, "the client to be gone")
        del mesh.faults[SECOND]
        reply = await entry.chat(temperature=0)

    assert reply.status == 200
    assert len(engine.asked) <= 2


async def test_lookups_and_sends_have_a_bound() -> None:
    """Those beyond it are computed, and kept here alone."""
    count = 2 * max(COMPLETION_LOOKUPS, COMPLETION_SENDS)

    def hold(near: Half, far: Half) -> None:
        near.is_held = far.is_held = True

    async with an_owned_mesh() as (entry, mesh, engine):
        for number in range(count):
            await entry.chat(seed=number)
        await until_counted(mesh.houses[SECOND], "taken", count)
        forget(entry)
        before, mesh.faults[SECOND] = len(mesh.heads), hold
        replies = await asyncio.gather(*(entry.chat(seed=number) for number in range(count)))
        keeps = [head.kept.keeps for _, head in mesh.heads[before:] if head.kept is not None]

    assert {reply.status for reply in replies} == {200}
    assert len(engine.asked) == 2 * count
    assert 0 < keeps.count(False) <= COMPLETION_LOOKUPS
    assert keeps.count(True) <= COMPLETION_SENDS


async def test_a_full_engine_refuses_after_a_lookup_as_before_one() -> None:
    """A request whose answer is not there is told at once that there is no room; one whose answer is there has it."""
    async with a_mesh(Counting(), Counting(), models=lambda socket: (a_planned_model(socket),)) as (entry, mesh):
        entry.engine.answer, own = Counting(), tuple(entry.views.newest.local.values())
        members = MappingProxyType({SECOND: an_owner()})
        entry.views.publish(*own, caches=ON, members=members, engine_build=BUILD)
        recipe = recipe_of(own[0], BUILD)
        show(mesh.houses[SECOND], replicas=(a_replica(FIRST, recipe=recipe),))
        mesh.rights = GUEST
        await entry.chat(seed=1)
        await until_counted(mesh.houses[SECOND], "taken")
        forget(entry)
        traffic = entry.door.traffic.of(own[0].id)
        for _ in range(admitted(own[0].slots)):
            traffic.begin()
        full, kept = await entry.chat(seed=2), await entry.chat(seed=1)
        for _ in range(admitted(own[0].slots)):
            traffic.end(is_failure=False)
        after = await entry.chat(seed=2)

    assert (full.status, full.error["code"]) == (429, "overloaded")
    assert (kept.status, kept.headers.get("x-cache")) == (200, "hit")
    assert (after.status, after.headers.get("x-cache")) == (200, None)
