"""Buckets: how much comes in over any time, what is taken on credit, and how long an excess is forgiven."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.quota_config import Quotas
from meshllm.core.quotas.rate import Rate


@given(
    per_s=st.floats(0.1, 20), burst=st.integers(0, 10), gaps_s=st.lists(st.floats(0, 3), min_size=1, max_size=80)
)  # fmt: skip
def test_never_more_come_in_than_the_rate_and_the_burst(per_s: float, burst: int, gaps_s: list[float]) -> None:
    """Over any stretch that begins with full buckets."""
    rate, now_s, taken = Rate(), 1000.0, 0
    quotas = Quotas(max_requests_per_second=per_s, burst_requests=burst)
    for gap_s in gaps_s:
        now_s += gap_s
        if rate.wait_s(quotas, now_s) <= 0:
            rate.take()
            taken += 1

    assert taken <= (burst or max(per_s, 1)) + per_s * (now_s - 1000) + 1e-6


def test_whoever_waits_as_long_as_told_comes_in() -> None:
    """And not earlier."""
    rate, quotas = Rate(), Quotas(max_requests_per_second=0.5)
    assert rate.wait_s(quotas, 10.0) <= 0
    rate.take()

    assert rate.wait_s(quotas, 10.0) == pytest.approx(2.0)
    assert rate.wait_s(quotas, 11.9) > 0
    assert rate.wait_s(quotas, 12.001) <= 0


def test_tokens_are_made_up_for_afterwards() -> None:
    """Nobody knows before how many there will be."""
    rate, quotas = Rate(), Quotas(max_tokens_per_second=10)
    assert rate.wait_s(quotas, 10.0) <= 0

    rate.use(60)

    assert rate.wait_s(quotas, 10.0) == pytest.approx(5.0)
    assert rate.wait_s(quotas, 15.1) <= 0


def test_an_excess_is_forgiven_for_a_while() -> None:
    """Anew after a rest in which the buckets filled."""
    rate, quotas = Rate(), Quotas(max_requests_per_second=1, grace_period_sec=3)
    rate.wait_s(quotas, 10.0)
    for _ in range(9):
        rate.take()

    graced = []
    for at_s in (11.0, 13.9, 14.0):
        assert rate.wait_s(quotas, at_s) > 0
        graced.append(rate.is_graced(quotas, at_s))
    assert graced == [True, True, False]
    assert rate.wait_s(quotas, 60.0) <= 0
    assert rate.is_graced(quotas, 61.0)
