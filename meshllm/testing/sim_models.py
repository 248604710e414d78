"""Engines of a simulated mesh: a small model on disk that is ready a moment after it is asked for.

Owns the pretended facts about files and machines. Decides nothing. Doesn't know nodes: `sim` hands the
events to whichever core they are for.
"""

from meshllm.core import events as ev
from meshllm.core.catalog import Architecture, ModelSpec
from meshllm.core.engines import EngineBuild, EngineEndpoint, EngineFailure, EngineFault
from meshllm.core.events import Event
from meshllm.core.ids import ModelId
from meshllm.core.limits import GIB, MIB
from meshllm.core.resources import Resources

LOAD_S = 1.0
_LLAMA = Architecture(
    name="llama", layers=30, embedding=576, heads=9, kv_heads=3, key_length=64, value_length=64, vocabulary=49_152,
    context_tokens=8192,
)  # fmt: skip


def having(*models: str) -> tuple[Event, ...]:
    """Return what a node learns at its start: its machine, its engine, and its files, which it then serves.

    A name may carry a file's mark: `tiny` and `tiny=b` are two files of one name, `other=tiny` is the
    first one under another name.
    """
    return (
        ev.ResourcesMeasured(resources=Resources(cores=4, memory_total_bytes=16 * GIB, memory_free_bytes=16 * GIB)),
        ev.EngineProbed(build=EngineBuild(kind="fake", version="1", uses_gpu=False)),
        ev.InventoryChanged(models=tuple(_spec(model) for model in models)),
    )


def _spec(text: str) -> ModelSpec:
    name, _, mark = text.partition("=")
    path = f"/models/{name}.gguf"
    return ModelSpec(
        id=ModelId(name), path=path, files=(path,), size_bytes=100 * MIB, digest=f"sha256:{mark or name}",
        architecture=_LLAMA, parameters=135_000_000, quantization="Q4_1", capabilities=frozenset({"chat"}),
    )  # fmt: skip


def ready(model: ModelId) -> Event:
    """Return the event of an engine that answers."""
    return ev.EngineReady(
        model=model, endpoint=EngineEndpoint(socket_path=f"/run/{model}.sock"), pid=1, context_tokens=8192, slots=4,
        load_s=LOAD_S,
    )  # fmt: skip


def stopped(model: ModelId) -> Event:
    """Return the event of an engine whose process was ended."""
    return ev.EngineExited(model=model, failure=EngineFailure(fault=EngineFault.STOPPED, message="it was stopped"))
