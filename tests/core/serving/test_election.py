"""Who answers for a group."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.ids import NodeId
from meshllm.core.serving.election import elect

NODES = st.lists(st.text("abcdef", min_size=1, max_size=6).map(NodeId), min_size=1, unique=True)


@given(NODES, st.randoms())
def test_the_order_of_members_does_not_matter(nodes: list[NodeId], chance: random.Random) -> None:
    """Every node lists them in its own order."""
    shuffled = list(nodes)
    chance.shuffle(shuffled)

    assert elect(shuffled) == elect(nodes)


@given(NODES)
def test_the_host_changes_only_when_it_leaves_or_is_beaten(nodes: list[NodeId]) -> None:
    """Others may come and go as they like."""
    host = elect(nodes)

    for gone in nodes:
        if gone != host:
            assert elect([node for node in nodes if node != gone]) == host


def test_nobody_is_elected_among_none() -> None:
    """A group without members is a mistake of ours."""
    with pytest.raises(ValueError, match="empty"):
        elect([])
