"""When this node takes a model out of its memory by itself: for others, for rest, for an order, for room.

Owns the reasons for letting go, each said in the log. Decides about this node's own models only. Doesn't
know what it should take instead: `gap_filling` does.
"""

from collections.abc import Mapping

from meshllm.core.caches.victims import WHY, Occupant
from meshllm.core.effects import Level
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.resources import format_bytes
from meshllm.core.serving.capacity import NoRoom
from meshllm.core.serving.claims import Claim, must_yield
from meshllm.core.serving.engine_life import EngineLife
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.rebalance import Heat, may_go, victims
from meshllm.core.serving.records import Record
from meshllm.core.serving.replies import Effects, notice
from meshllm.core.serving.stock import Stock
from meshllm.core.serving.stock_entry import Entry
from meshllm.core.serving.telling import told_state
from meshllm.core.view import Reason

_REPLICAS = frozenset({Reason.LEAST_SERVED, Reason.LEAST_SERVED_ON_DISK})
_GOING = frozenset({EngineState.DRAINING, EngineState.STOPPING})


class Upkeep:
    """Lets go of models."""

    def __init__(self, me: NodeId, held: Holdings, engines: EngineLife, stock: Stock, *, fills_gaps: bool) -> None:
        """Act on these. A node that fills no gaps serves what is on its disk, whoever else does."""
        self._fills_gaps = fills_gaps
        self._me = me
        self._held = held
        self._engines = engines
        self._stock = stock
        self.heat = Heat()

    # -- rivals, rest ------------------------------------------------------------------------------------

    def yield_claims(self) -> Effects:
        """Give up what a better claim has taken, while it is not ready."""
        effects: Effects = []
        for record in self._held.records.values():
            entry, state = self._stock.entries.get(record.id), told_state(record)
            if not record.is_assigned or entry is None or state is None or record.reason in _REPLICAS:
                continue
            if not self._fills_gaps and record.reason is not Reason.REQUESTED_BY_REQUEST:
                continue
            mine = Claim(node=self._me, state=state, is_assigned=True)
            winner = must_yield(mine, self._rivals(entry), record.id, self._places(record, entry))
            if winner is not None:
                effects += self._let_go(record, f"the node {winner.node[:8]} has the better claim")
        return effects

    def _rivals(self, entry: Entry) -> list[Claim]:
        return [
            Claim(node=node, state=one.state, is_assigned=one.is_assigned)
            for node, one in sorted(entry.serving.items())
            if node != self._me
        ]

    @staticmethod
    def _places(record: Record, entry: Entry) -> int:
        """Return how many hosts the reason for a claim calls for."""
        if record.reason is Reason.REQUESTED_BY_REQUEST:
            return 1
        if record.reason is Reason.HOT:
            return len(entry.ready) + 1
        return max(entry.floor, 1)

    def rest(self, now_s: float) -> Effects:
        """Unload what nobody has used for as long as its configuration says, and added hosts that are not needed."""
        effects: Effects = []
        cool = self.heat.cool(now_s)
        for record in self._held.records.values():
            entry, policy = self._stock.entries.get(record.id), self._held.policy_of(record.id)
            if not _is_idle(record) or entry is None or self._held.is_pinned(record.id):
                continue
            if policy.idle_unload_s is not None and now_s >= _used_s(record) + policy.idle_unload_s:
                if may_go(self._me, entry.ready, record.id, entry.floor):
                    effects += self._let_go(record, f"nobody has used it for {policy.idle_unload_s:g} s")
                    record.rests = True
            elif record.reason is Reason.HOT and record.id in cool and self._is_spare(record.id, entry):
                effects += self._let_go(record, "its other hosts are enough again")
        return effects

    def _is_spare(self, model: ModelId, entry: Entry) -> bool:
        return may_go(self._me, entry.ready, model, max(entry.floor, 1))

    def next_rest_s(self, now_s: float) -> float | None:
        """Return when the next model will have been idle for long enough."""
        due: list[float] = []
        for record in self._held.records.values():
            idle_s = self._held.policy_of(record.id).idle_unload_s
            if idle_s is not None and _is_idle(record):
                due.append(_used_s(record) + idle_s)
        return min((at_s for at_s in due if at_s > now_s), default=None)

    def feel(self, demand: Mapping[ModelId, float], now_s: float) -> frozenset[ModelId]:
        """Take the loads of all served models; return those that are hot."""
        loads = {
            model: load
            for model, entry in self._stock.entries.items()
            if (load := entry.asked(demand.get(model, 0.0))) is not None
        }
        spare = {one.id: one.slots for one in self._held.records.values() if one.reason is Reason.HOT and _is_idle(one)}
        self.heat.look(loads, spare, now_s)
        return self.heat.hot(now_s)

    def _let_go(self, record: Record, why: str) -> Effects:
        fields = {"model": record.id, "reason": why}
        return [notice(Level.INFO, "letting go of a model", **fields), *self._engines.withdraw(record)]

    # -- room ------------------------------------------------------------------------------------------------

    def clear(self, record: Record, *, is_asked: bool) -> Effects | None:
        """Make room for a wanted model that does not fit: at once, or when what rests has gone.

        None: there is nothing to wait for, and it starts or is refused. Only what a request or an order needs,
        or what nobody in the mesh serves, makes others go; what was asked for at the start waits its turn.
        `is_asked`: requests wait for it.
        """
        if record.spec is None or record.has_process or not self._held.can_plan:
            return None
        if not is_asked and not _may_displace(record):
            return None
        lack = self._held.plan(record.spec, self._held.room(), record.shrink)
        if not isinstance(lack, NoRoom):
            return None
        going = frozenset(one.id for one in self._held.records.values() if one.state in _GOING)
        if not self._held.is_stale and not going and not self.occupants(record):
            return None
        caches = self._held.caches
        policy = caches.config.global_eviction_policy
        chosen = victims(
            self.occupants(record), lambda gone: self._fits(record, gone | going), policy, caches.last_victim
        )
        if chosen is None:
            return None
        caches.going |= set(chosen)
        caches.last_victim = chosen[-1] if chosen else caches.last_victim
        effects: Effects = []
        for model in chosen:
            needed = f"{record.id} needs {format_bytes(lack.needed_bytes)}, {format_bytes(lack.free_bytes)} are free"
            effects += self._let_go(self._held.records[model], f"{WHY[policy]}, and {needed}")
        return effects

    def occupants(self, for_record: Record | None = None) -> list[Occupant]:
        """Return the models in memory that could go: assigned, resting, not pinned, nor kept warm."""
        is_modest = for_record is not None and for_record.reason in (Reason.UNSERVED_ON_DISK, Reason.UNSERVED_DOWNLOAD)
        found = []
        for record in self._held.records.values():
            entry = self._stock.entries.get(record.id)
            if not _is_idle(record) or not record.is_assigned or self._held.is_pinned(record.id):
                continue
            floor = 0 if entry is None else entry.min_warm
            if entry is not None and is_modest:
                floor = max(entry.floor, 1)  # it would only dig another hole
            others = len(entry.ready) - 1 if entry is not None else 0
            if others >= floor and record is not for_record:
                spec = record.served_spec
                found.append(
                    Occupant(
                        model=record.id, last_used_s=_used_s(record), requests=record.requests,
                        size_bytes=spec.size_bytes if spec is not None else 0,
                    )
                )  # fmt: skip
        return found

    def _fits(self, record: Record, gone: frozenset[ModelId]) -> bool:
        assert record.spec is not None  # noqa: S101 - clear() has looked
        return not isinstance(self._held.plan(record.spec, self._held.room_without(gone), record.shrink), NoRoom)


def _may_displace(record: Record) -> bool:
    """Tell whether a model may make others go."""
    return record.is_lazy and record.reason not in _REPLICAS | {Reason.HOT, Reason.WARM}


def _is_idle(record: Record) -> bool:
    return record.state is EngineState.READY and record.wanted and not record.in_flight


def _used_s(record: Record) -> float:
    return max(record.last_used_s or 0.0, record.ready_since_s or 0.0)
