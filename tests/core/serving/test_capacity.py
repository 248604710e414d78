"""Memory arithmetic: nothing is planned that does not fit, and what fits is used well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.engines import EngineOptions, EnginePlan
from meshllm.core.ids import ModelId
from meshllm.core.limits import GIB, MIB
from meshllm.core.policy import ModelPolicy
from meshllm.core.resources import MemoryLimit
from meshllm.core.serving.capacity import (
    EngineWishes,
    NoRoom,
    Room,
    corrected,
    explain,
    overhead_bytes,
    plan_engine,
    room_for_one_more,
)
from tests.core.builders import A_BUILD, A_GPU_BUILD, NO_WISHES, a_gpu, a_machine, a_spec

HALF = MemoryLimit(share=0.5)


def planned(spec_bytes: int = 100 * MIB, *, gpu: int = 0, host: int = 16 * GIB, **wishes: int) -> EnginePlan:
    """Return a plan for a room, which must fit."""
    plan = plan_engine(
        a_spec(size_bytes=spec_bytes), Room(gpu_bytes=gpu, host_bytes=host), EngineWishes(**wishes), a_machine()
    )
    assert isinstance(plan, EnginePlan)
    return plan


@pytest.mark.rows("LIF-18")
@given(
    size=st.integers(1 * MIB, 40 * GIB), host=st.integers(0, 64 * GIB), gpu=st.integers(0, 48 * GIB),
    context=st.sampled_from([512, 8192, 131072]), shrink=st.integers(0, 2),
)  # fmt: skip
def test_a_plan_never_takes_more_than_the_room(size: int, host: int, gpu: int, context: int, shrink: int) -> None:
    """An engine that is started must not be the one that runs the machine out of memory."""
    room = Room(gpu_bytes=gpu, host_bytes=host)

    plan = plan_engine(
        a_spec(size_bytes=size, context_tokens=context), room, EngineWishes(), a_machine(), shrink=shrink
    )

    if isinstance(plan, EnginePlan):
        assert plan.memory.total_bytes <= gpu + host
        assert plan.slots >= 1
        assert plan.context_tokens >= 256
    else:
        assert plan.needed_bytes > plan.free_bytes


@pytest.mark.rows("QTA-1")
@given(
    size=st.integers(1 * MIB, 40 * GIB), host=st.integers(0, 64 * GIB), gpu=st.integers(0, 48 * GIB),
    most_mb=st.integers(1, 40_000), layers=st.sampled_from([None, 0, 12, 99]),
)  # fmt: skip
def test_a_plan_never_takes_more_than_its_quota(
    size: int, host: int, gpu: int, most_mb: int, layers: int | None
) -> None:  # fmt: skip
    """Wherever it lies, with its prompt cache; what cannot do with that little is not started."""
    wishes = EngineWishes(most_bytes=most_mb * MIB, gpu_layers=layers)

    plan = plan_engine(a_spec(size_bytes=size), Room(gpu_bytes=gpu, host_bytes=host), wishes, a_machine())

    if isinstance(plan, EnginePlan):
        assert plan.memory.total_bytes <= min(most_mb * MIB, gpu + host)
    else:
        assert plan.needed_bytes > plan.free_bytes


def test_a_small_model_on_a_large_machine_gets_its_whole_context_in_four_slots() -> None:
    """Room that is there is used: four conversations of full length at once."""
    plan = planned()

    assert (plan.context_tokens, plan.slots, plan.cache_tokens) == (8192, 4, 4 * 8192)
    assert plan.memory.kv_bytes == 4 * 8192 * 30 * 3 * 128 * 2


@pytest.mark.parametrize(
    ("host_mib", "context", "slots"),
    [(4000, 8192, 4), (1800, 8192, 2), (1100, 8192, 1), (700, 4864, 1), (400, 4096, 1)],
)
def test_a_smaller_room_costs_slots_first_and_then_context(host_mib: int, context: int, slots: int) -> None:
    """A long conversation that fits is worth more than a second one at the same time."""
    plan = planned(host=host_mib * MIB)

    assert (plan.context_tokens, plan.slots) == (context, slots)
    assert plan.memory.total_bytes <= host_mib * MIB


def test_wished_slots_share_what_there_is() -> None:
    """`--parallel` alone: everyone gets the same, and less where memory is short."""
    plans = [planned(host=host * MIB, slots=8) for host in (16000, 700)]

    assert [plan.slots for plan in plans] == [8, 8]
    assert [plan.context_tokens for plan in plans] == [8192, 2304]


def test_wishes_are_for_one_request() -> None:
    """`--ctx-size` is what each request gets; the slots multiply the cache, not the promise."""
    plan = planned(context_tokens=2048, slots=2, threads=1)

    assert (plan.context_tokens, plan.slots, plan.threads) == (2048, 2, 1)
    assert plan.memory.kv_bytes == 2 * 2048 * 30 * 3 * 128 * 2


@pytest.mark.parametrize(("wished", "planned_tokens"), [(1000, 1024), (5_000, 5_120), (100_000, 8192)])
def test_a_wish_is_counted_as_the_engine_takes_it(wished: int, planned_tokens: int) -> None:
    """llama.cpp pads a slot upwards, and gives none more than the model was trained for."""
    assert planned(context_tokens=wished).context_tokens == planned_tokens


def test_a_wish_that_does_not_fit_is_not_cut_in_silence() -> None:
    """Whoever asks for four long conversations learns what they take."""
    wishes = EngineWishes(context_tokens=8192, slots=4)

    lack = plan_engine(a_spec(), Room(gpu_bytes=0, host_bytes=900 * MIB), wishes, a_machine())

    assert isinstance(lack, NoRoom)
    assert lack.needed_bytes > 4 * 8192 * 30 * 3 * 128 * 2


def test_shrinking_halves_the_cache_slots_first() -> None:
    """An engine that ran out of memory is tried once more with half."""
    spec, room = a_spec(), Room(gpu_bytes=0, host_bytes=16 * GIB)

    plans = [plan_engine(spec, room, EngineWishes(), a_machine(), shrink=shrink) for shrink in range(9)]

    sizes = [(plan.context_tokens, plan.slots) for plan in plans if isinstance(plan, EnginePlan)]
    assert sizes[:4] == [(8192, 4), (8192, 2), (8192, 1), (4096, 1)]
    assert sizes[-1] == (512, 1)


def test_a_model_that_fits_the_gpu_goes_there_whole() -> None:
    """All layers and the output layer, so that nothing is computed on the host."""
    assert planned(gpu=24 * GIB).gpu_layers == 31


def test_a_model_larger_than_the_gpu_is_shared_with_the_host() -> None:
    """Some layers on a GPU are better than none."""
    plan = planned(20 * GIB, gpu=10 * GIB, host=64 * GIB)

    assert 0 < plan.gpu_layers < 30


def test_no_room_names_both_numbers_and_the_remedy() -> None:
    """Whoever reads it knows what is missing and what would help."""
    lack = plan_engine(a_spec(size_bytes=40 * GIB), Room(gpu_bytes=0, host_bytes=8 * GIB), EngineWishes(), a_machine())

    assert isinstance(lack, NoRoom)
    assert "needs 43.2 GB, 8.6 GB are free" in lack.message
    assert "smaller quantisation" in lack.message
    assert explain(lack)[0] == ("fits", "no")


@pytest.mark.rows("LIF-18")
def test_room_is_bounded_by_promises_and_by_measurement() -> None:
    """Memory that a starting engine will take is not there for a second one, nor what a prompt cache will fill."""
    plan = planned()
    taken = {ModelId("tiny"): plan}
    need = plan.memory.total_bytes
    machine = a_machine(memory_bytes=16 * GIB, free_bytes=15 * GIB)

    unseen = room_for_one_more(machine, A_BUILD, MemoryLimit(share=1.0), taken, frozenset({ModelId("tiny")}))
    seen = room_for_one_more(machine, A_BUILD, MemoryLimit(share=1.0), taken)

    assert unseen.host_bytes == 15 * GIB - need
    assert seen.host_bytes == min(15 * GIB - plan.memory.prompt_cache_bytes, 16 * GIB - need)
    assert plan.memory.prompt_cache_bytes > 0


def test_a_promise_is_raised_to_what_was_measured_and_never_lowered() -> None:
    """An estimate that was too low must not let a second engine take memory that is gone."""
    plan = planned()
    loaded_bytes = plan.memory.total_bytes - plan.memory.prompt_cache_bytes

    more, less = corrected(plan, loaded_bytes + GIB), corrected(plan, loaded_bytes // 2)

    assert more.memory.total_bytes == plan.memory.total_bytes + GIB
    assert more.memory.overhead_bytes == plan.memory.overhead_bytes + GIB
    assert less == plan


def test_what_is_resident_beside_a_gpu_corrects_nothing() -> None:
    """Those are the file's pages, which the system takes back."""
    plan = planned(gpu=24 * GIB)

    assert corrected(plan, 20 * GIB) == plan


def test_the_limit_is_about_the_gpu_where_the_engine_uses_one() -> None:
    """`--max-vram` means the GPU's memory, or the machine's where there is no GPU."""
    machine = a_machine(gpus=(a_gpu(),))

    assert room_for_one_more(machine, A_GPU_BUILD, HALF, {}).gpu_bytes == 12 * GIB
    assert room_for_one_more(machine, A_BUILD, HALF, {}) == Room(gpu_bytes=0, host_bytes=8 * GIB)


def test_what_other_programs_hold_on_the_gpu_is_not_free() -> None:
    """The measured free memory bounds, not the size on the box."""
    machine = a_machine(gpus=(a_gpu(free_bytes=3 * GIB),))

    assert room_for_one_more(machine, A_GPU_BUILD, HALF, {}).gpu_bytes == 3 * GIB


def test_the_arithmetic_can_be_shown() -> None:
    """`show` prints where the bytes go."""
    rows = dict(explain(planned()))

    assert rows["weights"] == "105 MB"
    assert rows["KV cache"] == "755 MB for 4 requests at a time, 8192 tokens each"
    assert dict(explain(planned(slots=1)))["KV cache"] == "189 MB for 1 request, 8192 tokens each"
    assert rows["overhead"] == f"{overhead_bytes(a_spec()) / 1e6:.0f} MB"


@given(
    size=st.integers(1 * MIB, 40 * GIB), host=st.integers(0, 64 * GIB), gpu=st.integers(0, 48 * GIB),
    layers=st.integers(0, 40),
)  # fmt: skip
def test_wished_layers_lie_where_they_were_wished_and_fit_there(size: int, host: int, gpu: int, layers: int) -> None:
    """Neither the GPU nor the machine is promised more than it has."""
    room = Room(gpu_bytes=gpu, host_bytes=host)

    plan = plan_engine(a_spec(size_bytes=size), room, EngineWishes(gpu_layers=layers), a_machine())

    if isinstance(plan, EnginePlan):
        on_gpu = int((plan.memory.total_bytes - plan.memory.prompt_cache_bytes) * min(layers / 30, 1.0))
        assert plan.gpu_layers == min(layers, 31)
        assert on_gpu <= gpu
        assert plan.memory.total_bytes - on_gpu <= host + MIB  # a part of a byte for every term that is rounded
    else:
        assert plan.needed_bytes > plan.free_bytes


@pytest.mark.rows("CFG-6")
def test_what_is_said_of_a_model_holds_over_what_is_said_of_all() -> None:
    """Models of one node differ in context, slots, layers and arguments."""
    every = EngineWishes(context_tokens=8192, slots=4, threads=2, max_memory=HALF)
    said = ModelPolicy(
        name="tiny", context_tokens=1024, gpu_layers=0, chat_template="/t.jinja", has_jinja=False, kind="text",
        engine_args=("--seed", "1"), temperature=0.5, max_tokens=64, load_timeout_s=7.0,
    )  # fmt: skip

    wishes = every.for_model(said)
    plan = plan_engine(a_spec(), Room(gpu_bytes=48 * GIB, host_bytes=48 * GIB), wishes, a_machine())

    assert isinstance(plan, EnginePlan)
    assert (plan.context_tokens, plan.slots, plan.threads, plan.gpu_layers) == (1024, 4, 2, 0)
    assert wishes.max_memory == HALF
    assert plan.options == EngineOptions(
        chat_template="/t.jinja", has_jinja=False, kind="text", load_timeout_s=7.0,
        arguments=("--temp", "0.5", "--predict", "64", "--seed", "1"),
    )  # fmt: skip
    assert every.for_model(ModelPolicy(name="other")) == every


@given(gpu=st.integers(0, 4 * GIB), host=st.integers(0, 4 * GIB), layers=st.integers(1, 80))
def test_a_model_on_both_takes_no_more_of_either_than_there_is(gpu: int, host: int, layers: int) -> None:
    """The GPU takes whole layers: what is left of it is not the machine's."""
    room = Room(gpu_bytes=gpu, host_bytes=host)
    plan = plan_engine(a_spec(size_bytes=GIB, layers=layers), room, NO_WISHES, a_machine(gpus=(a_gpu(),)))

    if isinstance(plan, EnginePlan):
        device = plan.memory.total_bytes - plan.memory.prompt_cache_bytes
        on_gpu = int(device * min(plan.gpu_layers / layers, 1.0))
        assert on_gpu <= gpu
        assert device - on_gpu + plan.memory.prompt_cache_bytes <= host + 1


@pytest.mark.parametrize(("share_bytes", "room_bytes"), [(64 * MIB, 8 * GIB), (100 * GIB, 8 * GIB), (0, 8 * GIB)])
def test_a_share_of_the_prompt_cache_is_given_as_far_as_memory_is_left(share_bytes: int, room_bytes: int) -> None:
    """Half of the room beside a model at most: the rest is for other models. What is modest does not count then."""
    room = Room(gpu_bytes=0, host_bytes=room_bytes)

    plan = plan_engine(a_spec(), room, EngineWishes(prompt_cache_bytes=share_bytes), a_machine())

    assert isinstance(plan, EnginePlan)
    need = plan.memory
    beside = room_bytes - (need.total_bytes - need.prompt_cache_bytes)
    assert need.prompt_cache_bytes == min(share_bytes, beside // 2)
