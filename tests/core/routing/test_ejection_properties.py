"""Whatever happens to nodes, and in whichever order: what ejection promises of them holds."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from meshllm.core import limits
from meshllm.core.ids import NodeId
from meshllm.core.routing.ejection import Ejections

NODES = [NodeId(name) for name in "abcdef"]
Step = tuple[str, NodeId, float]

steps = st.lists(
    st.tuples(
        st.sampled_from(["failed", "failed", "failed", "answered", "taken"]), st.sampled_from(NODES),
        st.floats(0.0, 20.0),
    ),
    max_size=60,
)  # fmt: skip
choices = st.lists(st.sampled_from(NODES), min_size=1, unique=True)


def played(history: Sequence[Step]) -> tuple[Ejections, float]:
    """Return the memory of a history whose steps follow one another, and the time after it."""
    ejections, now_s = Ejections(), 0.0
    for kind, node, after_s in history:
        now_s += after_s
        if kind == "answered":
            ejections.answered(node)
        else:
            getattr(ejections, kind)(node, now_s)
    return ejections, now_s


@given(steps, choices)
def test_at_most_half_are_out_and_never_the_last(history: list[Step], nodes: list[NodeId]) -> None:
    """A request always has somewhere to go."""
    ejections, now_s = played(history)

    out = ejections.out(nodes, now_s)

    assert out <= set(nodes)
    assert len(out) <= len(nodes) * limits.EJECTION_SHARE_MOST


@given(steps)
def test_who_did_not_fail_three_times_in_a_row_is_never_out(history: list[Step]) -> None:
    """A refusal is an answer: whoever answers is never left out for it, however often it has too much to do."""
    in_a_row = dict.fromkeys(NODES, 0)
    has_been_out = set()
    for kind, node, _ in history:
        in_a_row[node] = in_a_row[node] + 1 if kind == "failed" else 0 if kind == "answered" else in_a_row[node]
        if in_a_row[node] >= limits.EJECTION_FAILURES:
            has_been_out.add(node)
        if kind == "answered":
            has_been_out.discard(node)
    ejections, now_s = played(history)

    assert ejections.out(NODES, now_s) <= has_been_out


@given(steps, choices)
def test_everybody_is_tried_again_after_the_longest_time(history: list[Step], nodes: list[NodeId]) -> None:
    """Nobody is out for ever, whatever was."""
    ejections, now_s = played(history)

    assert ejections.out(nodes, now_s + limits.EJECTION_MAX_S) == set()


@given(steps, choices)
def test_answers_bring_everybody_back(history: list[Step], nodes: list[NodeId]) -> None:
    """One good answer is enough."""
    ejections, now_s = played(history)
    for node in nodes:
        ejections.answered(node)

    assert ejections.out(nodes, now_s) == set()


@given(st.integers(1, 200), st.floats(0.0, 4.0))
def test_failures_at_one_time_are_one_failure(count: int, spread_s: float) -> None:
    """However many streams a host had when it died, it is out for the first, shortest time."""
    ejections = Ejections()
    for number in range(count):
        ejections.failed(NODES[0], spread_s * number / count)

    assert ejections.out(NODES, spread_s + limits.EJECTION_FIRST_S) == set()
