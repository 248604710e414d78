"""This node's part in who serves what: when it reaches for a model, and when it leaves it to others.

Owns the moments: since when a model has lacked hosts, what requests wait for, what was tried in vain.
Decides when this node acts on what `assignment` says; who lets go is `upkeep`'s. Doesn't know engines or
downloads: a model that it wants is started by `lifecycle` like any other.

A model that lacks hosts is claimed by the best node after a moment, by the second best if the first has
not acted, and so on: nobody has to know why another node does not want or cannot. Where requests wait, the
best acts at once; a node that is alone never waits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType

from meshllm.core.announcement import Announcement
from meshllm.core.effects import Level
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import (
    ASSIGN_INTERVAL_S,
    DECLINE_S,
    DEMAND_LOOK_S,
    FULL_MESH_MEMBERS,
    GAP_SETTLE_S,
    LOAD_WAIT_S,
    NUMBERS_INTERVAL_S,
    RANK_STEP_S,
    REPLICA_QUIET_S,
    SECOND_HELPING_S,
    URGENT_STEP_S,
    WAITING_MODELS,
)
from meshllm.core.policy import LoadMode
from meshllm.core.serving.assignment import Need, Step, Urgency, assign, lack_of
from meshllm.core.serving.capacity import NoRoom, Room
from meshllm.core.serving.claims import claim_wait_s
from meshllm.core.serving.cold import ColdModels
from meshllm.core.serving.demand import Demand
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.records import Record
from meshllm.core.serving.replies import Effects, notice
from meshllm.core.serving.sites import Site, estimated, less, may_fetch, need_bytes, site_of
from meshllm.core.serving.splits.lenders import unshareable
from meshllm.core.serving.stock import Change, Newest, Stock
from meshllm.core.serving.upkeep import Upkeep
from meshllm.core.standing import LIVE, MemberState
from meshllm.core.view import Assignment, Reason

_REPLICAS = frozenset({Reason.LEAST_SERVED, Reason.LEAST_SERVED_ON_DISK})
_NEWS_PAUSE_S = ASSIGN_INTERVAL_S / 10
"""Between two looks in a small mesh when models changed; longer in a large one, up to the whole interval."""


_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRules:
    """What the configuration says about models that nobody asked this node for."""

    fills_gaps: bool = False
    serves_all: bool = False
    has_names: bool = False
    """It was told what to serve."""
    min_unasked_bytes: int = 0


class GapFilling:
    """What this node gives itself."""

    def __init__(self, me: NodeId, held: Holdings, stock: Stock, upkeep: Upkeep, rules: GapRules) -> None:
        """Act on these; `rules` come from the configuration."""
        self._me = me
        self._held = held
        self._rules = rules
        self.stock = stock
        self.upkeep = upkeep
        self.newest: Newest = held.book.newest
        """The newest order about a model that counts."""
        self.own_demand = Demand()
        self.demand: Mapping[ModelId, float] = MappingProxyType({})
        """Requests a minute in the whole mesh."""
        self.cold = ColdModels(stock)
        self.waiting: dict[ModelId, float] = {}
        """Models that requests wait for here, and until when at most."""
        self.needs: Sequence[Need] = ()
        """What every model has and lacked when this node looked last."""
        self.is_equipped = False
        """Machine, engine and files of this node are known, and it is not leaving."""
        self.joining = False
        """This node has not heard yet who serves what."""
        self._hot: frozenset[ModelId] = frozenset()
        self._since: dict[tuple[ModelId, Urgency], float] = {}
        """Since when models have lacked hosts."""
        self._choice: tuple[ModelId, float] | None = None
        """The replica that this node would take, and since when."""
        self._declined: dict[ModelId, float] = {}
        """What was tried in vain, and until when it is left to others."""
        self._others: dict[NodeId, Site] = {}
        self._unread: set[NodeId] = set()
        """Other nodes that said something of their machines or models, or went, since they were looked at as sites."""
        self._news = Change.MODELS
        self._looked_s = float("-inf")
        self._look_s = inf
        """When to look again, by what is known so far."""

    # -- what happens ------------------------------------------------------------------------------------

    def hear(self, node: NodeId, state: MemberState | None, said: Announcement | None, now_s: float) -> None:
        """Take what is known of another member; None: nothing any more."""
        if state in LIVE and said is not None:
            change = self.stock.put(said)
        elif state is MemberState.DEAD:
            change = self.stock.bury(node, now_s)
        else:
            change = self.stock.remove(node)
        if change is Change.NOTHING:
            return
        if change is not Change.DEMAND:
            self._unread.add(node)
        self._news = max(self._news, change)
        pause_s = ASSIGN_INTERVAL_S if self.waiting else NUMBERS_INTERVAL_S
        if change is Change.MODELS:
            self.cold.renew(self.newest)
            pause_s = min(_NEWS_PAUSE_S * max(1.0, len(self.stock) / FULL_MESH_MEMBERS), ASSIGN_INTERVAL_S)
        self._look_at(max(now_s, self._looked_s + pause_s))

    def want(self, model: ModelId, now_s: float) -> None:
        """A request waits for a model that nobody serves."""
        if model not in self.stock.entries and model not in self._held.records:
            return
        if model not in self.waiting:
            if len(self.waiting) >= WAITING_MODELS:
                return
            self.own_demand.note(model, 1, now_s)
        self.waiting[model] = now_s + LOAD_WAIT_S

    def settled(self, said: Announcement) -> None:
        """Take what this node says of itself in the end; it decides nothing by it."""
        self._news = max(self._news, self.stock.put(said))
        self.cold.renew(self.newest)

    def look_again(self) -> None:
        """Something of this node's own changed that its announcement may not show."""
        self._news = Change.MODELS

    def joined(self, now_s: float) -> None:
        """Who serves what is known, or nobody is there to tell."""
        self.joining = False
        self._news = Change.MODELS
        self._look_at(now_s)

    def split_judged(self, now_s: float) -> None:
        """This node knows better than before whether models can be shared with it as the host."""
        self._news = Change.MODELS
        self._look_at(now_s)

    def _look_at(self, at_s: float) -> None:
        """Look again at a time, or sooner."""
        self._look_s = min(self._look_s, at_s)

    def is_due(self, now_s: float) -> bool:
        """Tell whether this node wants to look at this moment, on account of what members say."""
        return self._look_s <= now_s

    def next_s(self, now_s: float) -> float | None:
        """Return when this node wants to look again."""
        due = [*self.waiting.values(), *self._declined.values()]
        if self._look_s < inf:
            due.append(self._look_s)
        due += [at_s for at_s in (self.upkeep.next_rest_s(now_s), self.stock.next_s()) if at_s is not None]
        return min(due, default=None)

    @property
    def assignment(self) -> Assignment | None:
        """Return what this node has claimed and does not serve yet."""
        for model in self._held.order:
            record = self._held.records.get(model)
            if record is not None and record.is_assigned and record.wanted and record.state is not EngineState.READY:
                reason = record.reason or Reason.UNSERVED_ON_DISK
                return Assignment(node=self._me, model=model, reason=reason, message=record.why)
        return None

    # -- decisions ----------------------------------------------------------------------------------------

    def decide(self, me: Announcement, now_s: float) -> Effects:
        """Let go of what has to go, and reach for what should be served. `me` is what this node would say now."""
        self._news = max(self._news, self.stock.put(me))
        is_due = any(at_s <= now_s for at_s in (self._look_s, *self.waiting.values(), *self._declined.values()))
        self._expire(now_s)
        self._forget_failed(now_s)
        effects = self.upkeep.yield_claims() + self.upkeep.rest(now_s)
        if effects or is_due:
            self._news = Change.MODELS
        if self._news is Change.NOTHING:
            return effects
        self._news, self._looked_s, self._look_s = Change.NOTHING, now_s, inf
        self._measure(now_s)
        own = self._own_site(me)
        sites = self._sites(own)
        needs = self.needs = self._needs(now_s)
        effects += self._act(own, sites, needs, now_s)
        self._explain(sites, needs)
        return effects

    def _measure(self, now_s: float) -> None:
        """Look at demand and loads."""
        self.demand = self.stock.demand()
        self._hot = self.upkeep.feel(self.demand, now_s)
        if (due_s := self.upkeep.heat.next_s(now_s)) is not None:
            self._look_at(due_s)
        if self.own_demand.told(now_s):
            self._look_at(now_s + DEMAND_LOOK_S)

    def _expire(self, now_s: float) -> None:
        self.stock.expire(now_s)
        for model, until_s in list(self._declined.items()):
            if until_s <= now_s:
                del self._declined[model]
        for model, until_s in list(self.waiting.items()):
            entry = self.stock.entries.get(model)
            if until_s <= now_s or (entry is not None and entry.ready):
                del self.waiting[model]

    def _forget_failed(self, now_s: float) -> None:
        """Leave to others what could not be fetched here: a request for it is theirs as well."""
        for record in list(self._held.records.values()):
            is_vain = record.spec is None and record.state is EngineState.FAILED and not record.wanted
            if is_vain and record.is_assigned:
                self._declined[record.id] = now_s + DECLINE_S
                self._held.order.remove(record.id)
                del self._held.records[record.id]
                self._held.rename()
                self._news = Change.MODELS

    def _needs(self, now_s: float) -> list[Need]:
        """Return what every model has and lacks, with how many nodes have let their time pass."""
        needs = self.stock.needs(self.newest, self.demand, self._hot, least_bytes=self._rules.min_unasked_bytes)
        lacking = {(need.model, need.urgency) for need in needs if need.missing}
        for key in self._since.keys() - lacking:
            del self._since[key]
        for key in lacking:
            self._since.setdefault(key, now_s)
        return [self._waited(need, now_s) if need.missing else need for need in needs]

    def _waited(self, need: Need, now_s: float) -> Need:
        overdue = self._overdue(need, now_s)
        return replace(need, overdue=overdue) if overdue != need.overdue else need

    def _overdue(self, need: Need, now_s: float) -> int:
        first_s, step_s = _patience(need.urgency)
        waited_s = now_s - self._since[need.model, need.urgency] - first_s
        return max(int(waited_s / step_s + _ROUNDING), 0)

    def _act(self, own: Site | None, sites: list[Site], needs: list[Need], now_s: float) -> Effects:
        if own is None or not self.is_equipped or (self.joining and self._rules.fills_gaps):
            return []
        steps = (*assign(sites, needs, self._me), *self._alone(own))
        self._choose(steps, now_s)
        effects: Effects = []
        helpings = len(own.serves)
        for step in steps:
            due_s = self._due_s(step, now_s)
            if step.urgency is Urgency.LYING and not self._is_alone:
                due_s += helpings * SECOND_HELPING_S  # who joins a moment later may have nothing else to do
                helpings += 1
            if due_s <= now_s + _ROUNDING:
                effects += self._take(step, now_s)
            else:
                self._look_at(due_s)
        return effects

    def _alone(self, own: Site) -> tuple[Step, ...]:
        """Return what a node serves from its disk that looks at no others: all that fits, the largest first."""
        rules = self._rules
        is_idle = not any(record.is_served for record in self._held.records.values())
        if not rules.serves_all and (rules.fills_gaps or rules.has_names or not is_idle):
            return ()
        stock = Stock()
        if (said := self.stock.said(self._me)) is not None:
            stock.put(said)
        needs = stock.needs(self.newest, {}, (), least_bytes=rules.min_unasked_bytes)
        lying = [need for need in needs if need.urgency is Urgency.LYING]
        return assign([replace(own, fills_gaps=True, has_wishes=False)], lying, self._me)

    def _choose(self, steps: tuple[Step, ...], now_s: float) -> None:
        """Remember since when the choice of a replica has been the same."""
        chosen = next((one.assignment.model for one in steps if one.assignment.reason in _REPLICAS), None)
        if chosen is None:
            self._choice = None
        elif self._choice is None or self._choice[0] != chosen:
            self._choice = (chosen, now_s)

    def _due_s(self, step: Step, now_s: float) -> float:
        """Return when a step is to be taken, if nothing changes."""
        if self._is_alone or not self._rules.fills_gaps:
            return now_s
        if step.assignment.reason in _REPLICAS:
            return (self._choice[1] if self._choice is not None else now_s) + REPLICA_QUIET_S
        first_s, step_s = _patience(step.urgency)
        return self._since.get((step.assignment.model, step.urgency), now_s) + first_s + step.rank * step_s

    @property
    def _is_alone(self) -> bool:
        return len(self.stock) <= 1 and not self.joining

    def _take(self, step: Step, now_s: float) -> Effects:
        """Claim a model; it is started when the claim has been heard, or at once where requests wait."""
        model, reason = step.assignment.model, step.assignment.reason
        record = self._held.records.get(model)
        if record is None or (record.spec is None and step.reference is not None):
            if step.reference is None:
                return []
            record = self._held.record_of(step.reference)
            self._held.rename()
        self._held.want(record, reason)
        record.why = step.assignment.message
        order = self.newest(model)
        record.order = order.version if order is not None else 0
        if self._rules.fills_gaps and not self._is_alone and step.urgency is not Urgency.WAITING:
            record.starts_at_s = now_s + claim_wait_s(len(self.stock))
        return [notice(Level.INFO, "taking a model", model=model, reason=str(reason), why=record.why)]

    def gave_up(self, record: Record, now_s: float) -> None:
        """Leave a model to others for a while that did not fit or load here."""
        if record.is_assigned and not record.wanted and not record.rests:
            self._declined[record.id] = now_s + DECLINE_S
            record.is_assigned = False
            self._news = Change.MODELS

    # -- what this node and others could -----------------------------------------------------------------------

    def _sites(self, own: Site | None) -> list[Site]:
        """Return all nodes that may host; another one is looked at anew only when it has said something."""
        for node in sorted(self._unread - {self._me}):
            said = self.stock.said(node)
            site = site_of(said) if said is not None else None
            if site is None:
                self._others.pop(node, None)
            else:
                self._others[node] = site
        self._unread.clear()
        others = list(self._others.values())
        return others if own is None else [*others, own]

    def _own_site(self, me: Announcement) -> Site | None:
        """Return this node with its exact numbers in place of those that it announces."""
        base, held = site_of(me), self._held
        if base is None or not held.can_plan:
            return None
        records = held.records.values()
        claimed = sum(need_bytes(_size(one)) for one in records if one.wanted and one.plan is None and not one.waiting)
        is_full = any(one.wanted and one.waiting and not one.is_lazy and self._is_no_room_known(one) for one in records)
        plans = {one.id: one.plan for one in records if one.plan is not None}
        return replace(
            base, room=less(self._free_room(), claimed), whole=held.whole(), waiting=frozenset(self.waiting),
            fit=self._fit, fills_gaps=base.fills_gaps and not is_full, refuses=self._refused(),
            reluctant=self._reluctant(),
            evictable={one.model: plans[one.model].memory.total_bytes for one in self.upkeep.occupants()},
            removable_bytes=sum(plan.memory.total_bytes for model, plan in plans.items() if self._is_removable(model)),
        )  # fmt: skip

    def _free_room(self) -> Room:
        """Return what this node may give away: what it was told to serve, and waits, has its place once others go.

        What will not fit whoever goes keeps no room: that would stay empty for good.
        """
        held = self._held
        records = [held.records[model] for model in held.order if model in held.records]
        waiting = [one for one in records if one.wanted and one.waiting and not one.is_lazy and one.spec is not None]
        room = held.room()
        if not waiting:
            return room
        kept = held.room_without([one.id for one in held.records.values() if one.plan is not None])
        for record in waiting:
            kept = self._fit(record.id, _size(record), kept) or kept
        return Room(gpu_bytes=min(room.gpu_bytes, kept.gpu_bytes), host_bytes=min(room.host_bytes, kept.host_bytes))

    def _is_no_room_known(self, record: Record) -> bool:
        """Tell whether nobody can say yet how much room a model takes here: alone, or as its part of a split."""
        return (
            record.spec is None or unshareable(self.stock.everybody(), {self._me}, (record.id, _size(record))) is None
        )

    def _is_removable(self, model: ModelId) -> bool:
        return self._held.records[model].is_assigned and not self._held.is_pinned(model)

    def _fit(self, model: ModelId, size_bytes: int, room: Room) -> Room | None:
        record = self._held.records.get(model)
        if record is None or record.spec is None:
            return estimated(model, size_bytes, room)
        plan = self._held.plan(record.spec, room, record.shrink)
        if isinstance(plan, NoRoom):
            return None
        taken = plan.memory.total_bytes
        return less(room, taken) if plan.gpu_layers else less(Room(gpu_bytes=0, host_bytes=room.host_bytes), taken)

    def _refused(self) -> frozenset[ModelId]:
        """Return the models that this node does not take, whoever wants them, or has taken."""
        refused = set(self._declined)
        for record in self._held.records.values():
            policy = self._held.policy_of(record.id)
            is_off = policy.load is LoadMode.OFF or not policy.is_enabled
            is_taken = record.wanted or record.has_process
            if is_off or is_taken or record.held or record.dropped or record.state is EngineState.FAILED:
                refused.add(record.id)
        return frozenset(refused)

    def _reluctant(self) -> frozenset[ModelId]:
        """Return the models that this node takes only for a request."""
        return frozenset(one.id for one in self._held.records.values() if one.withdrawn or one.rests)

    def _explain(self, sites: list[Site], needs: list[Need]) -> None:
        """Say of every cold model why nobody can load it; no request waits for one that nobody can."""
        able = {site.node: site for site in sites if site.fills_gaps or site.node == self._me}
        records = self._held.records.values()
        here = {one.id for one in records if one.has_process or (one.wanted and not one.waiting)}
        cold = [need for need in needs if need.model not in here and (not need.hosts or need.model in self.waiting)]
        lacks = {need.model: lack for need in cold if (lack := self._lack(need, able))}
        self.cold.explain(lacks, self.newest)
        for need in cold:
            record = self._held.records.get(need.model)
            if record is not None and not record.wanted and need.model not in lacks:
                record.waiting = ""  # of those that nobody wants here
        for model in lacks.keys() & self.waiting.keys():
            del self.waiting[model]
            self._tell_lack(model)

    def _lack(self, need: Need, able: Mapping[NodeId, Site]) -> str:
        """Return why no node can load a model, nor several together; empty where they might."""
        lack = "" if self._is_too_early(need) else lack_of(need, able)
        if not lack:
            return ""
        why = unshareable(self.stock.everybody(), need.holders, (need.model, need.size_bytes))
        return "" if why is None else f"{lack}; {why}" if why else lack

    def _is_too_early(self, need: Need) -> bool:
        """Tell whether somebody who could load a model may not know it yet, or this node not know of them."""
        starting = self.stock.starting
        if self.joining or not starting.isdisjoint(need.holders):
            return True
        said = [self.stock.said(node) for node in starting] if need.reference is not None else []
        return any(one is not None and may_fetch(one) for one in said)

    def _tell_lack(self, model: ModelId) -> None:
        """Say of a model on this disk what it lacks."""
        record = self._held.records.get(model)
        if record is None or record.spec is None or record.wanted or not self._held.can_plan:
            return
        lack = self._held.plan(record.spec, self._held.room())
        if isinstance(lack, NoRoom):
            record.waiting = lack.message


def _patience(urgency: Urgency) -> tuple[float, float]:
    """Return how long the best node waits before it reaches for a model, and each further one."""
    return (0.0, URGENT_STEP_S) if urgency is Urgency.WAITING else (GAP_SETTLE_S, RANK_STEP_S)


def _size(record: Record) -> int:
    if record.spec is not None:
        return record.spec.size_bytes
    return record.reference.size_bytes if record.reference is not None else 0
