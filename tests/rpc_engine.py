"""The engine that shares models, for tests marked `rpc`: built once into the checkout's .cache, beside all other tests.

Owns when it is waited for: those tests come last, and the wait is no part of their time. Decides that a machine which
cannot build it skips them with the reason, and that a build which should have worked fails them.
"""

import asyncio
import functools
import os
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from meshllm.core.engines import RpcBuild
from meshllm.engine.rpc_programs import find_rpc

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "mesh-llm"
NAMED = "MESH_LLM_TEST_RPC_CACHE"
"""Variable that names a folder with such an engine, to take instead."""
BUILD_S = 1500
"""More than twice what two cores need, once nothing else runs."""
EXCUSES = (
    "no C++ compiler", "could not be fetched", "of disk", "the disk was full", "memory ran out", "pip is not installed",
    "was not done within",
)  # fmt: skip
"""What a machine may lack; any other failure is a mistake of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcEngine:
    """A build that shares models, and where it lies."""

    build: RpcBuild
    cache_dir: Path

    def lend(self, cache_dir: Path) -> None:
        """Let a daemon with a cache folder of its own find it there."""
        cache_dir.mkdir(parents=True, exist_ok=True)
        (cache_dir / "engines").symlink_to(self.cache_dir / "engines")


@functools.cache
def prepared() -> RpcEngine | str:
    """Return the engine, built first where it has to be; or why there is none."""
    named = os.environ.get(NAMED)
    cache_dir = Path(named) if named else CACHE
    if not named:
        try:
            done = subprocess.run(
                [ROOT / "scripts" / "rpc_engine"], capture_output=True, text=True, timeout=BUILD_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"its build was not done within {BUILD_S / 60:g} minutes"
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["its build said nothing"])[-1]
    found = asyncio.run(find_rpc(cache_dir))
    return RpcEngine(build=found, cache_dir=cache_dir) if isinstance(found, RpcBuild) else found.message


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with tests that need it behind all others."""
    files = {item.path for item in items if item.get_closest_marker("rpc") is not None}
    items.sort(key=lambda item: item.path in files)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for it before a test's time begins."""
    if item.get_closest_marker("rpc") is not None:
        prepared()
    return (yield)


@pytest.fixture(scope="session")
def rpc_engine() -> RpcEngine:
    """Return the engine that shares models."""
    found = prepared()
    if isinstance(found, RpcEngine):
        return found
    if any(excuse in found for excuse in EXCUSES):
        pytest.skip(f"no engine that shares models: {found}")
    pytest.fail(f"no engine that shares models: {found}", pytrace=False)
