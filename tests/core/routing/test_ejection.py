"""Nodes whose tunnels fail in a row are left out for a while, and tried again by one request."""

import pytest

from meshllm.core import limits
from meshllm.core.ids import NodeId
from meshllm.core.routing.ejection import Ejections

BAD, GOOD = NodeId("bad"), NodeId("good")
BOTH = (BAD, GOOD)


def failing(times: int, now_s: float = 0.0) -> Ejections:
    """Return the memory of a node that failed so many times."""
    ejections = Ejections()
    for _ in range(times):
        ejections.failed(BAD, now_s)
    return ejections


@pytest.mark.rows("HLT-7")
@pytest.mark.parametrize(("times", "out"), [(0, set()), (2, set()), (3, {BAD}), (5, {BAD})])
def test_the_third_failure_in_a_row_leaves_a_node_out(times: int, out: set[NodeId]) -> None:
    """One lost packet is no reason."""
    assert failing(times).out(BOTH, 1.0) == out


def test_it_is_known_for_how_long_a_node_is_left_out() -> None:
    """Of those that are, and of these alone."""
    ejections = failing(3)

    assert ejections.left_s(BOTH, 1.0) == {BAD: limits.EJECTION_FIRST_S - 1.0}
    assert ejections.left_s((GOOD,), 1.0) == {}
    assert ejections.left_s(BOTH, limits.EJECTION_FIRST_S + 1.0) == {}


def test_an_answer_forgets_the_failures_before() -> None:
    """In a row means in a row; a refusal is an answer too."""
    ejections = failing(2)

    ejections.answered(BAD)
    ejections.failed(BAD, 1.0)

    assert ejections.out(BOTH, 1.0) == set()


@pytest.mark.rows("HLT-7")
def test_a_node_is_back_after_its_time_for_one_request() -> None:
    """Half open: the first request tries it, the others keep away until that is over."""
    ejections = failing(3)

    assert ejections.out(BOTH, limits.EJECTION_FIRST_S - 0.1) == {BAD}
    assert ejections.out(BOTH, limits.EJECTION_FIRST_S) == set()
    ejections.taken(BAD, limits.EJECTION_FIRST_S)

    assert ejections.out(BOTH, limits.EJECTION_FIRST_S + 0.1) == {BAD}
    ejections.answered(BAD)
    assert ejections.out(BOTH, limits.EJECTION_FIRST_S + 0.2) == set()


def test_a_trial_that_never_ends_does_not_keep_a_node_out() -> None:
    """Its client may have left."""
    ejections = failing(3)
    ejections.taken(BAD, 10.0)

    assert ejections.out(BOTH, 10.0 + limits.EJECTION_TRIAL_S) == set()


def test_each_failed_trial_doubles_the_time_up_to_a_limit() -> None:
    """5, 10, 20 … 300 s: a node that is gone for good costs next to nothing."""
    ejections, now_s, lasted = failing(3), 0.0, []

    for _ in range(9):
        begun_s = now_s
        while BAD in ejections.out(BOTH, now_s):
            now_s += 1.0
        lasted.append(now_s - begun_s)
        ejections.taken(BAD, now_s)
        ejections.failed(BAD, now_s)

    assert lasted == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_host_that_dies_with_a_hundred_streams_has_died_once() -> None:
    """It is tried again after five seconds, and not after five minutes."""
    assert failing(100).out(BOTH, limits.EJECTION_FIRST_S - 0.1) == {BAD}
    assert failing(100).out(BOTH, limits.EJECTION_FIRST_S) == set()


def test_at_most_half_of_the_nodes_are_left_out() -> None:
    """Where most fail, this node's own network may be what fails; those that come back last are out."""
    nodes, ejections = [NodeId(name) for name in "abcde"], Ejections()
    for at_s, node in enumerate(nodes):
        for _ in range(limits.EJECTION_FAILURES):
            ejections.failed(node, at_s / 10)

    assert ejections.out(nodes, 0.5) == {"d", "e"}
    assert ejections.out(nodes[:4], 0.5) == {"c", "d"}
    assert ejections.out(nodes[:1], 0.5) == set()


def test_the_last_replica_is_never_left_out() -> None:
    """A bad chance is better than none; of several bad ones the one that is back first."""
    ejections = failing(3, now_s=5.0)
    for _ in range(3):
        ejections.failed(GOOD, 1.0)

    assert ejections.out((BAD,), 6.0) == set()
    assert ejections.out(BOTH, 5.5) == {BAD}


def test_nodes_that_are_gone_are_forgotten() -> None:
    """Or the memory would grow with every node that ever was."""
    ejections = failing(3)

    ejections.keep({GOOD})

    assert ejections.out(BOTH, 1.0) == set()
