"""The epochs of a split: how far one is, what a worker may agree to, and which of two hosts of one model goes on.

Owns the table of an epoch's states, the fence of a worker, and the order of claims. Decides what each step leads to.
Doesn't know who plans, nor how anything is sent: whoever carries splits out tells it what happened.

Invariants: what is said of another epoch changes nothing; no epoch begins to load before all its workers agreed to it;
a worker holds one epoch of a model at a time, and never agrees to one below any that it agreed to; of several claims on
one model exactly one prevails, by the same rule at every node.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from meshllm.core.announcement import Announcement
from meshllm.core.ids import NodeId
from meshllm.core.serving.election import in_order
from meshllm.core.serving.splits.plan import SplitPlan
from meshllm.core.split_limits import SPLIT_EPOCH_MOST


class EpochState(StrEnum):
    """How far one epoch is, at its host."""

    OFFERED = "offered"
    """The workers were asked."""
    AGREED = "agreed"
    """All of them have memory and a server for it."""
    LOADING = "loading"
    RUNNING = "running"
    DRAINING = "draining"
    """Another host's claim prevails: what runs is answered, and nothing more."""
    LOST = "lost"
    """A member is gone, refused or failed: nothing of it can be used."""
    REPLANNED = "replanned"
    """A later epoch took its place, or none will."""


class EpochStep(StrEnum):
    """What can happen to an epoch."""

    ALL_AGREED = "all_agreed"
    LOAD_BEGUN = "load_begun"
    READY = "ready"
    BROKEN = "broken"
    """A worker was lost or refused, or the host's engine ended."""
    OUTRANKED = "outranked"
    DRAINED = "drained"
    SUCCEEDED = "succeeded"
    """There is another plan, or there is to be none."""


_S, _E = EpochState, EpochStep

STEPS: Mapping[EpochState, Mapping[EpochStep, EpochState]] = {
    _S.OFFERED: {_E.ALL_AGREED: _S.AGREED, _E.BROKEN: _S.LOST, _E.OUTRANKED: _S.LOST},
    _S.AGREED: {_E.LOAD_BEGUN: _S.LOADING, _E.BROKEN: _S.LOST, _E.OUTRANKED: _S.LOST},
    _S.LOADING: {_E.READY: _S.RUNNING, _E.BROKEN: _S.LOST, _E.OUTRANKED: _S.LOST},
    _S.RUNNING: {_E.BROKEN: _S.LOST, _E.OUTRANKED: _S.DRAINING},
    _S.DRAINING: {_E.BROKEN: _S.LOST, _E.DRAINED: _S.LOST},
    _S.LOST: {_E.SUCCEEDED: _S.REPLANNED},
    _S.REPLANNED: {},
}
"""All that may follow; whatever is not here changes nothing. Only a running epoch has answers to drain."""

IN_USE = frozenset({_S.OFFERED, _S.AGREED, _S.LOADING, _S.RUNNING, _S.DRAINING})
"""The states in which workers are counted on, and one that is lost ends the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitEpoch:
    """One plan on its way, as its host sees it. Each method returns what it is afterwards."""

    plan: SplitPlan
    state: EpochState = EpochState.OFFERED
    agreed: frozenset[NodeId] = frozenset()
    """Workers that agreed to this epoch."""
    why: str = ""
    """What ended it, in words."""

    def after(self, step: EpochStep, why: str = "") -> "SplitEpoch":
        """Take a step that the state allows; any other leaves everything as it is."""
        state = STEPS[self.state].get(step)
        if state is None:
            return self
        return replace(self, state=state, why=why if state is EpochState.LOST and not self.why else self.why)

    def heard(self, worker: NodeId, epoch: int, refusal: str = "") -> "SplitEpoch":
        """Take a worker's answer to the offer of an epoch; a refusal is in words. Answers to others do not count."""
        if epoch != self.plan.epoch or worker not in self.plan.workers or self.state is not EpochState.OFFERED:
            return self
        if refusal:
            return self.after(EpochStep.BROKEN, f"{self._name(worker)} refused: {refusal}")
        known = replace(self, agreed=self.agreed | {worker})
        return known.after(EpochStep.ALL_AGREED) if known.agreed.issuperset(self.plan.workers) else known

    def lost(self, node: NodeId, why: str) -> "SplitEpoch":
        """Take the loss of a node; one that is no member is no matter."""
        return self.after(EpochStep.BROKEN, f"{self._name(node)}: {why}") if node in self.plan.members else self

    def _name(self, node: NodeId) -> str:
        return next(share.name for share in self.plan.shares if share.node == node)


# -- at a worker -------------------------------------------------------------------------------------------------


class FenceVerdict(StrEnum):
    """What a worker answers to an offer."""

    AGREE = "agree"
    FORGED = "forged"
    """No epoch can have this number."""
    STALE = "stale"
    """It agreed to a later one."""
    TAKEN = "taken"
    """It agreed to this number of another host."""
    BUSY = "busy"
    """It still holds an earlier one: that ends first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """What a worker agreed to for one model."""

    epoch: int = 0
    """The highest ever."""
    host: NodeId | None = None
    """Whose that was."""
    is_held: bool = False
    """Its server for it runs."""

    def offered(self, epoch: int, host: NodeId) -> "tuple[Fence, FenceVerdict]":
        """Return what an offer makes of it; only `AGREE` changes it."""
        if not 0 < epoch <= SPLIT_EPOCH_MOST:
            return self, FenceVerdict.FORGED
        if epoch < self.epoch:
            return self, FenceVerdict.STALE
        if epoch == self.epoch:
            if host != self.host:
                return self, FenceVerdict.TAKEN
            return self, FenceVerdict.AGREE if self.is_held else FenceVerdict.STALE
        if self.is_held:
            return self, FenceVerdict.BUSY
        return Fence(epoch=epoch, host=host, is_held=True), FenceVerdict.AGREE

    def released(self, epoch: int) -> "Fence":
        """Return it with the server of an epoch ended; that epoch never comes again."""
        return replace(self, is_held=False) if epoch == self.epoch else self


# -- between two hosts -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SplitClaim:
    """A host that runs a split of a model, or is about to."""

    epoch: int
    host: Announcement


def prevailing(claims: Iterable[SplitClaim]) -> SplitClaim:
    """Return which of several claims on one model goes on: the highest epoch, then the election of hosts.

    Raises ValueError without any. The others are outranked, and drain.
    """
    known = list(claims)
    highest = max(claim.epoch for claim in known)
    able = {claim.host.node: claim for claim in known if claim.epoch == highest}
    return able[in_order(claim.host for claim in able.values())[0].node]
