"""Who says a choice to the mesh when its author does not."""

from meshllm.core.ids import NodeId
from meshllm.core.serving.carrying import carries

A, B, C, AUTHOR = NodeId("a"), NodeId("b"), NodeId("c"), NodeId("x")


def test_an_author_says_its_own_and_nobody_else_does_meanwhile() -> None:
    """Also beside others that have not noticed."""
    assert carries(AUTHOR, AUTHOR, [A], [A], is_carried=False)
    assert not carries(A, AUTHOR, [AUTHOR], [AUTHOR, B], is_carried=True)


def test_for_a_gone_author_the_smallest_id_begins_and_the_others_wait() -> None:
    """One of them is enough."""
    assert carries(A, AUTHOR, [], [B, C], is_carried=False)
    assert not carries(B, AUTHOR, [], [A, C], is_carried=False)


def test_who_carries_it_stops_for_a_smaller_id_alone() -> None:
    """So it never falls silent between two."""
    assert carries(B, AUTHOR, [], [A], is_carried=True)
    assert carries(B, AUTHOR, [C], [A, C], is_carried=True)
    assert not carries(B, AUTHOR, [A], [A], is_carried=True)
    assert not carries(A, AUTHOR, [B], [B], is_carried=False)
