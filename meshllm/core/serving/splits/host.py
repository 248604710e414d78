"""This node as the host of models that no node holds alone: when it shares one, with whom, and what ends that.

Owns the course of each split from the plan to its end. Decides when a plan is carried out, and when it is made anew.
Doesn't know engines or servers: `engine_life` runs the one, workers run the others.

A model is shared when somebody wants it, nobody serves it and `plan` names this node as its host. What its
workers agreed to is fenced by an epoch (`epochs`); the loss of a member ends the epoch, and the next plan is a
later one. Who waits for the model goes on waiting meanwhile.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from meshllm.core.announcement import Announcement, ServedModel, ServingState
from meshllm.core.catalog import ModelSpec
from meshllm.core.effects import Level, Send, SplitPeer, StartEngine
from meshllm.core.engines import EnginePlan, EngineState, MemoryNeed
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.messages import SplitAnswer, SplitEnded, SplitOffer, SplitRelease
from meshllm.core.policy import LoadMode
from meshllm.core.serving.assignment import Need, Urgency
from meshllm.core.serving.capacity import NoRoom
from meshllm.core.serving.engine_life import EngineLife
from meshllm.core.serving.engine_state import Signal
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.records import Record
from meshllm.core.serving.replies import Effects, notice
from meshllm.core.serving.splits.epochs import IN_USE, EpochState, EpochStep, SplitClaim, SplitEpoch, prevailing
from meshllm.core.serving.splits.lenders import Conditions, Lender, SplitLack
from meshllm.core.serving.splits.model import split_model
from meshllm.core.serving.splits.neighbourhood import Neighbourhood, alone
from meshllm.core.serving.splits.plan import NoSplit, SplitPlan, SplitQuestion, plan_split
from meshllm.core.serving.stock import Stock
from meshllm.core.split_limits import (
    SPLIT_AGAIN_S,
    SPLIT_AGREE_S,
    SPLIT_ASK_S,
    SPLIT_EPOCH_MOST,
    SPLIT_LOOK_S,
    SPLIT_REACH_S,
    SPLIT_RETRY_MOST_S,
    SPLIT_RETRY_S,
    SPLIT_RETURN_S,
    SPLIT_SETTLE_S,
    SPLIT_WORKERS,
)
from meshllm.core.view import Reason

_IDLE = frozenset({EngineState.STOPPED, EngineState.BACKING_OFF})
_BEFORE_ENGINE = frozenset({EpochState.OFFERED, EpochState.AGREED})
_COMING = frozenset({
    ServingState.CLAIMED, ServingState.DOWNLOADING, ServingState.LOADING, ServingState.READY,
})  # fmt: skip


_BELIEVED = SPLIT_EPOCH_MOST // 2
"""No epoch comes so far by itself: whoever claims a higher one would leave no number for the next."""


@dataclass(slots=True)
class _Course:
    """One epoch on its way."""

    epoch: SplitEpoch
    until_s: float
    """For all workers to agree."""
    ask_s: float
    """When to ask those again that have not answered."""
    is_forced: bool = False


class Splits:
    """The splits that this node hosts, or is about to."""

    def __init__(self, me: NodeId, held: Holdings, stock: Stock, engines: EngineLife) -> None:
        """Share nothing yet."""
        self.around: Neighbourhood = alone()
        self._me = me
        self._held = held
        self._stock = stock
        self._engines = engines
        self._courses: dict[ModelId, _Course] = {}
        self._needs: Sequence[Need] = ()
        self._wanted: dict[ModelId, Urgency] = {}
        """What of those lacks a host that somebody wants."""
        self._since: dict[ModelId, float] = {}
        """Since when a plan would have been this node's to carry out."""
        self._look_s: dict[ModelId, float] = {}
        """When to look again at those that nobody can share yet."""
        self._losses: dict[ModelId, int] = {}
        """Splits in a row that came to nothing."""
        self._rest_until: dict[ModelId, float] = {}
        self.unshared: Mapping[ModelId, str] = {}
        """What was asked for and no machines can share with this node as the host, and why. Replaced, never changed."""
        self._judged: dict[ModelId, str] = {}
        """The same, of the look that is under way."""
        self._reached: dict[NodeId, float] = {}
        """Whom this node had itself connected to, and until when that is enough."""
        self._highest: dict[ModelId, int] = {}
        """The highest epoch that was ever heard of."""

    # -- what others and the engine say ------------------------------------------------------------------------

    def on_answer(self, peer: NodeId, answer: SplitAnswer) -> None:
        """A worker agrees, or does not."""
        course = self._courses.get(answer.model)
        if course is None or peer not in course.epoch.plan.workers:
            return
        if answer.highest <= _BELIEVED:
            self._highest[answer.model] = max(self._highest[answer.model], answer.highest)
        course.epoch = course.epoch.heard(peer, answer.epoch, answer.refusal)

    def on_ended(self, peer: NodeId, ended: SplitEnded) -> None:
        """A worker's server is gone."""
        course = self._courses.get(ended.model)
        if course is not None and course.epoch.plan.epoch == ended.epoch and peer in course.epoch.plan.workers:
            course.epoch = course.epoch.lost(peer, ended.reason)

    def concerns(self, nodes: set[NodeId]) -> bool:
        """Tell whether any of these nodes is a member of a split."""
        return any(course.epoch.plan.members & nodes for course in self._courses.values())

    def keeps(self, record: Record) -> bool:
        """Tell whether a model is shared, or is about to be: nothing else is done about it meanwhile."""
        known = (self._courses, self._since, self._rest_until)
        return any(record.id in models for models in known) or self._is_forced(record)

    # -- decisions ----------------------------------------------------------------------------------------------

    def settle(self, needs: Sequence[Need], now_s: float, *, is_joining: bool = False) -> Effects:
        """Bring every split a step further, and begin those that are called for; who joins does not judge yet."""
        for due in (self._rest_until, self._look_s):
            for model in [model for model, at_s in due.items() if at_s <= now_s]:
                del due[model]
        for node in [node for node, at_s in self._reached.items() if at_s <= now_s]:
            del self._reached[node]
        effects: Effects = []
        for model in list(self._courses):
            effects += self._tend(model, now_s)
        if self._held.build is None or self._held.build.sharing is None:
            self._give_up()
            self.unshared = {}
            return effects
        if needs is not self._needs:
            self._needs = needs
            self._wanted = {one.model: one.urgency for one in needs if one.missing and one.urgency is not Urgency.LYING}
        wanted = self._wanted
        able = [record for record in self._held.records.values() if self._is_candidate(record, wanted, now_s)]
        for model in self._since.keys() - {record.id for record in able}:
            del self._since[model]
        before, self._judged = self.unshared, {}
        for record in able:
            effects += self._consider(record, wanted.get(record.id), now_s)
        judged: Mapping[ModelId, str] = {} if is_joining else self._judged
        self.unshared = before if before == judged else judged
        return effects

    def next_s(self) -> float | None:
        """Return when to look again, if nothing happens before."""
        offered = [course for course in self._courses.values() if course.epoch.state is EpochState.OFFERED]
        due = [min(course.until_s, course.ask_s) for course in offered]
        due += [since_s + SPLIT_SETTLE_S for model, since_s in self._since.items() if model not in self._courses]
        due += [*self._rest_until.values(), *self._look_s.values(), *self._reached.values()]
        return min(due, default=None)

    def _give_up(self) -> None:
        """Say of what has to be shared that this node's engine cannot."""
        self._since.clear()
        self._look_s.clear()
        for record in self._held.records.values():
            if self._is_forced(record) and record.state in _IDLE and self._held.build is not None:
                record.waiting = "to be shared: the engine here cannot; mesh-llm engine build makes one that can"

    # -- a split on its way ---------------------------------------------------------------------------------------

    def _tend(self, model: ModelId, now_s: float) -> Effects:
        course = self._courses[model]
        record = self._held.records.get(model)
        if record is None:
            del self._courses[model]
            return self._release(course.epoch.plan)
        effects: Effects = []
        if course.epoch.state in IN_USE:
            self._reach(course.epoch.plan.workers, now_s)
            course.epoch = self._checked(course, record, now_s)
        if course.epoch.state in IN_USE and (why := self._outranked(course)):
            course.epoch = course.epoch.after(EpochStep.OUTRANKED, why)
            line = notice(Level.INFO, "letting go of a shared model", model=model, reason=why)
            effects += [line, *self._engines.withdraw(record)]
        if course.epoch.state is EpochState.OFFERED and now_s >= course.ask_s:
            course.ask_s = now_s + SPLIT_ASK_S
            effects += _offers(course.epoch)
        if course.epoch.state is EpochState.AGREED:
            effects += self._load(course, record)
        if course.epoch.state is EpochState.LOADING and record.state is EngineState.READY:
            course.epoch = course.epoch.after(EpochStep.READY)
            self._losses.pop(model, None)
        if course.epoch.state not in IN_USE:
            effects += self._end(course, record, now_s)
        return effects

    def _checked(self, course: _Course, record: Record, now_s: float) -> SplitEpoch:
        """Return an epoch after a look at its members, its engine and whoever wanted it."""
        epoch = course.epoch
        for share in epoch.plan.shares[:-1]:
            if self.around.said(share.node) is None:
                return epoch.lost(share.node, "it is gone")
        if epoch.state is EpochState.DRAINING:
            return epoch if record.has_process else epoch.after(EpochStep.DRAINED)
        if epoch.state not in _BEFORE_ENGINE:
            why = record.failure.message if record.failure is not None else "its engine ended"
            return epoch if record.has_process else epoch.after(EpochStep.BROKEN, why)
        if not record.wanted:
            return epoch.after(EpochStep.BROKEN, "nobody wants it any more")
        if epoch.state is EpochState.OFFERED and now_s >= course.until_s:
            silent = next(share for share in epoch.plan.shares if share.node not in epoch.agreed)
            return epoch.lost(silent.node, f"it did not answer within {SPLIT_AGREE_S:g} s")
        return epoch

    def _outranked(self, course: _Course) -> str:
        """Return who goes on instead of this node; empty where it goes on itself."""
        plan, mine = course.epoch.plan, self._stock.said(self._me)
        if mine is None or course.epoch.state is EpochState.DRAINING:
            return ""
        claims = [SplitClaim(plan.epoch, mine)]
        for said, served in self._others(plan.model):
            if served.shared is not None:
                claims.append(SplitClaim(served.shared.epoch, said))
            elif served.state is ServingState.READY and not course.is_forced:
                return f"{said.name} holds it alone"
        winner = prevailing(claims).host
        return "" if winner.node == self._me else f"{winner.name} has the better claim"

    def _others(self, model: ModelId) -> list[tuple[Announcement, ServedModel]]:
        """Return the other nodes that serve a model, or are about to."""
        entry = self._stock.entries.get(model)
        if entry is None:
            return []
        found = []
        for node, served in sorted(entry.serving.items()):
            said = self._stock.said(node)
            if node != self._me and said is not None and served.state in _COMING:
                found.append((said, served))
        return found

    def _load(self, course: _Course, record: Record) -> Effects:
        """All agreed: start the engine."""
        plan = course.epoch.plan
        peers = [self._peer(share.node, share.name) for share in plan.shares[:-1]]
        if record.spec is None or record.state not in _IDLE:
            return []
        record.waiting, record.starts_at_s = "", None
        record.signal(Signal.RETRY_DUE if record.state is EngineState.BACKING_OFF else Signal.START_ASKED)
        record.plan = self._engine_plan(record, plan)
        course.epoch = course.epoch.after(EpochStep.LOAD_BEGUN)
        return [StartEngine(plan=record.plan, peers=tuple(peers))]

    def _engine_plan(self, record: Record, plan: SplitPlan) -> EnginePlan:
        assert record.spec is not None and self._held.resources is not None  # noqa: S101, PT018 - callers checked
        wishes, home = self._held.wishes_of(record.id), plan.shares[-1]
        on_gpu = bool(self._held.whole().gpu_bytes)
        return EnginePlan(
            model=record.spec, context_tokens=plan.context_tokens, slots=1, split=plan.run,
            gpu_layers=home.layers + 1 if on_gpu else 0, threads=wishes.threads or self._held.resources.cores,
            memory=MemoryNeed(weights_bytes=home.memory_bytes, kv_bytes=0, overhead_bytes=0), options=wishes.options,
            attempt=len(record.failures_s) + 1,
        )  # fmt: skip

    def _end(self, course: _Course, record: Record, now_s: float) -> Effects:
        """Take down what is left of a lost epoch; once its engine is gone, another one may follow."""
        effects: Effects = []
        plan, why = course.epoch.plan, course.epoch.why
        if record.has_process and record.state is not EngineState.STOPPING:
            effects += self._engines.stop(record, force=True)
        if course.epoch.state is EpochState.LOST:
            course.epoch = course.epoch.after(EpochStep.SUCCEEDED)
            effects += self._release(plan)
            level = Level.WARNING if record.wanted else Level.INFO
            effects.append(notice(level, "a split has ended", model=plan.model, epoch=plan.epoch, reason=why))
        if record.has_process:
            return effects
        del self._courses[plan.model]
        record.split = None
        if not record.wanted:
            self._losses.pop(plan.model, None)
            return effects
        losses = self._losses.get(plan.model, 0)
        self._losses[plan.model] = losses + 1
        pause_s = SPLIT_RETRY_S * 2.0 ** (losses - 1) if losses else SPLIT_AGAIN_S  # the first is made good at once
        self._rest_until[plan.model] = now_s + min(pause_s, SPLIT_RETRY_MOST_S)
        record.is_replanned = pause_s <= SPLIT_RETURN_S
        record.waiting = "" if record.is_replanned else f"to be shared again: {why}"
        return effects

    def _release(self, plan: SplitPlan) -> Effects:
        release = SplitRelease(model=plan.model, epoch=plan.epoch)
        return [Send(peer=node, message=release) for node in plan.workers if self.around.rights_of(node) is not None]

    # -- a split that is called for -----------------------------------------------------------------------------------

    def _is_candidate(self, record: Record, wanted: Collection[ModelId], now_s: float) -> bool:
        """Tell whether somebody wants a model that this node has and nobody serves."""
        held, policy = self._held, self._held.policy_of(record.id)
        if record.id in self._courses or record.spec is None or record.state not in _IDLE:
            return False
        if not held.can_plan or held.build is None or held.build.sharing is None:
            return False
        if record.held or record.dropped or policy.load is LoadMode.OFF or not policy.is_enabled:
            return False
        if not record.wanted and record.id not in wanted and record.id not in self.unshared:
            return False
        if record.retry_at_s is not None and record.retry_at_s > now_s:
            return False
        return not self._others(record.id)

    def _consider(self, record: Record, urgency: Urgency | None, now_s: float) -> Effects:
        """Look whether a model is to be shared under this node, and do so once that has been true for a while.

        One that nobody wants any more, or not yet again, is only judged.
        """
        if record.id in self._rest_until:
            return []
        record.is_replanned = False
        is_forced = self._is_forced(record)
        fits = not isinstance(self._held.plan(self._spec(record), self._held.room(), record.shrink), NoRoom)
        plan = None if fits and not is_forced else self._planned(record, now_s, is_forced=is_forced)
        if plan is None:
            self._since.pop(record.id, None)
            self._look_s.setdefault(record.id, now_s + SPLIT_LOOK_S)
            return []
        if urgency is None and not record.wanted:
            return []
        since_s = self._since.setdefault(record.id, now_s)
        is_urgent = urgency is Urgency.WAITING or bool(record.load_waiters) or self._losses.get(record.id, 0) > 0
        if not is_urgent and now_s < since_s + SPLIT_SETTLE_S:
            return []
        del self._since[record.id]
        return self._begin(record, plan, urgency or Urgency.WANTED, now_s, is_forced=is_forced)

    def _planned(self, record: Record, now_s: float, *, is_forced: bool) -> SplitPlan | None:
        """Return the plan of a split that this node would host; None where there is none, or another node would."""
        said = self._stock.said(self._me)
        if said is None:
            return None
        mine = replace(said, serving=tuple(one for one in said.serving if one.model != record.id))
        others = self.around.lenders()
        question = SplitQuestion(
            model=split_model(self._spec(record), self._held.wishes_of(record.id).context_tokens),
            lenders=(Lender(mine), *others), conditions=Conditions(me=self._me), is_asked=is_forced,
            only_host=self._me if is_forced else None, epoch=self._known_epoch(record.id, others),
        )  # fmt: skip
        outcome = plan_split(question)
        if isinstance(outcome, SplitPlan):
            return outcome if outcome.host == self._me else None
        if isinstance(outcome, NoSplit):
            self._find_out(outcome, others, now_s)
        if isinstance(outcome, NoSplit) and record.wanted and is_forced:
            record.waiting = f"to be shared: {outcome.message}"
        if isinstance(outcome, NoSplit) and not outcome.may_pass:
            self._judged[record.id] = f"no split: {outcome.words}"
        return None

    def _find_out(self, outcome: NoSplit, others: Iterable[Lender], now_s: float) -> None:
        """Have those dialled whose distance is all that is not known of them: of a large mesh, few are connected."""
        free = {one.node: one.free_bytes for one in others}
        unknown = [one.node for one in outcome.nodes if one.lack is SplitLack.NO_ROUND_TRIP]
        self._reach(sorted(unknown, key=lambda node: (-free[node], node))[:SPLIT_WORKERS], now_s)

    def _reach(self, nodes: Iterable[NodeId], now_s: float) -> None:
        """Stay connected to nodes for a while."""
        for node in nodes:
            if now_s >= self._reached.get(node, 0.0):
                self._reached[node] = now_s + SPLIT_REACH_S / 2
                self.around.reach(node, SPLIT_REACH_S)

    def _known_epoch(self, model: ModelId, others: Iterable[Lender]) -> int:
        heard = [lent.epoch for one in others for lent in one.said.lends if lent.model == model]
        heard += [
            served.shared.epoch
            for one in others for served in one.said.serving if served.model == model and served.shared is not None
        ]  # fmt: skip
        return max([self._highest.get(model, 0), *(epoch for epoch in heard if epoch <= _BELIEVED)])

    def _begin(
        self, record: Record, plan: SplitPlan, urgency: Urgency, now_s: float, *, is_forced: bool
    ) -> Effects:  # fmt: skip
        self._highest[plan.model] = plan.epoch
        if not record.wanted:
            is_asked = urgency is Urgency.WAITING
            self._held.want(record, Reason.REQUESTED_BY_REQUEST if is_asked else Reason.UNSERVED_ON_DISK)
            record.why = plan.why
        record.split, record.waiting = plan, ""
        course = _Course(SplitEpoch(plan=plan), now_s + SPLIT_AGREE_S, now_s + SPLIT_ASK_S, is_forced)
        self._courses[plan.model] = course
        names = ", ".join(f"{share.name} {share.layers}" for share in plan.shares)
        line = notice(Level.INFO, "sharing a model", model=plan.model, epoch=plan.epoch, layers=names)
        return [line, *_offers(course.epoch)]

    def _is_forced(self, record: Record) -> bool:
        return record.reason is Reason.EXPLICIT and record.wanted and self._held.is_split_forced(record.id)

    @staticmethod
    def _spec(record: Record) -> ModelSpec:
        assert record.spec is not None  # noqa: S101 - candidates have one
        return record.spec

    def _peer(self, node: NodeId, name: str) -> SplitPeer:
        said = self.around.said(node)
        return SplitPeer(node=node, name=name, addresses=() if said is None else said.bulk_addresses)


def _offers(epoch: SplitEpoch) -> Effects:
    """Return what the workers of an epoch are asked that have not agreed to it. Asked twice, they answer twice."""
    plan = epoch.plan
    return [
        Send(peer=share.node, message=SplitOffer(
            model=plan.model, digest=plan.digest, epoch=plan.epoch, first_layer=share.first_layer, layers=share.layers,
            memory_bytes=share.memory_bytes,
        ))
        for share in plan.shares[:-1] if share.node not in epoch.agreed
    ]  # fmt: skip
