"""Leases: together never more than the limit, and whoever is cut off keeps to its own."""

from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.ids import NodeId
from meshllm.core.quotas.lease import Hosts, Lease

A, B, C = (NodeId(letter) for letter in "abc")


def among(me: NodeId, *others: NodeId, doubted: bool = False, left: tuple[NodeId, ...] = ()) -> Hosts:
    """Return hosts that live, or are all doubted."""
    return Hosts(me=me, others=dict.fromkeys(others, not doubted), left=left)


def test_a_host_that_is_alone_may_use_all_of_it() -> None:
    """As much as is left."""
    lease = Lease()
    lease.renew(100, 30, 20, among(A))

    assert lease.allowed == 80


@given(st.integers(0, 1000), st.lists(st.integers(0, 300), min_size=1, max_size=3))
def test_hosts_that_know_the_same_hold_no_more_than_the_limit(limit: int, used: list[int]) -> None:
    """And no less than what is left of it."""
    nodes = (A, B, C)[: len(used)]
    allowed = 0
    for node, own in zip(nodes, used, strict=True):
        lease = Lease()
        lease.renew(limit, own, sum(used) - own, among(node, *(one for one in nodes if one != node)))
        allowed += lease.allowed

    assert allowed == max(limit, sum(used))


def test_a_lease_stays_as_it_is_while_a_host_is_doubted() -> None:
    """Nobody knows what that one uses."""
    lease = Lease()
    lease.renew(100, 0, 0, among(A, B))

    lease.renew(100, 50, 0, among(A, B, doubted=True))

    assert lease.allowed == 50


def test_what_a_vanished_host_held_is_kept_for_it() -> None:
    """Until it is back, or says that it has left, or a second window begins without it."""
    lease = Lease()
    lease.renew(100, 0, 0, among(A, B))
    lease.renew(100, 50, 0, among(A))
    assert lease.allowed == 50

    following = Lease(lease.gone)
    following.renew(100, 0, 0, among(A))
    assert following.allowed == 50
    third = Lease(following.gone)
    third.renew(100, 0, 0, among(A))
    assert third.allowed == 100

    lease.renew(100, 50, 10, among(A, left=(B,)))
    assert lease.allowed == 90


def test_a_host_that_is_back_shares_again() -> None:
    """With what it used meanwhile."""
    lease = Lease()
    lease.renew(100, 0, 0, among(A, B))
    lease.renew(100, 40, 0, among(A))

    lease.renew(100, 40, 50, among(A, B))

    assert lease.allowed == 45
