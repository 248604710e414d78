"""What the shares of the prompt cache do to engines: with how much each starts, and which one starts anew.

Owns the conditions under which an engine that runs is started anew with another share: its size is told to an engine
once, and emptying one that runs is nothing that llama.cpp offers. Decides who goes first by the policy. Doesn't divide;
`cache_book` does.

An engine is only ever started anew while nobody uses it, one at a time: for others, where it has more than its share
and somebody lacks that; for itself, where its cache is full and there is room for a larger one.
"""

from meshllm.core import events as ev
from meshllm.core.cache_limits import CACHE_FULL_SHARE, CACHE_HYSTERESIS, CACHE_PAUSE_S, CACHE_REST_S
from meshllm.core.caches.book import CacheBook, Standing
from meshllm.core.caches.victims import WHY, Occupant, in_order
from meshllm.core.effects import KeepSlots, Level
from meshllm.core.engines import EnginePlan, EngineState
from meshllm.core.ids import NO_MODEL, ModelId
from meshllm.core.limits import MIB
from meshllm.core.serving.demand import Demand
from meshllm.core.serving.engine_life import EngineLife
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.records import Record
from meshllm.core.serving.replies import Effects, notice

_GENERATES = frozenset({"chat", "completion"})


class CacheKeeping:
    """Keeps engines to their shares."""

    def __init__(self, held: Holdings, engines: EngineLife) -> None:
        """Act on these; the book is the holdings'."""
        self._held = held
        self._engines = engines
        self._demand = Demand()
        self._anew = NO_MODEL
        """The model whose engine is being started anew."""
        self._grown_s = float("-inf")
        self._due_s: float | None = None
        self._disk_bytes = 0
        """What was last said of the disk."""

    @property
    def book(self) -> CacheBook:
        """Return what is chosen, divided and counted."""
        return self._held.caches

    def on_traffic(self, event: ev.TrafficMeasured, now_s: float) -> None:
        """Count what this node's engines are asked for, by whomever."""
        for model, count in event.finished:
            self._demand.note(model, count, now_s)

    def on_measured(self, event: ev.CacheMeasured) -> Effects:
        """Take what was read at an engine that runs."""
        if self._held.having(event.model) is not None:
            self.book.read(event.model, event.reading)
        return []

    def on_exited(self, model: ModelId, now_s: float) -> None:
        """An engine is gone, and its cache with it."""
        self.book.emptied(model, now_s)

    def next_s(self) -> float | None:
        """Return when to look again."""
        return min((at_s for at_s in (self._due_s, self.book.next_s()) if at_s is not None), default=None)

    def settle(self, now_s: float) -> Effects:
        """Divide, and start anew what has to be."""
        taking_part = [one for one in self._held.records.values() if _takes_part(one)]
        self.book.divide((self._standing(one, now_s) for one in taking_part), self._resolve, now_s)
        self._due_s = None
        told = self._tell_disk()
        if not self.book.config.is_dividing or self._is_busy():
            return told
        running = [one for one in taking_part if one.plan is not None]
        return told + (self._shrink(running, now_s) or self._grow(running, now_s))

    def _tell_disk(self) -> Effects:
        """Say how much of the disk conversations may take, where that is news: nothing is the rule."""
        most_bytes = self.book.config.disk_bytes
        if most_bytes == self._disk_bytes:
            return []
        self._disk_bytes = most_bytes
        return [KeepSlots(most_bytes=most_bytes)]

    def _standing(self, record: Record, now_s: float) -> Standing:
        return Standing(
            model=record.id, requests=record.requests, last_used_s=record.last_used_s,
            per_minute=self._demand.per_minute(record.id, now_s),
        )  # fmt: skip

    def _resolve(self, name: str) -> ModelId | None:
        found = self._held.names.resolve(name)
        return found if isinstance(found, str) else None

    def _is_busy(self) -> bool:
        """Tell whether an engine is on its way back already."""
        record = self._held.records.get(self._anew)
        if record is not None and record.wanted and record.state is not EngineState.READY:
            return True
        self._anew = NO_MODEL
        return False

    # -- for others ------------------------------------------------------------------------------------

    def _shrink(self, running: list[Record], now_s: float) -> Effects:
        """Start one anew that has more than its share, where the whole is exceeded or somebody lacks a share."""
        excess = sum(_limit(one) for one in running) - self.book.config.whole_bytes
        if excess + sum(self._lacks(one) for one in running) <= 0:
            return []
        margin = 1.0 if excess > 0 else 1 + CACHE_HYSTERESIS
        over = [one for one in running if _limit(one) > self._share(one) * margin]
        policy = self.book.config.global_eviction_policy
        for occupant in in_order([_occupant(one) for one in over], policy, self.book.last_victim):
            record = self._held.records[occupant.model]
            if not self._rests(record, now_s):
                continue
            self.book.last_victim = record.id
            self.book.going.add(record.id)
            why = f"{WHY[policy]}, and has {_limit(record) // MIB} MB of {self._share(record) // MIB}"
            return self._start_anew(record, why)
        return []

    def _lacks(self, record: Record) -> int:
        """Return how many bytes of its share a model needs and has not: its cache is full, or next to none."""
        share, limit = self._share(record), _limit(record)
        is_short = limit < share * (1 - CACHE_HYSTERESIS)
        return share - limit if is_short and self._is_full(record) else 0

    # -- for itself ------------------------------------------------------------------------------------

    def _grow(self, running: list[Record], now_s: float) -> Effects:
        """Start one anew whose cache is full, where that gives it a larger one."""
        for record in running:
            limit = _limit(record)
            if record.spec is None or not self._lacks(record):
                continue
            plan = self._held.plan(record.spec, self._held.room_without((record.id,)), record.shrink)
            if not isinstance(plan, EnginePlan) or plan.memory.prompt_cache_bytes <= limit * (1 + CACHE_HYSTERESIS):
                continue
            if now_s < self._grown_s + CACHE_PAUSE_S:
                self._note_due(self._grown_s + CACHE_PAUSE_S)
                return []
            if self._rests(record, now_s):
                self._grown_s = now_s
                return self._start_anew(record, f"its cache of {limit // MIB} MB is full, and may be larger")
        return []

    def _is_full(self, record: Record) -> bool:
        use = self.book.uses.get(record.id)
        return (use.size_bytes if use is not None else 0) >= CACHE_FULL_SHARE * _limit(record)

    def _rests(self, record: Record, now_s: float) -> bool:
        """Tell whether an engine can go now without anybody noticing; if only later, note when."""
        is_idle = record.state is EngineState.READY and record.wanted and not record.in_flight
        if not is_idle or self._held.policy_of(record.id).is_pinned or record.spec is None:
            return False
        rested_s = max(record.last_used_s or 0.0, record.ready_since_s or 0.0) + CACHE_REST_S
        if now_s < rested_s:
            self._note_due(rested_s)
        return now_s >= rested_s

    def _note_due(self, at_s: float) -> None:
        self._due_s = at_s if self._due_s is None else min(self._due_s, at_s)

    def _start_anew(self, record: Record, why: str) -> Effects:
        """End an engine that stays wanted: it comes back with its share."""
        self._anew = record.id
        line = notice(Level.INFO, "engine starts anew with another cache", model=record.id, reason=why)
        return [line, *self._engines.stop(record, force=False)]

    def _share(self, record: Record) -> int:
        return self.book.shares.get(record.id, 0)


def _takes_part(record: Record) -> bool:
    """Tell whether a model has a prompt cache here: it generates, is or should be in memory, and all of it here."""
    spec = record.served_spec
    if spec is None or record.split is not None or not (record.wanted or record.has_process):
        return False
    return bool(spec.capabilities & _GENERATES)


def _limit(record: Record) -> int:
    """Return the cache that an engine was started with, in bytes."""
    return record.plan.memory.prompt_cache_bytes if record.plan is not None else 0


def _occupant(record: Record) -> Occupant:
    spec = record.served_spec
    return Occupant(
        model=record.id, last_used_s=record.last_used_s or 0.0, requests=record.requests,
        size_bytes=spec.size_bytes if spec is not None else 0,
    )  # fmt: skip
