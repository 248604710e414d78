"""How long a request waits at an engine that stands still."""

import pytest

from meshllm.core import limits
from meshllm.core.routing.first_byte import patience_s


@pytest.mark.parametrize(
    ("reading_s", "seen_s", "expected_s"),
    [
        (0.1, None, limits.FIRST_BYTE_S),  # nothing is known: as long as ever
        (8.0, None, 8.0 * limits.FIRST_BYTE_TIMES),  # a long prompt, as far as can be guessed
        (0.1, 0.2, limits.FIRST_BYTE_LEAST_S),  # a host that answers at once
        (0.1, 4.0, 4.0 * limits.FIRST_BYTE_TIMES),  # one that never did
        (6.0, 0.2, 6.0 * limits.FIRST_BYTE_TIMES),  # one that did, and has much to read now
        (900.0, 0.2, limits.FIRST_BYTE_MOST_S),  # nobody waits for ever
        (900.0, None, limits.FIRST_BYTE_MOST_S),
    ],
)
def test_patience_follows_what_is_known_of_the_host(reading_s: float, seen_s: float | None, expected_s: float) -> None:
    """Between a floor and a ceiling."""
    assert patience_s(reading_s, seen_s) == expected_s


def test_patience_never_shrinks_with_more_to_read() -> None:
    """Nor with slower first bytes."""
    times_s = [patience_s(reading_s / 4, 0.5) for reading_s in range(200)]

    assert times_s == sorted(times_s)
    assert patience_s(0.0, 1.0) <= patience_s(0.0, 10.0)
