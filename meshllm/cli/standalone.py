"""Answers of commands while no node runs: from the disk and the machine themselves.

Owns the one lazy way from a command into the daemon's package, besides `serve`. Doesn't print.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from meshllm.cli.failures import CommandError
from meshllm.config import Config
from meshllm.core.catalog import ModelProblem, ModelSpec
from meshllm.core.doctor.discovery import Search
from meshllm.core.doctor.findings import Finding
from meshllm.core.engine_builds import StoredBuild
from meshllm.core.engines import EngineBuild, EngineFailure, RpcBuild
from meshllm.core.resources import Resources


def models(config: Config) -> tuple[tuple[ModelSpec, ...], tuple[ModelProblem, ...]]:
    """Return the models on disk, and the files that look like models and are none."""
    from meshllm.daemon import standalone

    return standalone.models(config)


def find(config: Config, asked: str) -> ModelSpec:
    """Return the model on disk that a name means. Raises CommandError."""
    from meshllm.daemon import standalone

    try:
        return standalone.find_model(config, asked)
    except standalone.StandaloneError as error:
        raise CommandError(error.message) from None


def pull(config: Config, name: str, on_progress: Callable[[int, int], None]) -> Path:
    """Download a model and return its file. Raises CommandError."""
    from meshllm.daemon import standalone

    try:
        return asyncio.run(standalone.pull(config, name, on_progress))
    except standalone.StandaloneError as error:
        raise CommandError(error.message) from None


def remove(config: Config, name: str) -> tuple[Path, ...]:
    """Delete a model's files and return them. Raises CommandError."""
    from meshllm.daemon import standalone

    try:
        return standalone.remove(config, name)
    except standalone.StandaloneError as error:
        raise CommandError(error.message) from None


def engine(config: Config) -> EngineBuild | EngineFailure:
    """Return what the engine's self-test finds."""
    from meshllm.daemon import standalone

    return asyncio.run(standalone.engine(config))


def sharing(config: Config) -> RpcBuild | str:
    """Return what this node would share models with, or why it cannot."""
    from meshllm.daemon import standalone

    found = asyncio.run(standalone.sharing(config))
    return found if isinstance(found, RpcBuild) else found.message


def stored_builds(config: Config) -> tuple[StoredBuild, ...]:
    """Return the builds of the engine that shares models which lie in the cache, the one in use first."""
    from meshllm.daemon import standalone

    return standalone.stored_builds(config)


def build_engine(
    config: Config, tell: Callable[[str, int, int], None], *, native: bool, cpu: bool, jobs: int, wheel: Path | None
) -> RpcBuild:
    """Build what shares models with other machines; `tell` hears (step, done, total). Raises CommandError."""
    from meshllm.daemon import standalone

    try:
        return asyncio.run(standalone.build_engine(config, tell, native=native, cpu=cpu, jobs=jobs, wheel=wheel))
    except standalone.StandaloneError as error:
        raise CommandError(error.message) from None


def checks(config: Config) -> tuple[Finding, ...]:
    """Return what `doctor` finds by itself."""
    from meshllm.daemon import checks

    return asyncio.run(checks.checks(config))


def search(config: Config, asked: str) -> Search:
    """Return what the model folders tell of a model that somebody misses."""
    from meshllm.daemon import checks

    return checks.search(config, asked)


def resources(config: Config) -> Resources:
    """Return what this machine has and what is free."""
    from meshllm.daemon import standalone

    return standalone.resources(config)


def memory(config: Config, spec: ModelSpec, measured: Resources, *, uses_gpu: bool) -> tuple[tuple[str, str], ...]:
    """Return the memory arithmetic of a model as (what, how much), as if it were loaded beside what runs."""
    from meshllm.daemon import wishes

    return wishes.memory(config, spec, measured, uses_gpu=uses_gpu)


def is_member(config: Config) -> bool:
    """Tell whether this node belongs to a mesh already."""
    from meshllm.daemon.mesh_files import MESH_NAME

    return not config.client and (config.state_dir / MESH_NAME).exists()


def meshes_in_reach(config: Config) -> tuple[tuple[str, str, int], ...]:
    """Return the meshes that are seen on the local network, as (tag, name, nodes)."""
    from meshllm.daemon import lan

    return asyncio.run(lan.meshes(lan.multicast_hosts(config.bind_ip)))
