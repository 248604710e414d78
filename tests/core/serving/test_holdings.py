"""The shared state of the life cycle and the small questions about it."""

from meshllm.core.catalog import ModelReference
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB, MIB
from meshllm.core.policy import ModelPolicy
from meshllm.core.quota_config import NO_QUOTAS
from meshllm.core.resources import MemoryLimit
from meshllm.core.serving.capacity import EngineWishes
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.records import Record
from tests.core.builders import A_BUILD, A_GPU_BUILD, a_gpu, a_machine

HALF = EngineWishes(max_memory=MemoryLimit(share=0.5))


def test_a_quota_of_memory_is_a_wish_of_that_model_alone() -> None:
    """Beside what the configuration says of it."""
    held = Holdings(EngineWishes(slots=2))
    held.quotas = NO_QUOTAS.changed(ModelId("a"), {"max_ram_mb": 100}, NodeId("me"))

    assert held.wishes_of(ModelId("a")) == EngineWishes(slots=2, most_bytes=100 * MIB)
    assert held.wishes_of(ModelId("b")) == EngineWishes(slots=2)


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


def test_what_a_configuration_says_of_a_model_is_found_by_any_of_its_names() -> None:
    """People write short names; records have canonical ones."""
    said = ModelPolicy(name="tiny-q4", aliases=("small",), min_warm=2)
    held = Holdings(HALF, (said,))
    held.records[ModelId("Tiny-Q4")] = Record(id=ModelId("Tiny-Q4"))

    held.rename()

    assert held.policy_of(ModelId("Tiny-Q4")) == said
    assert held.names.resolve("small") == "Tiny-Q4"
    assert held.policy_of(ModelId("other")).min_warm == 0
