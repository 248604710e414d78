"""A daemon that shares out its prompt cache: over HTTP, over restarts of engines, over its own restart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemons import Daemon, until

pytestmark = pytest.mark.e2e
Maker = Callable[..., Daemon]
NAMES = ("one", "two", "three", "four")
WITHIN_S = 90.0
"""Ten of these seconds an engine has to rest before it starts anew."""


def allocation(node: Daemon) -> dict[str, Any]:
    """Return how the cache is shared out."""
    found: dict[str, Any] = node.get("/cache/allocation")
    return found


def shares(node: Daemon) -> dict[str, int]:
    """Return the shares in megabytes."""
    return {model: one["allocated_mb"] for model, one in allocation(node)["models"].items()}


def config(folder: Path, **document: object) -> str:
    """Write a configuration and return its path."""
    file = folder / "c.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return str(file)


@pytest.mark.rows("T15", "CAC-1", "CAC-2", "CFG-20")
def test_models_that_stay_get_what_others_had(daemon: Maker, tmp_path: Path) -> None:
    """Four come and two go; what engines were told never exceeds the whole."""
    document = {"global_cache_size_gb": 0.0625, "allocation_strategy": "fair_share", "cache": {"min_ram_mb": 1}}
    arguments = [argument for name in NAMES for argument in ("--model", name)]
    with daemon(*arguments, "--config", config(tmp_path, **document), models=NAMES) as node:
        for name in NAMES:
            node.until_model(name, phase="ready")
        four = shares(node)

        for name in ("two", "four"):
            assert node.request("POST", "/v1/models/unload", {"model_id": name}).status == 200
        two, limits = shares(node), [one["limit_mb"] for one in allocation(node)["models"].values()]

        assert four == dict.fromkeys(NAMES, 16)
        assert two == {"one": 32, "three": 32}
        assert sum(limits) <= 64


@pytest.mark.rows("CAC-4", "CAC-7")
def test_a_smaller_whole_is_kept_to_without_a_request_noticing(daemon: Maker) -> None:
    """The engine starts anew when it rests, and requests wait for it; nothing was freed, so no eviction is counted."""
    with daemon("--model", "tiny", models=("tiny",)) as node:
        node.until_model("tiny", phase="ready")
        before = {engine.pid for engine in node.engines()}
        chosen = node.request("POST", "/cache/allocation", {"cache_config": {"global_cache_size_gb": 0.001}})
        until(lambda: not before & {engine.pid for engine in node.engines()}, "the engine to start anew", WITHIN_S)

        answer = node.chat()
        node.until_model("tiny", phase="ready")

        assert (chosen.status, answer.status) == (200, 200)
        assert allocation(node)["models"]["tiny"]["limit_mb"] <= 1
        assert node.get("/cache/stats")["global"]["evictions"] == 0
        node.process.terminate()
        assert node.ended() == 0
    with node:
        assert allocation(node)["global_cache_size_gb"] == 0.001


@pytest.mark.rows("CAC-5", "MET-4")
def test_what_engines_found_cached_is_counted_without_reading_answers(daemon: Maker) -> None:
    """Their own counters say it, soon after requests ended."""
    node = daemon("--model", "tiny", models=("tiny",))
    node.environment = {**node.environment, "MESH_FAKE_ENGINE": json.dumps({"cached_tokens": -1})}
    with node:
        node.until_model("tiny", phase="ready")
        for _ in range(4):
            assert node.chat("one two three four five six seven").status == 200

        found = until(lambda: node.get("/metrics/cache")["per_model"]["tiny"]["hit_rate"], "a hit rate", WITHIN_S)

        assert 0.4 < found < 1
        assert 'nopenai_cache_hit_rate{model="tiny"}' in node.request("GET", "/metrics").body.decode()
