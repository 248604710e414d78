"""Whose turn it is where requests of different priorities wait for one engine."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.routing.fair_turns import FairTurns, Waiting, before
from meshllm.core.routing.priorities import WEIGHTS, Priority

LOW, NORMAL, HIGH = Priority.LOW, Priority.NORMAL, Priority.HIGH


def served(turns: FairTurns, waiting: list[Waiting], count: int) -> list[Priority]:
    """Let so many of those that wait come in, one after another; return their priorities."""
    came = []
    for _ in range(count):
        first = turns.order(waiting)[0]
        priority, _since_s = waiting.pop(first)
        turns.served(priority)
        came.append(priority)
    return came


@pytest.mark.rows("QTA-17")
def test_priorities_share_the_places_by_their_weights() -> None:
    """In every seven places, wherever one begins to count once all of them wait."""
    waiting = [(priority, float(number)) for number in range(60) for priority in Priority]

    came = served(FairTurns(), waiting, 70)

    assert came[:7] == [HIGH, HIGH, NORMAL, HIGH, HIGH, NORMAL, LOW]
    assert all(Counter(came[at : at + 7]) == {HIGH: 4, NORMAL: 2, LOW: 1} for at in range(0, 70, 7))


@pytest.mark.rows("QTA-17")
def test_nobody_loses_a_share_to_those_that_do_not_wait() -> None:
    """Low ones alone have all places; what was had alone is not held against anybody later, nor saved up."""
    turns = FairTurns()
    alone = served(turns, [(LOW, float(number)) for number in range(50)], 40)

    both = served(
        turns, [(LOW, float(number)) for number in range(50)] + [(NORMAL, 100.0 + at) for at in range(50)], 30
    )

    assert alone == [LOW] * 40
    assert 20 <= both.count(NORMAL) <= 22


def test_in_a_priority_whoever_came_first_is_first() -> None:
    """However they are listed."""
    waiting = [(NORMAL, 5.0), (NORMAL, 3.0), (HIGH, 9.0), (NORMAL, 4.0)]

    assert FairTurns().order(waiting) == [2, 1, 3, 0]
    assert FairTurns().order([]) == []


def test_as_urgent_and_more_urgent_ones_are_before_a_newcomer() -> None:
    """The others are behind it, however many."""
    waiting = [(LOW, 1.0), (LOW, 1.0), (NORMAL, 2.0), (HIGH, 3.0)]

    assert [before(priority, waiting) for priority in (LOW, NORMAL, HIGH)] == [4, 2, 1]


@given(st.lists(st.sampled_from(Priority), max_size=40), st.sampled_from(Priority))
def test_whoever_waits_comes_in_after_a_bounded_number_of_others(past: list[Priority], mine: Priority) -> None:
    """Whatever was before, and although more urgent ones never end."""
    turns = FairTurns()
    for priority in past:
        turns.order([(priority, 0.0)])
        turns.served(priority)
    waiting: list[Waiting] = [(mine, 0.0)]

    for others in range(200):
        waiting += [(priority, 1.0 + others) for priority in Priority if priority is not mine]
        if served(turns, waiting, 1) == [mine]:
            break

    assert others <= 2 * sum(WEIGHTS.values())
