"""Two models are compared by the share that people set."""

import random

import pytest

from meshllm.core.serving.variants import Variants


@pytest.mark.rows("T10")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.7, 0.5, 0.01])
def test_ten_thousand_requests_keep_to_their_share(seed: int, share: float) -> None:
    """All within one second, so no clock can help."""
    variants = Variants(random.Random(seed))

    first = sum(variants.is_first(share) for _ in range(10_000))

    assert abs(first / 10_000 - share) < 0.001


def test_a_session_keeps_its_variant_at_every_entry_node() -> None:
    """And sessions keep to the share, as closely as chance does."""
    here, there = Variants(random.Random(1)), Variants(random.Random(2))

    picks = [here.is_first(0.7, f"s{number}") for number in range(10_000)]

    assert picks == [there.is_first(0.7, f"s{number}") for number in range(10_000)]
    assert 0.69 <= sum(picks) / 10_000 <= 0.71


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True)])
def test_none_and_all_are_exact(share: float, *, expected: bool) -> None:
    """A comparison that has ended, or not begun."""
    variants = Variants(random.Random(1))

    assert {variants.is_first(share, session) for session in ("", "a", "b") for _ in range(100)} == {expected}
