"""How long a queue is, in seconds: from what a full engine ended lately."""

from math import inf

import pytest

from meshllm.core.routing.pace import Pace


def seen(seconds: int, ended_each_s: float, *, is_full: bool = True) -> Pace:
    """Return the pace of an engine that was looked at once a second for so long."""
    pace, ended = Pace(), 0.0
    for now_s in range(seconds + 1):
        whole = int(ended + ended_each_s) - int(ended)
        ended += ended_each_s
        pace.observe(whole, float(now_s), is_full=is_full)
    return pace


@pytest.mark.parametrize(("each_s", "ahead", "expected"), [(1.0, 0, 1), (1.0, 9, 10), (0.5, 9, 20), (4.0, 7, 2)])
def test_the_wait_is_the_queue_over_what_ends_in_a_second(each_s: float, ahead: int, expected: float) -> None:
    """The request itself comes after all before it."""
    assert seen(60, each_s).wait_s(ahead, 60.0) == pytest.approx(expected, rel=0.1)


def test_nothing_is_known_of_an_engine_that_was_not_full_for_a_while() -> None:
    """An idle engine ends little because it has little to do."""
    assert seen(60, 1.0, is_full=False).wait_s(5, 60.0) == 0.0
    assert seen(10, 1.0).wait_s(5, 10.0) == 0.0
    assert Pace().wait_s(5, 0.0) == 0.0


def test_a_full_engine_that_ends_nothing_is_waited_for_without_end() -> None:
    """Its slots are taken by requests of minutes."""
    assert seen(30, 0.0).wait_s(0, 30.0) == inf


def test_what_was_long_ago_is_forgotten() -> None:
    """Ten minutes later another client asks for other things."""
    assert seen(60, 0.1).wait_s(5, 600.0) == 0.0


def test_newer_observations_weigh_more() -> None:
    """It was slow, and is quick now."""
    pace = seen(60, 0.1)
    for now_s in range(61, 181):
        pace.observe(2, float(now_s), is_full=True)

    assert pace.wait_s(9, 180.0) < 8.0


def test_a_pause_in_between_does_not_count() -> None:
    """Only the time during which all slots were taken at both looks."""
    pace = seen(30, 1.0)
    pace.observe(0, 31.0, is_full=False)
    pace.observe(0, 51.0, is_full=True)

    assert pace.wait_s(9, 51.0) == pytest.approx(10, rel=0.1)
