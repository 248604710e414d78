"""What the configuration asks of engines, and what a model takes of this machine then.

Owns the way from settings and policies to `EngineWishes`. Decides nothing: the arithmetic is `core.serving.capacity`'s.
Doesn't know whether a node runs: both it and commands without one ask here.
"""

from meshllm.config import Config
from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EngineBuild
from meshllm.core.ids import ModelId
from meshllm.core.known_models import aliases_of
from meshllm.core.names import NameIndex
from meshllm.core.resources import Resources
from meshllm.core.serving.capacity import EngineWishes, explain, plan_engine, room_for_one_more
from meshllm.core.view import MeshView
from meshllm.daemon.places import policies


def memory(config: Config, spec: ModelSpec, measured: Resources, *, uses_gpu: bool) -> tuple[tuple[str, str], ...]:
    """Return the memory arithmetic of a model as (what, how much), as if it were loaded beside what runs."""
    room = room_for_one_more(measured, EngineBuild(kind="", version="", uses_gpu=uses_gpu), config.max_vram, {})
    return explain(plan_engine(spec, room, _wishes_of(config, spec), measured))


def memory_here(config: Config, view: MeshView, model: ModelId) -> tuple[tuple[str, str], ...]:
    """Return the memory arithmetic of a model on a running node; nothing while the model or the machine is unknown."""
    known = view.local.get(model)
    if known is None or known.spec is None or view.resources is None:
        return ()
    uses_gpu = view.engine_build is not None and view.engine_build.uses_gpu
    return memory(config, known.spec, view.resources, uses_gpu=uses_gpu)


def _wishes_of(config: Config, spec: ModelSpec) -> EngineWishes:
    """Return what the configuration says about one model's engine."""
    names = NameIndex([spec.id], aliases_of([spec.id]))
    said = next((policy for policy in policies(config) if names.resolve(policy.name) == spec.id), None)
    return engine_wishes(config).for_model(said) if said is not None else engine_wishes(config)


def engine_wishes(config: Config) -> EngineWishes:
    """Return what the configuration says about engines."""
    return EngineWishes(
        context_tokens=config.ctx_size, slots=config.parallel, threads=config.threads, max_memory=config.max_vram
    )
