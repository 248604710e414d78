"""One whole that is shared out: when that is made anew."""

from meshllm.core.cache_config import AllocationStrategy, CacheConfig
from meshllm.core.cache_limits import CACHE_DIVIDE_S
from meshllm.core.caches.division import Division
from meshllm.core.caches.shares import Claim
from meshllm.core.ids import ModelId

A, B = ModelId("a"), ModelId("b")
FAIR = CacheConfig()
BY_USE = CacheConfig(allocation_strategy=AllocationStrategy.DYNAMIC)


def claims(*weights: float) -> list[Claim]:
    """Return what speaks for models a, b and so on."""
    return [Claim(model=model, weight=weight) for model, weight in zip((A, B), weights, strict=False)]


def test_models_that_come_and_go_change_the_shares_at_once() -> None:
    """And another choice may; the same again is not asked twice."""
    division, asked = Division(), []

    def of(*weights: float) -> list[Claim]:
        asked.append(weights)
        return claims(*weights)

    changed = [
        division.renew(100, FAIR, [A, B], lambda: of(1, 1), 0.0),
        division.renew(100, FAIR, [B, A], lambda: of(9, 9), 1.0),
        division.renew(100, FAIR, [A], lambda: of(1), 2.0),
        division.renew(100, BY_USE, [A], lambda: of(2), 3.0),
    ]

    assert changed == [True, False, True, False]
    assert asked == [(1, 1), (1,), (2,)]
    assert division.shares == {A: 100}
    assert division.renew(0, FAIR, [A], lambda: of(1), 4.0) is False
    assert division.shares == {}


def test_use_is_looked_at_now_and_then() -> None:
    """And changes shares where that is worth it."""
    division = Division()
    division.renew(100, BY_USE, [A, B], lambda: claims(1, 1), 0.0)
    due_s = division.next_s(BY_USE)
    early = division.renew(100, BY_USE, [A, B], lambda: claims(9, 1), CACHE_DIVIDE_S - 1)
    slight = division.renew(100, BY_USE, [A, B], lambda: claims(51, 49), CACHE_DIVIDE_S)
    much = division.renew(100, BY_USE, [A, B], lambda: claims(9, 1), 2 * CACHE_DIVIDE_S)

    assert due_s == CACHE_DIVIDE_S
    assert (early, slight, much) == (False, False, True)
    assert division.shares == {A: 90, B: 10}
    assert division.next_s(FAIR) is None
