"""How far a split is, what its workers agree to, and who goes on after a partition."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.ids import NodeId
from meshllm.core.limits import GIB
from meshllm.core.serving.splits.epochs import (
    IN_USE,
    STEPS,
    EpochState,
    EpochStep,
    Fence,
    FenceVerdict,
    SplitClaim,
    SplitEpoch,
    prevailing,
)
from meshllm.core.split_limits import SPLIT_EPOCH_MOST
from tests.core.serving.splits.lent import a_lender, a_question, planned

PLAN = planned(a_question(a_lender("a", 8 * GIB, has_file=True), a_lender("b", 9 * GIB), a_lender("c", 9 * GIB)))
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
OFFERED = SplitEpoch(plan=PLAN)
RUNNING = replace(OFFERED, state=EpochState.RUNNING, agreed=frozenset({B, C}))


def test_an_epoch_runs_after_all_agreed_and_it_was_loaded() -> None:
    """Step by step."""
    one = OFFERED.heard(B, 1)
    both = one.heard(C, 1)

    loading = both.after(EpochStep.LOAD_BEGUN)

    assert [step.state for step in (one, both, loading, loading.after(EpochStep.READY))] == [
        EpochState.OFFERED, EpochState.AGREED, EpochState.LOADING, EpochState.RUNNING,
    ]  # fmt: skip


def test_what_is_said_of_another_epoch_or_by_no_worker_of_it_is_no_matter() -> None:
    """Also the host's own word, and a word that comes too late."""
    agreed = OFFERED.heard(B, 1).heard(C, 1)

    assert OFFERED.heard(B, 2) is OFFERED
    assert OFFERED.heard(A, 1) is OFFERED
    assert OFFERED.heard(NodeId("x"), 1, "no") is OFFERED
    assert agreed.heard(B, 1, "no") is agreed


def test_a_refusal_ends_an_offer_in_the_worker_s_words() -> None:
    """The host plans again without it."""
    refused = OFFERED.heard(B, 1, "its memory is taken")

    assert (refused.state, refused.why) == (EpochState.LOST, "b refused: its memory is taken")
    assert refused.lost(C, "is dead").why == refused.why


@pytest.mark.parametrize("state", sorted(IN_USE))
def test_a_lost_member_ends_an_epoch_whatever_it_does(state: EpochState) -> None:
    """A node that is no member does not."""
    epoch = replace(OFFERED, state=state)

    assert epoch.lost(C, "is dead") == replace(epoch, state=EpochState.LOST, why="c: is dead")
    assert epoch.lost(NodeId("x"), "is dead") is epoch


def test_an_outranked_epoch_that_runs_drains_and_any_other_ends_at_once() -> None:
    """There is nothing to answer before it runs."""
    draining = RUNNING.after(EpochStep.OUTRANKED)

    assert draining.state is EpochState.DRAINING
    assert draining.after(EpochStep.DRAINED).state is EpochState.LOST
    for state in (EpochState.OFFERED, EpochState.AGREED, EpochState.LOADING):
        assert replace(OFFERED, state=state).after(EpochStep.OUTRANKED, "b prevails").why == "b prevails"


@given(st.lists(st.sampled_from(EpochStep)))
def test_no_chain_of_steps_leads_back_or_past_what_comes_before(steps: list[EpochStep]) -> None:
    """Each state is entered once at most, and nothing follows the end."""
    epoch, states = OFFERED, [EpochState.OFFERED]
    for step in steps:
        after = epoch.after(step)
        if after.state is not epoch.state:
            states.append(after.state)
        epoch = after

    assert len(states) == len(set(states))
    assert EpochState.RUNNING not in states or EpochState.LOADING in states
    assert EpochState.LOADING not in states or EpochState.AGREED in states


def test_every_state_has_its_line_and_only_the_end_has_none() -> None:
    """A table with a hole would be a state that nobody leaves."""
    assert set(STEPS) == set(EpochState)
    assert [state for state, steps in STEPS.items() if not steps] == [EpochState.REPLANNED]


# -- workers ---------------------------------------------------------------------------------------------------------


def test_a_worker_serves_one_epoch_at_a_time_and_never_goes_back() -> None:
    """Until its server for the one has ended, and then only to later ones."""
    fence, first = Fence().offered(3, A)

    assert first is FenceVerdict.AGREE
    assert fence.offered(3, A) == (fence, FenceVerdict.AGREE)
    assert fence.offered(3, B) == (fence, FenceVerdict.TAKEN)
    assert fence.offered(4, B) == (fence, FenceVerdict.BUSY)
    assert fence.offered(2, B) == (fence, FenceVerdict.STALE)
    free = fence.released(3)
    assert free.offered(3, A) == (free, FenceVerdict.STALE)
    assert free.offered(4, B) == (Fence(epoch=4, host=B, is_held=True), FenceVerdict.AGREE)
    assert fence.released(2) is fence


@pytest.mark.parametrize("epoch", [0, -1, SPLIT_EPOCH_MOST + 1])
def test_a_number_that_no_epoch_has_is_refused(epoch: int) -> None:
    """One far ahead would shut out all that come."""
    assert Fence().offered(epoch, A) == (Fence(), FenceVerdict.FORGED)


@given(st.lists(st.tuples(st.booleans(), st.integers(-1, 9), st.sampled_from([A, B]))))
def test_whatever_is_offered_a_fence_only_rises(calls: list[tuple[bool, int, NodeId]]) -> None:
    """And what it agreed to is what it holds."""
    fence = Fence()
    served: dict[int, NodeId] = {}
    for is_offer, epoch, host in calls:
        if not is_offer:
            fence = fence.released(epoch)
            continue
        after, verdict = fence.offered(epoch, host)
        assert after.epoch >= fence.epoch
        if verdict is FenceVerdict.AGREE:
            assert (after.is_held, after.epoch, after.host) == (True, epoch, host)
            assert served.setdefault(epoch, host) == host
        else:
            assert after == fence
        fence = after


# -- two hosts -------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from("abcdef"), st.integers(1, 3)), min_size=1, unique_by=lambda c: c[1]
    ),
    st.randoms(),
)
def test_of_all_claims_exactly_one_prevails_in_whatever_order(
    claims: list[tuple[int, str, int]], chance: Random
) -> None:
    """So the two sides of a partition settle without a word."""
    known = [SplitClaim(epoch, a_lender(name, size * GIB).said) for epoch, name, size in claims]
    first = prevailing(known)
    chance.shuffle(known)

    assert prevailing(known) == first
    assert first.epoch == max(claim.epoch for claim in known)


def test_the_later_epoch_prevails_and_of_equal_ones_the_better_host() -> None:
    """More memory, then the smaller id."""
    small, large = a_lender("a", GIB).said, a_lender("b", 2 * GIB).said

    assert prevailing([SplitClaim(2, small), SplitClaim(1, large)]).host is small
    assert prevailing([SplitClaim(2, small), SplitClaim(2, large)]).host is large
    assert prevailing([SplitClaim(2, small), SplitClaim(2, a_lender("c", GIB).said)]).host is small
    with pytest.raises(ValueError, match="empty"):
        prevailing([])


def test_after_a_partition_the_outranked_host_s_workers_are_free_for_later_epochs() -> None:
    """Two hosts, two workers; both sides had planned the same number."""
    fences = {B: Fence().offered(2, A)[0], C: Fence().offered(2, NodeId("d"))[0]}
    mine, theirs = SplitClaim(2, a_lender("a", GIB).said), SplitClaim(2, a_lender("d", 2 * GIB).said)
    outranked = replace(OFFERED, plan=replace(PLAN, epoch=2), state=EpochState.RUNNING)

    assert prevailing([mine, theirs]) is theirs
    ended = outranked.after(EpochStep.OUTRANKED).after(EpochStep.DRAINED)
    fences[B] = fences[B].released(ended.plan.epoch)

    assert ended.state is EpochState.LOST
    assert (fences[C].is_held, fences[C].epoch, fences[C].host) == (True, 2, NodeId("d"))
    assert fences[B].offered(3, NodeId("d"))[1] is FenceVerdict.AGREE
