"""The shared state of the life cycle and the small questions about it."""

from meshllm.core.catalog import ModelReference
from meshllm.core.ids import ModelId
from meshllm.core.limits import GIB
from meshllm.core.resources import MemoryLimit
from meshllm.core.serving.capacity import EngineWishes
from meshllm.core.serving.holdings import Holdings
from tests.core.builders import A_BUILD, A_GPU_BUILD, a_gpu, a_machine

HALF = EngineWishes(max_memory=MemoryLimit(share=0.5))


def test_the_first_model_wanted_is_the_default_and_stays_it() -> None:
    """The default never moves by itself."""
    held = Holdings(HALF)
    for name in ("a", "b", "a"):
        held.want(held.record_of(ModelReference(id=ModelId(name), repository="r", filename=f"{name}.gguf")))

    assert (held.default_model, held.order) == ("a", ["a", "b"])


def test_usable_memory_is_the_gpus_where_the_engine_can_use_it() -> None:
    """The catalogue picks a quantisation by this number."""
    held = Holdings(HALF)
    assert held.usable_bytes() == 0

    held.resources, held.build = a_machine(memory_bytes=64 * GIB, gpus=(a_gpu(),)), A_GPU_BUILD
    assert held.usable_bytes() == 12 * GIB
    held.build = A_BUILD
    assert held.usable_bytes() == 32 * GIB


def test_a_downloaded_model_keeps_answering_to_the_name_it_was_asked_by() -> None:
    """Clients are configured with the name on the command line."""
    held = Holdings(HALF)
    record = held.record_of(
        ModelReference(id=ModelId("M-Q4_K_M"), repository="u/r", filename="M-Q4_K_M.gguf", asked_as="u/r:Q4_K_M")
    )
    record.reference = None
    held.rename()

    assert held.names.resolve("u/r:Q4_K_M") == "M-Q4_K_M"


def test_the_name_index_is_the_same_object_while_nothing_changes() -> None:
    """A new index would make every view look different."""
    held = Holdings(HALF)
    held.record_of(ModelReference(id=ModelId("a"), repository="r", filename="a.gguf"))
    held.rename()
    names = held.names

    held.rename()

    assert held.names is names
