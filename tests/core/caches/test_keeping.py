"""What shares do to engines: told as stories of a node that shares out its prompt cache."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshllm.core import events as ev
from meshllm.core.cache_config import AllocationStrategy, CacheConfig, EvictionPolicy
from meshllm.core.cache_limits import CACHE_PAUSE_S, CACHE_REST_S
from meshllm.core.effects import DrainEngine, KeepOrders, KeepSlots, KeptOrders, StopEngine
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId
from meshllm.core.intents import Verb
from meshllm.core.limits import GIB, MIB
from meshllm.core.policy import ModelPolicy
from tests.core.builders import a_machine, a_spec
from tests.core.caches.cached import WHOLE, CachedNode, some


def drained(node: CachedNode) -> list[str]:
    """Return the engines that were told to end so far."""
    return [str(one.model) for one in node.of(DrainEngine)]


@pytest.mark.rows("T15", "CAC-1", "CAC-2")
def test_four_models_come_two_go_and_the_others_have_more() -> None:
    """Never more than the whole."""
    node = CachedNode(*some("a", "b", "c", "d"))
    node.run("a", "b", "c", "d")
    four = node.shares_mb()

    for model in ("b", "d"):
        node.ask(Verb.UNLOAD, model)
        node.stop(model)
    two = node.shares_mb()

    assert four == {"a": 256, "b": 256, "c": 256, "d": 256}
    assert two == {"a": 512, "c": 512}
    assert node.started_mb() == [("a", 256), ("b", 256), ("c", 256), ("d", 256)]


def test_only_models_that_generate_here_take_part() -> None:
    """One that embeds has no prompts to find again."""
    embeds = a_spec("e", capabilities=frozenset({"embedding"}))
    node = CachedNode(*some("a"), embeds)

    assert node.shares_mb() == {"a": 1024}
    assert node.started_mb() == [("a", 1024), ("e", 0)]


def test_without_a_whole_everything_is_as_the_arithmetic_says() -> None:
    """And nothing is started anew."""
    node = CachedNode(*some("a"), caches=None)
    node.run("a")
    node.fill("a", 9999)
    node.wait(1000.0)

    assert node.shares_mb() == {}
    assert len(node.started_mb()) == 1


@pytest.mark.rows("CAC-7")
def test_who_has_more_than_its_share_gives_it_back_when_nobody_uses_it() -> None:
    """A model that comes later starts with what is left, and again with its share when there is room."""
    node = CachedNode(*some("a", "b"), requested=("a",))
    node.run("a")
    node.fill("a", 300)
    node.use("a")
    node.ask(Verb.LOAD, "b")
    node.run("b")
    soon = drained(node)

    node.wait(CACHE_REST_S + 1)
    node.stop("a")
    node.run("a")
    evicted = node.core.view.caches.uses[node.model("a").id]
    node.wait(CACHE_REST_S + 1)
    node.stop("b")
    node.run("b")
    node.wait(1000.0)

    assert soon == []
    assert drained(node) == ["a", "b"]
    assert node.started_mb() == [("a", 1024), ("b", 0), ("a", 512), ("b", 512)]
    assert (evicted.evictions, evicted.freed_bytes, evicted.size_bytes) == (1, 300 * MIB, 0)


def test_a_smaller_whole_ends_whoever_exceeds_it_by_the_policy() -> None:
    """One at a time, and as few as it takes; requests are not disturbed."""
    node = CachedNode(*some("a", "b"), caches=replace(WHOLE, global_eviction_policy=EvictionPolicy.LFU))
    node.run("a", "b")
    node.use("a", 1)
    node.use("b", 5)

    assert node.asked(global_cache_size_gb=0.75) == "done"
    node.wait(CACHE_REST_S + 1)
    first = drained(node)
    node.wait(CACHE_REST_S + 1)
    node.stop("a")
    node.run("a")
    node.wait(CACHE_REST_S + 1)

    assert first == drained(node) == ["a"]
    assert node.started_mb()[2:] == [("a", 256)]
    assert node.shares_mb() == {"a": 384, "b": 384}


def test_a_full_cache_gets_the_room_that_others_left() -> None:
    """One that is not full stays as it is, and there are pauses between such starts."""
    node = CachedNode(*some("a", "b", "c"))
    node.run("a", "b", "c")
    node.fill("a", 330)
    node.fill("b", 100)
    node.ask(Verb.UNLOAD, "c")
    node.stop("c")

    node.wait(CACHE_REST_S + 1)
    first = drained(node)
    node.stop("a")
    node.run("a")
    node.fill("b", 330)
    node.wait(CACHE_REST_S + 1)
    paused = drained(node)
    node.wait(CACHE_PAUSE_S)

    assert (first, paused) == (["c", "a"], ["c", "a"])
    assert node.started_mb()[3:] == [("a", 512)]
    assert drained(node) == ["c", "a", "b"]
    assert node.core.view.caches.uses[node.model("a").id].evictions == 0


def test_a_share_that_memory_does_not_allow_is_not_tried_again_and_again() -> None:
    """The cache of an engine never takes more than half of what its model leaves."""
    node = CachedNode(
        *some("a"), caches=CacheConfig(global_cache_size_gb=500.0), machine=a_machine(memory_bytes=4 * GIB)
    )
    ((_, size_mb),) = node.started_mb()
    node.run("a")
    node.fill("a", size_mb)
    node.wait(10 * CACHE_PAUSE_S)

    assert 0 < size_mb < 2048
    assert len(node.started_mb()) == 1


def test_a_pinned_model_is_left_alone() -> None:
    """Never unloaded to make room, says its configuration."""
    node = CachedNode(*some("a"), policies=(ModelPolicy(name="a", is_pinned=True),))
    node.run("a")

    assert node.asked(global_cache_size_gb=0.25) == "done"
    node.wait(1000.0)

    assert drained(node) == []


def test_what_was_chosen_is_kept_for_the_next_start() -> None:
    """Unless the configuration says something else."""
    node = CachedNode(*some("a"), caches=None)
    assert node.asked(global_cache_size_gb=2) == "done"
    kept = node.of(KeepOrders)[-1].kept.caches

    again = CachedNode(*some("a"), caches=None, kept=KeptOrders(caches=kept))

    assert kept == CacheConfig(global_cache_size_gb=2.0)
    assert again.shares_mb() == {"a": 2048}


_VERBS = ["load", "unload", "fill", "use", "whole"]
_STEPS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(_VERBS), st.integers(0, 1200)), max_size=12)


def settled(node: CachedNode, for_s: float) -> list[str]:
    """Let time pass, engines end and come back as they are told; return those that ended."""
    ended: list[str] = []
    end_s = node.now_s + for_s
    while node.now_s < end_s:
        node.wait(1.0)
        for name, model in node.core.view.local.items():
            if model.state is EngineState.DRAINING:
                node.stop(name)
                ended.append(name)
        for name, model in node.core.view.local.items():
            if model.state is EngineState.STARTING:
                node.run(name)
    return ended


@pytest.mark.rows("CAC-2")
@settings(max_examples=25, deadline=None)
@given(_STEPS, st.sampled_from(EvictionPolicy))
def test_whatever_happens_all_comes_to_rest_within_the_whole(
    steps: list[tuple[str, str, int]], policy: EvictionPolicy
) -> None:
    """Nobody is started anew again and again, and engines together keep to the whole."""
    node = CachedNode(*some("a", "b", "c", "d"), requested=("a",), caches=replace(WHOLE, global_eviction_policy=policy))
    node.run("a")
    for model, verb, size_mb in steps:
        if verb in {"load", "unload"}:
            node.ask(Verb(verb), model)
        elif verb == "whole":
            node.asked(global_cache_size_gb=(size_mb + 1) / 1024)
        elif verb == "fill":
            node.fill(model, size_mb)
        else:
            node.use(model)
        settled(node, 3.0)
    settled(node, 12 * CACHE_PAUSE_S)

    late = settled(node, 3 * CACHE_PAUSE_S)

    view = node.core.view
    plans = [model.plan for model in view.local.values() if model.plan is not None]
    assert late == []
    assert sum(plan.memory.prompt_cache_bytes for plan in plans) <= view.caches.config.whole_bytes
    assert sum(view.caches.shares.values()) <= view.caches.config.whole_bytes


@pytest.mark.rows("CAC-7", "CAC-3")
@pytest.mark.parametrize(
    ("policy", "victim"),
    [
        (EvictionPolicy.LRU, "b"), (EvictionPolicy.LFU, "a"), (EvictionPolicy.SMALLEST_MODEL_FIRST, "c"),
        (EvictionPolicy.ROUND_ROBIN, "a"),
    ],
)  # fmt: skip
def test_an_idle_model_makes_room_for_another_by_the_same_policy(policy: EvictionPolicy, victim: str) -> None:
    """Which of those that this node gave itself goes first."""
    sizes = {"a": 4000, "b": 3900, "c": 3800, "new": 3700}
    specs = tuple(a_spec(name, size_bytes=size * MIB) for name, size in sizes.items())
    node = CachedNode(
        *specs, requested=(), machine=a_machine(memory_bytes=18 * GIB),
        caches=CacheConfig(global_eviction_policy=policy),
    )  # fmt: skip
    for model, requests in (("b", 9), ("c", 8), ("a", 3)):
        node.want(model)
        node.run(model)
        node.use(model, requests)
        node.now_s += 1

    node.fill(victim, 50)
    node.want("new")
    node.stop(victim)

    assert drained(node) == [victim]
    assert node.started_mb()[-1][0] == "new"
    assert node.core.view.caches.uses[node.model(victim).id].freed_bytes == 50 * MIB


# -- the disk ------------------------------------------------------------------------------------------


@pytest.mark.rows("CAC-1")
def test_an_engine_that_ends_saves_its_conversations_in_its_share_of_the_disk() -> None:
    """Shares of the disk go by the same strategy; one that is killed saves nothing."""
    config = CacheConfig(
        disk_cache_size_gb=4.0, allocation_strategy=AllocationStrategy.PRIORITY_BASED, min_disk_mb=0,
        model_priorities=(("a", 9), ("b", 3)),
    )  # fmt: skip
    node = CachedNode(*some("a", "b"), caches=config)
    node.run("a", "b")
    shares = {str(model): size // MIB for model, size in node.core.view.caches.disk_shares.items()}
    node.ask(Verb.UNLOAD, "a")
    (saving,) = node.tell(ev.EngineDrained(model=ModelId("a")))
    node.ask(Verb.UNLOAD, "b", force=True)

    assert shares == {"a": 3072, "b": 1024}
    assert saving == StopEngine(model=ModelId("a"), slots_bytes=3072 * MIB)
    assert node.of(StopEngine)[1:] == [StopEngine(model=ModelId("b"), kill=True)]
    assert node.shares_mb() == {}


def test_what_the_disk_may_hold_is_said_when_it_changes() -> None:
    """Once; nothing is said where nothing was ever saved."""
    node, plain = (
        CachedNode(*some("a"), caches=CacheConfig(disk_cache_size_gb=1.0)),
        CachedNode(*some("a"), caches=None),
    )
    for one in (node, plain):
        one.run("a")
        one.wait(100.0)
    node.asked(disk_cache_size_gb=0.5)
    node.asked(min_disk_mb=7)
    node.asked(disk_cache_size_gb=0)

    assert [one.most_bytes // MIB for one in node.of(KeepSlots)] == [1024, 512, 0]
    assert plain.of(KeepSlots) == []
