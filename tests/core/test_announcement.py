"""Statements of one node are ordered."""

from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.announcement import Announcement, Role
from meshllm.core.ids import NodeId

PAIRS = st.tuples(st.integers(0, 3), st.integers(0, 3))


def an_announcement(incarnation: int, version: int) -> Announcement:
    """Return a statement with that place in the order."""
    return Announcement(
        node=NodeId("a"), name="a", incarnation=incarnation, version=version, role=Role.WORKER, resources=None
    )


@given(PAIRS, PAIRS)
def test_of_two_different_statements_exactly_one_supersedes(first: tuple[int, int], second: tuple[int, int]) -> None:
    """Whoever hears both, in any order, keeps the same one."""
    a, b = an_announcement(*first), an_announcement(*second)

    assert (a.supersedes(b) + b.supersedes(a)) == (first != second)


def test_a_later_incarnation_beats_any_version() -> None:
    """A restarted node counts its versions from the start again."""
    assert an_announcement(1, 0).supersedes(an_announcement(0, 99))
