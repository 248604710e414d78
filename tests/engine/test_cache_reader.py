"""Readings of an engine's prompt cache: from an engine double that counts as llama.cpp does."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshllm.core import events as ev
from meshllm.engine.cache_reader import CacheReader, counters
from meshllm.engine.health import ProbeError
from meshllm.engine.output import LogRing
from meshllm.engine.usage import Usage
from tests.engine.builders import Bench, a_bench, a_fake_build, a_plan

WITHIN_S = 30.0


async def chat(ready: ev.EngineReady, text: str) -> None:
    """Have an engine answer."""
    connector = aiohttp.UnixConnector(ready.endpoint.socket_path)
    async with aiohttp.ClientSession(connector=connector) as session:
        body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
        headers = {"Authorization": f"Bearer {ready.endpoint.key}"}
        async with session.post("http://engine/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status == 200


async def started(bench: Bench, path: Path) -> ev.EngineReady:
    """Start an engine and return what it says when it is ready."""
    model = path / "tiny.gguf"
    model.write_bytes(b"GGUF")
    bench.supervisor.start(a_plan(str(model)))
    return await bench.next(ev.EngineReady)


@pytest.mark.rows("CAC-5")
async def test_a_life_tells_what_its_engine_found_cached(runtime_dir: Path, tmp_path: Path) -> None:
    """Soon after something passed through it; nothing more while nothing does."""
    async with a_bench(a_fake_build(cached_tokens=-1), runtime_dir) as bench:
        ready = await started(bench, tmp_path)
        empty = (await bench.next(ev.CacheMeasured)).reading

        await chat(ready, "one two three four")
        await chat(ready, "one two three four")
        bench.traffic.last_byte_s = 1.0
        used = empty
        while not used.hit_tokens:  # a look may come between the two
            used = (await bench.next(ev.CacheMeasured)).reading

        assert (empty.hit_tokens, empty.miss_tokens) == (0, 0)
        assert (used.hit_tokens, used.miss_tokens) == (4, 6)


async def test_a_reader_is_silent_without_news(runtime_dir: Path, tmp_path: Path) -> None:
    """It asks when something passed, and once more; it tells what differs. What its process took before is no cache."""
    async with a_bench(a_fake_build(cached_tokens=-1), runtime_dir) as bench:
        ready = await started(bench, tmp_path)
        taken = [100]
        reader = CacheReader(
            ready.endpoint, LogRing(), lambda: Usage(resident_bytes=500, anonymous_bytes=taken[0], cpu_s=0.0)
        )
        await chat(ready, "one two")

        first, unchanged = await reader.news(1.0, WITHIN_S), await reader.news(2.0, WITHIN_S)
        taken[0] = 130
        grown = await reader.news(2.0, WITHIN_S)
        taken[0] = 140
        settled = await reader.news(2.0, WITHIN_S)
        later = await reader.news(3.0, WITHIN_S)

        assert first is not None
        assert (first.miss_tokens, first.size_bytes) == (3, 0)
        assert (unchanged, settled) == (None, None)
        assert grown is not None
        assert later is not None
        assert (grown.size_bytes, later.size_bytes) == (30, 40)


async def test_an_engine_that_does_not_answer_is_asked_again(runtime_dir: Path, tmp_path: Path) -> None:
    """Its silence is no reading."""
    async with a_bench(a_fake_build(), runtime_dir) as bench:
        ready = await started(bench, tmp_path)
        reader = CacheReader(ready.endpoint, LogRing(), lambda: None)
        bench.supervisor.stop(a_plan().model.id, kill=True)
        await bench.end()

        assert await reader.news(1.0, WITHIN_S) is None
        with pytest.raises(ProbeError):
            await counters(ready.endpoint, WITHIN_S)
