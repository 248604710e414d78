"""Counters that travel: whatever the order in which they are heard, everybody knows the same in the end."""

from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.ids import ModelId
from meshllm.core.quota_use import QuotaUse, Spent, merged

SPENT = st.builds(Spent, st.integers(0, 2).map(lambda hour: hour * 3600), st.integers(0, 5), st.integers(0, 5))
USES = st.builds(QuotaUse, model=st.sampled_from([ModelId("a"), ModelId("b")]), hour=SPENT, day=SPENT)


@given(st.lists(USES), st.lists(USES), st.lists(USES))
def test_merging_is_commutative_associative_and_idempotent(
    one: list[QuotaUse], two: list[QuotaUse], three: list[QuotaUse]
) -> None:
    """So news may travel in any way, and twice."""
    whole = merged(one, two, three)

    assert whole == merged(three, one, two)
    assert whole == merged(merged(one, two).values(), three) == merged(one, merged(two, three).values())
    assert whole == merged(whole.values(), one, two)


@given(SPENT, SPENT)
def test_nothing_that_was_used_in_the_later_window_is_forgotten(one: Spent, other: Spent) -> None:
    """And nothing of an earlier one counts there."""
    both = one.merged(other)

    assert both.window_unix_s == max(one.window_unix_s, other.window_unix_s)
    for each in (one, other):
        within = each.within(both.window_unix_s)
        assert (both.tokens, both.requests) >= (within.tokens, 0)
        assert both.requests >= within.requests
