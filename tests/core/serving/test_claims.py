"""Of several nodes that reach for the same model, one goes on."""

import itertools
import random

import pytest

from meshllm.core.announcement import ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.serving.claims import Claim, claim_wait_s, must_yield, stronger_than

M = ModelId("m")
S = ServingState


def a_claim(name: str, state: ServingState = S.CLAIMED, *, is_assigned: bool = True) -> Claim:
    """Return a claim of a node on the model `m`."""
    return Claim(node=NodeId(name), state=state, is_assigned=is_assigned)


def test_what_somebody_asked_a_node_for_beats_what_a_node_gave_itself() -> None:
    """Also when that is further on."""
    asked, given = a_claim("a", is_assigned=False), a_claim("b", S.LOADING)

    assert must_yield(given, [asked], M, 1) == asked
    assert must_yield(asked, [given], M, 1) is None


@pytest.mark.parametrize(("behind", "ahead"), list(itertools.pairwise((S.CLAIMED, S.DOWNLOADING, S.LOADING, S.READY))))
def test_further_on_beats_behind(behind: ServingState, ahead: ServingState) -> None:
    """What was done already is not thrown away."""
    for name in "abcdef":
        assert must_yield(a_claim(name, behind), [a_claim("x", ahead)], M, 1)
        assert must_yield(a_claim("x", ahead), [a_claim(name, behind)], M, 1) is None


def test_of_two_equal_claims_exactly_one_yields() -> None:
    """The hash decides, and both know it."""
    for number in range(50):
        one, other = a_claim(f"a{number}"), a_claim(f"b{number}")

        assert (must_yield(one, [other], M, 1) is None) != (must_yield(other, [one], M, 1) is None)


def test_as_many_go_on_as_there_are_places() -> None:
    """Three places, five claims: two yield."""
    claims = [a_claim(name) for name in "abcde"]

    yielding = [one for one in claims if must_yield(one, [other for other in claims if other is not one], M, 3)]

    assert len(yielding) == 2


def test_what_is_ready_or_was_asked_for_never_yields() -> None:
    """A second host that answers does no harm."""
    best = a_claim("a", S.READY, is_assigned=False)

    assert must_yield(a_claim("b", S.READY), [best], M, 1) is None
    assert must_yield(a_claim("b", is_assigned=False), [best], M, 1) is None


def test_what_drains_fills_no_place() -> None:
    """It is on its way out."""
    assert must_yield(a_claim("b"), [a_claim("a", S.DRAINING, is_assigned=False)], M, 1) is None


def test_two_nodes_with_old_news_of_each_other_never_both_yield() -> None:
    """Claims only grow on their way to ready, so what is heard of a rival is at most too weak."""
    stages = (S.CLAIMED, S.DOWNLOADING, S.LOADING, S.READY)
    for mine, theirs, seen_mine, seen_theirs in itertools.product(range(4), repeat=4):
        if seen_mine > mine or seen_theirs > theirs:
            continue
        a_yields = must_yield(a_claim("a", stages[mine]), [a_claim("b", stages[seen_theirs])], M, 1)
        b_yields = must_yield(a_claim("b", stages[theirs]), [a_claim("a", stages[seen_mine])], M, 1)

        assert not (a_yields and b_yields)


def test_the_order_of_claims_is_the_same_for_everybody() -> None:
    """However they are listed."""
    chance = random.Random(1)
    claims = [a_claim(f"n{number}", chance.choice(list(S)), is_assigned=chance.random() < 0.5) for number in range(20)]
    weakest = a_claim("zz")
    first = stronger_than(weakest, claims, M)
    chance.shuffle(claims)

    assert stronger_than(weakest, claims, M) == first


def test_a_claim_is_announced_longer_in_a_larger_mesh() -> None:
    """News takes longer there."""
    assert [claim_wait_s(members) for members in (2, 16, 32, 1000)] == [1.0, 1.0, 2.0, 4.0]
