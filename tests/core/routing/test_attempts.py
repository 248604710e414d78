"""Which way a request takes, and what it is told when none is left."""

from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.ids import NodeId
from meshllm.core.routing.attempts import RetryBudget, Setback, Trail, Way, choose, may_come_back, pause_s, verdict

HERE = NodeId("here")


def a_way(node: str, **facts: Any) -> Way:
    """Return a way that has room."""
    known: dict[str, Any] = {"is_here": node == HERE, "admitted": 66} | facts
    return Way(node=NodeId(node), **known)


def chosen(*ways: Way, trail: Trail | None = None, out: tuple[str, ...] = ()) -> str | None:
    """Return the node that is chosen."""
    way = choose(ways, trail or Trail(), [NodeId(node) for node in out])
    return way.node if way is not None else None


def a_trail(*setbacks: tuple[str, Setback, int]) -> Trail:
    """Return the trail of a request."""
    trail = Trail()
    for node, setback, context_tokens in setbacks:
        trail.note(NodeId(node), setback, context_tokens)
    return trail


@pytest.mark.parametrize(
    ("ways", "expected"),
    [
        ([a_way("here"), a_way("b")], "here"),
        ([a_way("b"), a_way("here")], "b"),
        ([a_way("here", in_flight=65), a_way("b")], "here"),
        ([a_way("here", in_flight=66), a_way("b"), a_way("c")], "b"),
        ([a_way("here", in_flight=66)], None),
        ([], None),
    ],
)  # fmt: skip
def test_the_best_way_is_taken_unless_it_is_this_nodes_own_engine_and_that_is_full(
    ways: list[Way], expected: str | None
) -> None:
    """Whoever decides the order knows loads; a far end says itself when it is full."""
    assert chosen(*ways) == expected


@pytest.mark.parametrize(("most", "expected"), [(1, None), (2, "c"), (9, "c")])
def test_no_more_hosts_are_asked_than_people_allow(most: int, expected: str | None) -> None:
    """`max_retries` 0 is one host; there are never more than three, however many are allowed."""
    way = choose([a_way("b"), a_way("c")], a_trail(("b", Setback.LOST, 0)), (), most)

    assert (way.node if way is not None else None) == expected


def test_the_first_retry_comes_at_once_and_later_ones_wait_longer_and_longer() -> None:
    """0, d, 2d, each spread by half of it to both sides."""
    assert [pause_s(retries, 0.1, 0.5) for retries in (0, 1, 2, 3)] == pytest.approx([0.0, 0.0, 0.1, 0.2])
    assert [pause_s(2, 0.1, luck) for luck in (0.0, 1.0)] == pytest.approx([0.05, 0.15])


@pytest.mark.parametrize(("in_flight", "expected"), [(0, 3), (15, 3), (20, 4), (100, 20)])
def test_retries_are_a_fifth_of_all_requests_and_three_in_any_case(in_flight: int, expected: int) -> None:
    """What is given back can be taken again."""
    budget = RetryBudget()

    taken = sum(budget.take(in_flight) for _ in range(200))
    budget.give_back()

    assert taken == expected
    assert budget.take(in_flight)
    assert not budget.take(in_flight)


def test_no_host_is_asked_twice_and_no_more_than_three() -> None:
    """F19."""
    ways = [a_way(node) for node in "bcde"]
    lost = [(node, Setback.LOST, 0) for node in "bcd"]

    assert chosen(*ways, trail=a_trail(*lost[:2])) == "d"
    assert chosen(*ways, trail=a_trail(*lost)) is None


def test_nodes_that_are_left_out_are_not_asked() -> None:
    """Ejection says which."""
    assert chosen(a_way("b"), a_way("c"), out=("b",)) == "c"


def test_a_prompt_that_was_too_long_goes_only_to_larger_contexts() -> None:
    """One of unknown size may be larger."""
    ways = [a_way("b", context_tokens=2048), a_way("c", context_tokens=2048), a_way("d", context_tokens=4096)]
    trail = a_trail(("b", Setback.CONTEXT_TOO_LONG, 2048))

    assert chosen(*ways, trail=trail) == "d"
    assert chosen(*ways[:2], a_way("e"), trail=trail) == "e"
    assert chosen(*ways[:2], trail=trail) is None


@pytest.mark.parametrize(
    ("setbacks", "expected"),
    [
        ([("b", Setback.BUSY, 0)], Setback.BUSY),
        ([("b", Setback.BUSY, 0), ("c", Setback.LOST, 0)], Setback.BUSY),
        ([("b", Setback.NOT_READY, 0), ("c", Setback.LOST, 0)], Setback.NOT_READY),
        ([("b", Setback.NOT_ADMITTED, 0)], Setback.NOT_ADMITTED),
        ([("b", Setback.FAILED, 0), ("c", Setback.NOT_ADMITTED, 0)], Setback.FAILED),
        ([("b", Setback.ENGINE_LOST, 0), ("c", Setback.UNREACHABLE, 0)], Setback.UNREACHABLE),
        ([("b", Setback.CONTEXT_TOO_LONG, 2048)], Setback.CONTEXT_TOO_LONG),
        ([("b", Setback.BUSY, 2048), ("c", Setback.CONTEXT_TOO_LONG, 4096)], Setback.CONTEXT_TOO_LONG),
        ([("b", Setback.BUSY, 8192), ("c", Setback.CONTEXT_TOO_LONG, 4096)], Setback.BUSY),
        ([], Setback.UNREACHABLE),
    ],
)  # fmt: skip
def test_what_is_told_is_what_helps_most(setbacks: list[tuple[str, Setback, int]], expected: Setback) -> None:
    """Coming back later helps a busy mesh, nothing helps a prompt that fits nowhere."""
    assert verdict(a_trail(*setbacks)) is expected


@pytest.mark.parametrize(
    ("setbacks", "expected"),
    [
        ([Setback.ENGINE_LOST], True), ([Setback.NOT_READY], True), ([Setback.UNREACHABLE, Setback.ENGINE_LOST], True),
        ([Setback.UNREACHABLE], False), ([Setback.UNREACHABLE, Setback.LOST], True), ([Setback.LOST] * 2, False),
        ([Setback.UNREACHABLE, Setback.LOST, Setback.LOST], False), ([Setback.NOT_READY, Setback.BUSY], False),
        ([Setback.NOT_READY, Setback.CONTEXT_TOO_LONG], True), ([], False),
    ],
)  # fmt: skip
def test_a_request_waits_for_hosts_that_live_without_their_engine(setbacks: list[Setback], expected: bool) -> None:
    """Not for those that are gone, and not where a client can do better itself."""
    trail = a_trail(*((node, setback, 0) for node, setback in zip("bcd", setbacks, strict=False)))

    assert may_come_back(trail) is expected


def test_a_host_without_its_engine_is_asked_again_when_it_has_said_something_since() -> None:
    """Its engine may be back; that it was busy or lost is not forgotten."""
    trail = Trail()
    for node, setback in (("b", Setback.ENGINE_LOST), ("c", Setback.LOST)):
        trail.note(NodeId(node), setback, 0, word=1)

    trail.forgive(NodeId("b"), 1)
    before = chosen(a_way("b"), a_way("c"), trail=trail)
    trail.forgive(NodeId("b"), 2)
    trail.forgive(NodeId("c"), 2)

    assert before is None
    assert chosen(a_way("b"), a_way("c"), trail=trail) == "b"
    assert list(trail.setbacks) == ["c"]


def test_a_host_that_no_tunnel_reached_is_tried_once_more_in_a_moment() -> None:
    """Nothing had been sent to it, and a connection may have been on its way; of three attempts in all."""
    trail = Trail()
    trail.note(NodeId("b"), Setback.UNREACHABLE, 0, now_s=5.0)
    trail.note(NodeId("c"), Setback.LOST, 0, now_s=15.0)

    trail.forgive(NodeId("b"), None, 5.0 + limits.UNREACHED_AGAIN_S / 2)
    early = chosen(a_way("b"), a_way("c"), trail=trail)
    trail.forgive(NodeId("b"), None, 15.0)
    trail.forgive(NodeId("c"), None, 30.0)
    late = chosen(a_way("b"), a_way("c"), trail=trail)
    trail.note(NodeId("b"), Setback.UNREACHABLE, 0, now_s=20.0)
    trail.forgive(NodeId("b"), None, 60.0)

    assert (early, late) == (None, "b")
    assert chosen(a_way("b"), a_way("c"), a_way("d"), trail=trail) is None
    assert not may_come_back(trail)


def test_a_host_is_not_tried_again_where_no_retry_is_allowed() -> None:
    """As the configuration says."""
    trail = a_trail(("b", Setback.UNREACHABLE, 0), ("c", Setback.LOST, 0))

    assert choose([a_way("b"), a_way("c")], trail, (), 2) is None
    assert not may_come_back(trail)
