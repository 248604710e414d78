"""Windows move with their reader; allowances fill with time."""

from hypothesis import given
from hypothesis import strategies as st

from meshllm.transport.credit import Window


def test_window_moves_in_steps_of_half() -> None:
    """A limit for each byte would cost a frame for each byte."""
    window = Window(100)

    first, second = window.take(49), window.take(1)

    assert (first, second, window.limit_bytes) == (False, True, 150)


@given(st.lists(st.integers(1, 100), max_size=50))
def test_window_never_grants_more_than_its_size(steps: list[int]) -> None:
    """What is granted and not consumed is what a stalled reader has to hold."""
    window = Window(100)

    for size in steps:
        window.take(min(size, window.limit_bytes - window.consumed_bytes))

        assert 50 < window.limit_bytes - window.consumed_bytes <= 100


def test_wider_window_counts_from_what_was_consumed() -> None:
    """Admission turns a stranger's window into a member's, once."""
    window = Window(10)
    window.take(4)

    widened, again = window.widen(100), window.widen(100)

    assert (widened, again, window.limit_bytes) == (True, False, 104)


def test_window_does_not_shrink() -> None:
    """Credit that was given cannot be taken back."""
    window = Window(100)

    assert not window.widen(10)
    assert (window.window_bytes, window.limit_bytes) == (100, 100)
