"""The division of the prompt cache: never more than the whole, floors kept, the same in whatever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.cache_limits import CACHE_HYSTERESIS
from meshllm.core.caches.shares import Claim, divide, is_worth_it, usage_score
from meshllm.core.ids import ModelId

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")

_SIZES = st.integers(0, 2**44)
_CLAIMS = st.lists(
    st.builds(
        Claim, model=st.sampled_from([ModelId(f"m{n}") for n in range(12)]),
        weight=st.floats(0, 1e12, allow_nan=False), floor_bytes=_SIZES, fixed_bytes=st.none() | _SIZES,
    ),
    max_size=12, unique_by=lambda one: one.model,
)  # fmt: skip


@pytest.mark.rows("CAC-2")
@given(_SIZES, _CLAIMS)
def test_shares_never_exceed_the_whole_and_are_never_negative(whole: int, claims: list[Claim]) -> None:
    """Whatever floors and written sizes say; everybody who asks has one."""
    shares = divide(whole, claims)

    assert shares.keys() == {one.model for one in claims}
    assert sum(shares.values()) <= whole
    assert min(shares.values(), default=0) >= 0


@given(_SIZES, _CLAIMS, st.randoms())
def test_the_order_of_claims_makes_no_difference(whole: int, claims: list[Claim], rng: object) -> None:
    """Else a division would change with nothing."""
    shuffled = sorted(claims, key=lambda _: rng.random())  # type: ignore[attr-defined]

    assert divide(whole, shuffled) == divide(whole, claims)


@pytest.mark.rows("CAC-13")
@given(_CLAIMS)
def test_everybody_has_its_floor_where_floors_and_sizes_fit(claims: list[Claim]) -> None:
    """However small its weight is."""
    needed = sum(one.floor_bytes if one.fixed_bytes is None else one.fixed_bytes for one in claims)

    shares = divide(needed, claims)

    for one in claims:
        assert shares[one.model] >= (one.floor_bytes if one.fixed_bytes is None else one.fixed_bytes)


@given(st.integers(1, 2**44), st.integers(1, 20))
def test_nearly_nothing_of_the_whole_is_lost(whole: int, count: int) -> None:
    """A byte for each model, by rounding."""
    shares = divide(whole, [Claim(model=ModelId(str(number)), weight=number + 1) for number in range(count)])

    assert sum(shares.values()) >= whole - count - whole // 2**50


@pytest.mark.rows("CAC-1")
@pytest.mark.parametrize(
    ("weights", "shares"),
    [((1, 1), (500, 500)), ((3, 1), (750, 250)), ((0, 0), (500, 500)), ((99, 1), (900, 100)), ((0, 5), (100, 900))],
)
def test_shares_follow_weights_above_the_floor(weights: tuple[float, float], shares: tuple[int, int]) -> None:
    """Where nobody weighs anything, all are alike."""
    found = divide(
        1000, [Claim(model=A, weight=weights[0], floor_bytes=100), Claim(model=B, weight=weights[1], floor_bytes=100)]
    )

    assert (found[A], found[B]) == shares


def test_written_sizes_come_first_and_floors_shrink_together() -> None:
    """Where all of it does not fit, each loses the same part."""
    fixed = divide(1000, [Claim(model=A, fixed_bytes=700), Claim(model=B), Claim(model=C)])
    crowded = divide(100, [Claim(model=A, floor_bytes=100), Claim(model=B, floor_bytes=300)])

    assert fixed == {A: 700, B: 150, C: 150}
    assert crowded == {A: 25, B: 75}


def test_a_small_change_is_not_worth_a_new_division() -> None:
    """A tenth of a share is; and so is another model."""
    edge = int(1000 * (1 + CACHE_HYSTERESIS))

    assert not is_worth_it({A: 1000, B: 5000}, {A: edge, B: 4900})
    assert is_worth_it({A: 1000, B: 5000}, {A: edge + 1, B: 4899})
    assert is_worth_it({A: 1000}, {A: 1000, B: 0})


@pytest.mark.rows("CAC-13")
@pytest.mark.parametrize(
    ("requests", "idle_s", "score"), [(10, 0.0, 10.0), (10, 9.0, 1.0), (0, 0.0, 0.0), (5, -3.0, 5.0)]
)
def test_use_is_requests_for_each_second_of_rest(requests: int, idle_s: float, score: float) -> None:
    """And one second more, so that the last one never divides by nothing."""
    assert usage_score(requests, idle_s) == score
