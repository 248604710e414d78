"""Conversations on the disk: saved and read back by engines, within bytes, and never at the price of an engine."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from meshllm.core import events as ev
from meshllm.core.caches.slot_files import slots_key
from meshllm.core.engines import EngineBuild, EngineFault, EnginePlan
from meshllm.core.ids import ModelId
from meshllm.core.limits import MIB
from meshllm.engine import health, slot_store
from meshllm.engine.slot_store import SlotStore
from tests.engine.builders import Bench, a_bench, a_fake_build, a_plan

TINY = ModelId("tiny")
BUILD = a_fake_build(cached_tokens=-1)
WORDS = " ".join(f"word{number}" for number in range(100))


async def ask(ready: ev.EngineReady) -> int:
    """Send the same long prompt to an engine; return how many of its tokens were cached."""
    connector = aiohttp.UnixConnector(ready.endpoint.socket_path)
    headers = {"Authorization": f"Bearer {ready.endpoint.key}"}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.post("http://engine/v1/completions", json={"prompt": WORDS, "max_tokens": 1}) as answer,
    ):
        told = await answer.json()
        cached: int = told["usage"]["prompt_tokens_details"]["cached_tokens"]
        return cached


@asynccontextmanager
async def saving(
    tmp_path: Path, runtime_dir: Path, build: EngineBuild = BUILD, *, most_bytes: int = 100 * MIB
) -> AsyncIterator[tuple[Bench, SlotStore]]:
    """Yield a supervisor whose engines save their conversations, and where."""
    store = SlotStore(tmp_path / "slots")
    await store.keep(most_bytes)
    async with a_bench(build, runtime_dir) as bench:
        bench.supervisor.slots = store
        yield bench, store


async def lived(bench: Bench, plan: EnginePlan, *, slots_bytes: int = 100 * MIB, asks: bool = True) -> int:
    """Let an engine live: load, be asked, end; return what it found cached."""
    bench.supervisor.start(plan)
    ready = await bench.next(ev.EngineReady)
    cached = await ask(ready) if asks else 0
    bench.supervisor.stop(TINY, slots_bytes=slots_bytes)
    failure = await bench.end()
    assert failure.fault is EngineFault.STOPPED
    return cached


def files(store: SlotStore) -> list[str]:
    """Return what lies in the folder."""
    return sorted(one.name for one in store.folder.iterdir()) if store.folder.is_dir() else []


@pytest.mark.rows("CAC-1")
async def test_the_next_engine_of_a_model_finds_what_the_last_one_had(
    tmp_path: Path, runtime_dir: Path, model_file: str
) -> None:
    """Also where one between them was never asked."""
    plan = a_plan(model_file)
    async with saving(tmp_path, runtime_dir) as (bench, store):
        first = await lived(bench, plan)
        saved = files(store)
        await lived(bench, plan, asks=False)
        between = files(store)
        second = await lived(bench, plan)

    assert (first, second) == (0, 99)
    assert saved == between == [f"{slots_key(plan, BUILD)}-0.slot"]


async def test_nothing_is_saved_where_that_is_not_asked_for(tmp_path: Path, runtime_dir: Path, model_file: str) -> None:
    """No bytes for this model, none for all, or an engine that is killed."""
    async with saving(tmp_path, runtime_dir) as (bench, store):
        await lived(bench, a_plan(model_file), slots_bytes=0)
        bench.supervisor.start(a_plan(model_file))
        await ask(await bench.next(ev.EngineReady))
        bench.supervisor.stop(TINY, kill=True, slots_bytes=100 * MIB)
        await bench.end()
        unasked = files(store)
    async with saving(tmp_path, runtime_dir, most_bytes=0) as (bench, store):
        await lived(bench, a_plan(model_file))

    assert (unasked, files(store)) == ([], [])


async def test_other_engines_read_nothing_of_it(tmp_path: Path, runtime_dir: Path, model_file: str) -> None:
    """Another context, or what is no saved slot: the engine is ready all the same, and the file is gone."""
    plan = a_plan(model_file)
    async with saving(tmp_path, runtime_dir) as (bench, store):
        await lived(bench, plan)
        other = await lived(bench, a_plan(model_file, context_tokens=1024), slots_bytes=0)
        kept = files(store)
        (store.folder / kept[0]).write_bytes(b"\xffrubbish")
        broken = await lived(bench, plan, slots_bytes=0)

    assert (other, broken) == (0, 0)
    assert kept == [f"{slots_key(plan, BUILD)}-0.slot"]
    assert files(store) == []


async def test_an_engine_that_breaks_on_a_file_does_not_meet_it_again(
    tmp_path: Path, runtime_dir: Path, model_file: str
) -> None:
    """What it was about to read is taken away by the next look."""
    plan = a_plan(model_file)
    async with saving(tmp_path, runtime_dir) as (bench, store):
        store.folder.mkdir()
        (store.folder / f"{slots_key(plan, BUILD)}-0.once").write_text(json.dumps(WORDS.split()), encoding="utf-8")
        cached = await lived(bench, plan, slots_bytes=0)

    assert (cached, files(store)) == (0, [])


async def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    """When less is allowed, and all when nothing is."""
    store = SlotStore(tmp_path)
    for number in range(4):
        (tmp_path / f"{number}.slot").write_bytes(b"x" * 100)
        await asyncio.to_thread(_aged, tmp_path / f"{number}.slot", number)
    found = []
    for most_bytes in (400, 399, 200, 0):
        await store.keep(most_bytes)
        found.append(files(store))

    names = [f"{number}.slot" for number in range(4)]
    assert found == [names, names[1:], names[2:], []]


def _aged(file: Path, at_s: int) -> None:
    os.utime(file, (at_s, at_s))


@pytest.mark.parametrize("trouble", ["full", "refuses", "silent"])
async def test_an_engine_ends_whatever_becomes_of_its_conversations(
    tmp_path: Path, runtime_dir: Path, model_file: str, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """A full disk, an engine that refuses, one that does not get on: nothing half written is left."""

    async def failing(endpoint: object, slot: int, action: str, name: str, within_s: float) -> int:
        (tmp_path / "slots" / name).write_bytes(b"half")
        if trouble == "silent":
            try:
                async with asyncio.timeout(within_s):
                    await asyncio.Event().wait()
            except TimeoutError as error:
                raise health.ProbeError("silent") from error
        raise health.ProbeError("no")

    plan = a_plan(model_file)
    async with saving(tmp_path, runtime_dir) as (bench, store):
        if trouble == "full":
            monkeypatch.setattr(slot_store, "disk_reserve_bytes", lambda _: 1 << 60)
        else:
            monkeypatch.setattr(health, "slot_action", failing)
            monkeypatch.setattr(slot_store, "SLOTS_SAVE_S", 0.3)
        await lived(bench, plan)

    assert files(store) == []


async def test_one_who_is_in_a_hurry_does_not_wait_for_conversations(
    tmp_path: Path, runtime_dir: Path, model_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second order, to kill, ends the engine while it saves, and nothing half written is left."""
    began = asyncio.Event()

    async def slow(endpoint: object, slot: int, action: str, name: str, within_s: float) -> int:
        (tmp_path / "slots" / name).write_bytes(b"half")
        began.set()
        await asyncio.Event().wait()
        return 0

    async with saving(tmp_path, runtime_dir) as (bench, store):
        bench.supervisor.start(a_plan(model_file))
        await ask(await bench.next(ev.EngineReady))
        monkeypatch.setattr(health, "slot_action", slow)
        bench.supervisor.stop(TINY, slots_bytes=100 * MIB)
        await began.wait()
        bench.supervisor.stop(TINY, kill=True)
        failure = await bench.end()

    assert failure.fault is EngineFault.STOPPED
    assert files(store) == []
