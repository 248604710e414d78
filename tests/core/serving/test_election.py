"""Who answers for a group, and who is preferred for a model."""

import functools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.announcement import Announcement
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB
from meshllm.core.serving.election import elect, preference
from tests.core.builders import a_gpu, a_machine
from tests.core.members.builders import an_announcement

NODES = st.lists(st.text("abcdef", min_size=1, max_size=6).map(NodeId), min_size=1, unique=True)


def a_node(name: str, *, memory: int = 8, gpu: int = 0, free: int | None = None) -> Announcement:
    """Return what a node with so many GiB says of itself."""
    gpus = (a_gpu(total_bytes=gpu * GIB),) if gpu else ()
    free_bytes = None if free is None else free * GIB
    return an_announcement(name, resources=a_machine(memory_bytes=memory * GIB, free_bytes=free_bytes, gpus=gpus))


@given(NODES, st.randoms())
def test_the_order_of_members_does_not_matter(nodes: list[NodeId], chance: random.Random) -> None:
    """Every node lists them in its own order."""
    shuffled = list(nodes)
    chance.shuffle(shuffled)

    assert elect(map(a_node, shuffled)) == elect(map(a_node, nodes))


@pytest.mark.rows("MSH-13")
@given(NODES)
def test_the_host_changes_only_when_it_leaves_or_is_beaten(nodes: list[NodeId]) -> None:
    """Others may come and go as they like."""
    host = elect(map(a_node, nodes))

    for gone in nodes:
        if gone != host:
            assert elect(a_node(node) for node in nodes if node != gone) == host


@pytest.mark.rows("MSH-13")
def test_the_most_gpu_memory_wins_then_the_most_memory_then_the_smallest_id() -> None:
    """The strongest machine answers for the group."""
    weak, strong, gpu = a_node("a"), a_node("b", memory=64), a_node("c", gpu=8)

    assert elect([weak, strong, gpu]) == "c"
    assert elect([weak, strong]) == "b"
    assert elect([a_node("b"), weak]) == "a"


def test_free_memory_moves_no_host() -> None:
    """It changes with every request."""
    assert elect([a_node("a", free=1), a_node("b", free=8)]) == "a"


def test_a_node_that_has_not_looked_at_its_machine_comes_last() -> None:
    """Nothing is known of it."""
    assert elect([an_announcement("a", resources=None), a_node("b")]) == "b"


def test_nobody_is_elected_among_none() -> None:
    """A group without members is a mistake of ours."""
    with pytest.raises(ValueError, match="empty"):
        elect([])


def test_each_model_has_its_own_order_of_nodes() -> None:
    """No node is first for everything, and all agree on the order."""
    nodes = [NodeId(f"n{number}") for number in range(10)]
    models = [ModelId(str(number)) for number in range(1000)]
    firsts = [min(nodes, key=functools.partial(preference, model=model)) for model in models]

    counts = [firsts.count(node) for node in nodes]
    assert min(counts) > 60
    assert max(counts) < 140
