"""Claims on models: which of several nodes goes on when more reach for one than it needs, and which yield.

Owns the order of claims. Decides whether this node's claim has to go. Doesn't know who should have
claimed it (`assignment`) nor how it is announced.

Two nodes never yield to each other. A claim only grows stronger on its way to ready, and what is heard of
a rival is at most too weak. Suppose A yields to B and B to A: A, as it is, is weaker than B as A heard of
it, so weaker than B as it is; that in turn is weaker than A as B heard of it, so weaker than A as it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from meshllm.core.announcement import ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import CLAIM_WAIT_MOST_S, CLAIM_WAIT_S, FULL_MESH_MEMBERS
from meshllm.core.serving.election import preference

_STAGES = {
    ServingState.FAILED: -2, ServingState.DRAINING: -1, ServingState.CLAIMED: 0, ServingState.DOWNLOADING: 1,
    ServingState.LOADING: 2, ServingState.READY: 3,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A node that serves a model or is about to."""

    node: NodeId
    state: ServingState
    is_assigned: bool
    """The node gave it to itself."""

    @property
    def counts(self) -> bool:
        """Tell whether it fills a place."""
        return self.state not in (ServingState.DRAINING, ServingState.FAILED)


def stronger_than(mine: Claim, rivals: Iterable[Claim], model: ModelId) -> list[Claim]:
    """Return the claims that beat this one, the strongest first.

    What somebody asked that node for beats what it gave itself; further on beats behind; then the hash.
    """
    better = [rival for rival in rivals if rival.counts and _weakness(rival, model) < _weakness(mine, model)]
    return sorted(better, key=lambda claim: _weakness(claim, model))


def must_yield(mine: Claim, rivals: Iterable[Claim], model: ModelId, places: int) -> Claim | None:
    """Return the claim to which this one has to yield, or None when it may go on.

    Only what a node gave itself yields, and only until it is ready: a second host that answers does no harm.
    """
    if not mine.is_assigned or mine.state is ServingState.READY or not mine.counts:
        return None
    better = stronger_than(mine, rivals, model)
    return better[0] if len(better) >= max(places, 1) else None


def claim_wait_s(members: int) -> float:
    """Return how long a claim is announced before it is acted on, in a mesh of so many."""
    return min(CLAIM_WAIT_S * max(1.0, 2 * members / FULL_MESH_MEMBERS), CLAIM_WAIT_MOST_S)


def _weakness(claim: Claim, model: ModelId) -> tuple[bool, int, int, NodeId]:
    return claim.is_assigned, -_STAGES[claim.state], preference(claim.node, model), claim.node
