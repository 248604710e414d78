"""Deadlines by key."""

from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.timers import Timers


def test_keys_come_in_the_order_of_their_deadlines() -> None:
    """Two that are due together come as they were set: a replay must see the same."""
    timers: Timers[str] = Timers()
    for key, due_s in (("late", 3.0), ("one", 1.0), ("two", 1.0)):
        timers.set(key, due_s)

    assert timers.next_s() == 1.0
    assert [timers.pop_due(2.0) for _ in range(3)] == ["one", "two", None]
    assert timers.next_s() == 3.0


def test_a_deadline_that_is_set_again_counts_once() -> None:
    """The old one is forgotten, whichever is earlier."""
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.set("a", 5.0)

    assert timers.pop_due(4.0) is None
    assert timers.due_s("a") == 5.0
    assert (timers.pop_due(5.0), timers.pop_due(9.0), len(timers)) == ("a", None, 0)


def test_a_cancelled_deadline_never_comes() -> None:
    """Cancelling what is not set is nothing."""
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)

    timers.cancel("a")
    timers.cancel("b")

    assert (timers.next_s(), timers.pop_due(9.0), "a" in timers) == (None, None, False)


def test_clearing_forgets_everything() -> None:
    """Whoever leaves has nothing more to do."""
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)

    timers.clear()

    assert (timers.next_s(), len(timers)) == (None, 0)


def test_deadlines_that_move_all_the_time_take_no_memory() -> None:
    """What was set and forgotten is swept out now and then."""
    timers: Timers[str] = Timers()

    for number in range(10_000):
        timers.set("a", float(number))

    assert len(timers._heap) < 100
    assert timers.next_s() == 9999.0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50), st.booleans()), max_size=400))
def test_it_agrees_with_a_plain_dictionary(steps: list[tuple[str, int, bool]]) -> None:
    """However often deadlines move, the heap and its sweeping change nothing."""
    timers: Timers[str] = Timers()
    plain: dict[str, int] = {}
    for key, due_s, is_set in steps:
        if is_set:
            timers.set(key, due_s)
            plain[key] = due_s
        else:
            timers.cancel(key)
            plain.pop(key, None)

        assert timers.next_s() == min(plain.values(), default=None)

    found = []
    while (due := timers.pop_due(1e9)) is not None:
        found.append(due)
    assert sorted(found) == sorted(plain)
    assert [plain[key] for key in found] == sorted(plain.values())
