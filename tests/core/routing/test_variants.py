"""Models are compared by the shares that people set."""

import random
from collections import Counter

import pytest

from meshllm.core.routing.variants import Variants, compared
from meshllm.core.routing_config import RoutingConfig


def two(share: float) -> tuple[tuple[str, float], ...]:
    """Return two variants, of which the first has a share."""
    return (("a", share), ("b", 1.0 - share))


@pytest.mark.rows("T10")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.7, 0.5, 0.01])
def test_ten_thousand_requests_keep_to_their_share(seed: int, share: float) -> None:
    """All within one second, so no clock can help."""
    variants = Variants(random.Random(seed))

    first = sum(variants.order(two(share))[0] == "a" for _ in range(10_000))

    assert abs(first / 10_000 - share) < 0.001


def test_a_session_keeps_its_variant_at_every_entry_node() -> None:
    """And sessions keep to the share, as closely as chance does."""
    here, there = Variants(random.Random(1)), Variants(random.Random(2))

    picks = [here.order(two(0.7), f"s{number}")[0] == "a" for number in range(10_000)]

    assert picks == [there.order(two(0.7), f"s{number}")[0] == "a" for number in range(10_000)]
    assert 0.69 <= sum(picks) / 10_000 <= 0.71


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True)])
def test_none_and_all_are_exact(share: float, *, expected: bool) -> None:
    """A comparison that has ended, or not begun."""
    variants = Variants(random.Random(1))

    assert {variants.order(two(share), session)[0] == "a" for session in ("", "a", "b") for _ in range(100)} == {
        expected
    }


@pytest.mark.parametrize(
    "weights", [(5.0, 3.0, 2.0, 0.0), (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0), (0.0, 9.0, 0.0, 1.0)]
)
def test_any_number_of_variants_keep_to_their_weights(weights: tuple[float, ...]) -> None:
    """Those without weight get nothing, except where none has any; each request has all others to stand in."""
    variants, named = Variants(random.Random(3)), tuple(zip("abcd", weights, strict=True))

    orders = [variants.order(named) for _ in range(10_000)]

    firsts = Counter(order[0] for order in orders)
    whole = sum(weights)
    for name, weight in named:
        assert abs(firsts[name] / 10_000 - (weight / whole if whole else 0.25)) < 0.002
    assert {frozenset(order) for order in orders} == {frozenset("abcd")}


def test_what_is_compared_is_what_was_named() -> None:
    """Any number of variants instead of the two."""
    both = RoutingConfig(ab_test_model_a="a", ab_test_model_b="b", ab_test_split=0.75)

    assert compared(both) == (("a", 0.75), ("b", 0.25))
    assert compared(RoutingConfig(variants=(("c", 1.0),), ab_test_model_a="a")) == (("c", 1.0),)
