"""Questions that need no running node: what is on this disk, in this machine, in reach.

Owns the composition of shells for one question at a time; every function opens what it needs and closes
it. Decides nothing. The running node's counterpart is `node`.
"""

from collections.abc import Callable
from pathlib import Path

from meshllm.config import Config
from meshllm.core.catalog import ModelProblem, ModelSpec
from meshllm.core.engine_builds import StoredBuild
from meshllm.core.engines import EngineBuild, EngineFailure, RpcBuild
from meshllm.core.known_models import aliases_of, choose_file, find, is_hub_name, reference_of, unknown_model
from meshllm.core.names import Ambiguous, NameIndex, Unknown
from meshllm.core.resources import Resources
from meshllm.daemon.downloads import ModelDownloads
from meshllm.daemon.places import DIGESTS_NAME, model_places
from meshllm.daemon.web_trust import find_trust
from meshllm.engine.build import probe_build
from meshllm.engine.inquiry import EngineUnusableError
from meshllm.engine.rpc_build import BuildWishes, RpcBuildError, build_rpc
from meshllm.engine.rpc_programs import RpcProblem, find_rpc
from meshllm.engine.rpc_store import stored
from meshllm.inventory import gpu, machine
from meshllm.inventory.digests import DigestStore
from meshllm.inventory.download_errors import DownloadError
from meshllm.inventory.model_files import delete, scan


class StandaloneError(Exception):
    """A question could not be answered; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        """Keep a word for programs and a sentence for people."""
        super().__init__(message)
        self.code = code
        self.message = message


def models(config: Config) -> tuple[tuple[ModelSpec, ...], tuple[ModelProblem, ...]]:
    """Return the models on this disk and the files that look like models and are none."""
    inventory = scan(model_places(config), DigestStore(config.state_dir / DIGESTS_NAME))
    return inventory.models, inventory.problems


def resources(_config: Config) -> Resources:
    """Return what this machine has and what is free."""
    found = gpu.probe()
    return machine.measure(found.gpus, found.problem)


async def pull(config: Config, name: str, on_progress: Callable[[int, int], None]) -> Path:
    """Download a model to the first model folder and return its file. Raises StandaloneError."""
    find_trust()
    measured = resources(config)
    usable_bytes = config.max_vram.of(measured.gpu_total_bytes or measured.memory_total_bytes)
    downloads = ModelDownloads(config.models_dirs[0], lambda: usable_bytes, offline=config.offline)
    try:
        if (found := find(name)) is not None:
            model, file = found
            reference = reference_of(model, file or choose_file(model, usable_bytes) or model.files[-1], name)
        elif is_hub_name(name):
            reference = await downloads.resolve(name)
        else:
            raise StandaloneError("model_not_found", unknown_model(name))
        return await downloads.fetch(reference, lambda done, total, _: on_progress(done, total))
    except DownloadError as error:
        raise StandaloneError(str(error.code), error.message) from error


def find_model(config: Config, name: str) -> ModelSpec:
    """Return the model on this disk that a name means. Raises StandaloneError."""
    on_disk = {spec.id: spec for spec in models(config)[0]}
    found = NameIndex(on_disk, aliases_of(on_disk)).resolve(name)
    if isinstance(found, Ambiguous):
        raise StandaloneError("ambiguous_model", f"{name!r} could mean any of: {', '.join(found.candidates)}")
    if isinstance(found, Unknown):
        hint = f"; did you mean {' or '.join(found.near)}?" if found.near else ""
        raise StandaloneError("model_not_found", f"no model {name!r} is on this disk{hint}")
    return on_disk[found]


def remove(config: Config, name: str) -> tuple[Path, ...]:
    """Delete a model's files and return which they were. Raises StandaloneError."""
    try:
        return delete(find_model(config, name))
    except OSError as error:
        raise StandaloneError("cannot_remove", f"cannot remove {error.filename}: {error.strerror}") from error


async def engine(config: Config) -> EngineBuild | EngineFailure:
    """Run the engine's self-test and return the build, or why there is none."""
    try:
        return await probe_build(config.engine, cache_dir=config.cache_dir)
    except EngineUnusableError as error:
        return error.failure


async def sharing(config: Config) -> RpcBuild | RpcProblem:
    """Return what this node would share models with, or why it cannot. What failed before is tested again."""
    return await find_rpc(config.cache_dir, _named_engine(config), again=True)


def stored_builds(config: Config) -> tuple[StoredBuild, ...]:
    """Return what `build_engine` has made and kept, the one in use first."""
    return stored(config.cache_dir, _named_engine(config))


def _named_engine(config: Config) -> str:
    """Return the path of the engine that was chosen; empty where none was named so."""
    return config.engine if Path(config.engine).is_absolute() else ""


async def build_engine(
    config: Config, tell: Callable[[str, int, int], None], *, native: bool, cpu: bool, jobs: int, wheel: Path | None
) -> RpcBuild:
    """Build what shares models with other machines; `tell` hears (step, done, total). Raises StandaloneError."""
    wishes = BuildWishes(
        native=native, cpu=cpu, jobs=jobs, wheel=wheel, offline=config.offline, named=_named_engine(config)
    )  # fmt: skip
    try:
        return await build_rpc(config.cache_dir, wishes, lambda at: tell(at.step, at.done, at.total))
    except RpcBuildError as error:
        raise StandaloneError("build_failed", str(error)) from error
