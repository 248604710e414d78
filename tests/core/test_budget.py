"""How much may happen."""

from meshllm.core.budget import Budget


def test_a_burst_is_allowed_and_then_so_much_a_second() -> None:
    """A peer that talks too much is heard less, not never."""
    budget = Budget(10.0, 5.0, now_s=0.0)

    burst = [budget.take(0.0) for _ in range(6)]

    assert burst == [True] * 5 + [False]
    assert budget.take(0.1)
    assert not budget.take(0.1)
    assert [budget.take(100.0) for _ in range(6)] == [True] * 5 + [False]


def test_a_clock_that_stands_still_gives_nothing() -> None:
    """Only time fills the bucket."""
    budget = Budget(10.0, 1.0, now_s=5.0)

    assert [budget.take(5.0), budget.take(5.0), budget.take(4.0)] == [True, False, False]
