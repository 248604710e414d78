"""The prompt cache of a real engine: what it finds, what it takes, and what an eviction frees."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.daemons import Daemon, until
from tests.engine_real import prompts
from tests.engine_real.prompts import SMOL, WITHIN_S

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]
MB = 1024 * 1024
CONFIG = """\
[cache]
global_cache_size_gb = 0.0625
min_ram_mb = 1
"""


@pytest.fixture
def node(tmp_path: Path, smollm2: str) -> Iterator[Daemon]:
    """Start a node whose one engine may keep 64 MB of prompts beside its only slot."""
    with prompts.a_node(tmp_path, smollm2, CONFIG, slots=1) as daemon:
        yield daemon


def ask(node: Daemon, seed: int) -> int:
    """Ask some two hundred tokens."""
    return prompts.ask(node, seed, words=150)


def use(node: Daemon) -> dict[str, Any]:
    """Return what is known of the model's cache."""
    found: dict[str, Any] = node.get("/metrics/cache?detailed=true")["per_model"][SMOL]
    return found


def slots_tell_all(found: dict[str, Any]) -> bool:
    """Tell whether what is known of slots adds up to what the engine counted."""
    slots = found["nodes"][0]["slots"]
    hit, miss = (sum(slot[key] for slot in slots) for key in ("hit_tokens", "miss_tokens"))
    return bool((hit, hit + miss) == (found["hit_tokens"], found["prompt_tokens"]))


def engine(node: Daemon) -> psutil.Process:
    """Return the process of the engine."""
    (pid,) = [one["pid"] for one in node.get("/api/status")["models"] if one["id"] == SMOL]
    return psutil.Process(pid)


def own_bytes(process: psutil.Process) -> int:
    """Return the memory that a process wrote itself, by the kernel's account."""
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


@pytest.mark.rows("T16", "CAC-5", "CAC-6", "CAC-7")
def test_an_eviction_frees_what_real_prompts_took(node: Daemon) -> None:
    """Prompts come back from the cache; a smaller whole has the engine started anew, and the bytes are gone."""
    empty_bytes = own_bytes(engine(node))
    for seed in (1, 2, 3, 4):
        ask(node, seed)
    assert ask(node, 1) > 100
    until(lambda: use(node)["hit_tokens"] > 100 and slots_tell_all(use(node)), "all five requests are read", WITHIN_S)

    full, before = use(node), engine(node)
    taken_bytes = own_bytes(before) - empty_bytes
    reply = node.request("POST", "/cache/allocation", {"global_cache_size_gb": 0.008})
    assert reply.status == 200, reply.body
    until(lambda: use(node)["evictions"] == 1, "the cache is evicted", WITHIN_S)
    node.until_model(SMOL, phase="ready", within_s=WITHIN_S)
    evicted, after = use(node), engine(node)

    assert taken_bytes > 10 * MB
    assert 0.5 * full["size_bytes"] < taken_bytes < 2 * full["size_bytes"]
    assert not before.is_running()
    assert own_bytes(after) < empty_bytes + taken_bytes / 2
    assert evicted["size_bytes"] < full["size_bytes"] / 2
    assert evicted["nodes"][0]["freed_bytes"] >= full["size_bytes"]
    assert len(full["nodes"][0]["slots"]) == 1
    assert ask(node, 5) < 50
