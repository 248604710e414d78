"""What this node serves: facts and intents go in, orders to engines and downloads come out.

Owns the composition of the parts over one `Holdings`, and leaving. Decides in which order they act.
Doesn't know processes, sockets or files; `mesh.MeshCore` feeds it and turns its records into the view.

Every handler changes records and returns effects; `settle` then starts whatever is wanted and fits, so
no handler has to think about the others.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from meshllm.core import events as ev
from meshllm.core.announcement import Announcement, Role
from meshllm.core.cache_config import CacheConfig
from meshllm.core.caches.book import CacheBook
from meshllm.core.caches.keeping import CacheKeeping
from meshllm.core.effects import KeptOrders, Leave, Level
from meshllm.core.engines import EngineFailure, EngineFault, EngineState
from meshllm.core.ids import NodeId
from meshllm.core.intents import Outcome, OutcomeCode
from meshllm.core.limits import DRAIN_S
from meshllm.core.names import NameIndex
from meshllm.core.policy import LoadMode, ModelPolicy
from meshllm.core.remotes import RemoteBackend
from meshllm.core.serving.adopted import Adopted
from meshllm.core.serving.capacity import EngineWishes
from meshllm.core.serving.engine_life import EngineLife
from meshllm.core.serving.engine_state import Signal
from meshllm.core.serving.fetching import Fetching
from meshllm.core.serving.gap_filling import GapFilling, GapRules
from meshllm.core.serving.health import HealthLedger
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.order_book import NOTHING_KEPT, OrderBook
from meshllm.core.serving.orders import Orders
from meshllm.core.serving.records import Record
from meshllm.core.serving.replies import Effects, answer, answers, notice, taken
from meshllm.core.serving.splits.host import Splits
from meshllm.core.serving.splits.lending import Lending
from meshllm.core.serving.stock import Stock
from meshllm.core.serving.telling import told
from meshllm.core.serving.upkeep import Upkeep
from meshllm.core.view import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPolicy:
    """What the configuration says about serving."""

    requested: tuple[str, ...] = ()
    """Names to serve, in order; empty: whatever is on disk and fits."""
    wishes: EngineWishes = EngineWishes()
    min_unasked_bytes: int = 0
    """Smaller files outside the catalogue are not served unasked."""
    drain_s: float = DRAIN_S
    models: tuple[ModelPolicy, ...] = ()
    default_model: str = ""
    """From the configuration; empty for the first one requested."""
    fills_gaps: bool = False
    """Give this node models that nobody serves, and replicas of those that few serve."""
    downloads: bool = False
    """Fetch files for that."""
    serves_all: bool = False
    """Serve everything on disk unasked, as far as it fits; what was used last stays."""
    is_controllable: bool = True
    """Obey other nodes that have the right to administer."""
    forces_splits: bool = False
    """Share what is requested with other nodes, though it may fit here."""
    caches: CacheConfig | None = None
    """How the prompt cache is shared out, where the configuration says so."""
    remotes: tuple[RemoteBackend, ...] = ()
    """Servers that run elsewhere and whose models this node serves as its own."""


class Lifecycle:
    """The models of this node and what is done about them."""

    def __init__(
        self, policy: ServingPolicy, me: NodeId, book: OrderBook | None = None, kept: KeptOrders = NOTHING_KEPT
    ) -> None:
        """Start with nothing known but what was ordered."""
        self.policy = policy
        self.held = Holdings(policy.wishes, policy.models, book)
        self.held.forces_splits = policy.forces_splits
        self.held.caches = CacheBook(kept.caches, policy.caches)
        stock = Stock()
        self.fetching = Fetching(self.held, policy.requested, _eager(policy.models), me=me, stock=stock)
        self.engines = EngineLife(self.held, policy.drain_s)
        self.upkeep = Upkeep(me, self.held, self.engines, stock, fills_gaps=policy.fills_gaps and not policy.serves_all)
        self.caches = CacheKeeping(self.held, self.engines)
        rules = GapRules(
            fills_gaps=policy.fills_gaps, serves_all=policy.serves_all, has_names=bool(self.fetching.names),
            min_unasked_bytes=policy.min_unasked_bytes,
        )  # fmt: skip
        self.gap_filling = GapFilling(me, self.held, stock, self.upkeep, rules)
        self.splits = Splits(me, self.held, stock, self.engines)
        self.lending = Lending(me, self.held)
        self.orders = Orders(self.held, self.fetching, self.engines, self.leave, kept)
        self.adopted = Adopted(policy.remotes, me)
        self.health = HealthLedger()
        self.leaving: str | None = None
        self._exit_code = 0
        self._own_due_s: float | None = None
        self.has_inventory = False

    def on_resources(self, event: ev.ResourcesMeasured) -> Effects:
        """Take a measurement of the machine."""
        self.held.measured(event.resources)
        for record in self.held.records.values():
            record.is_measured = record.state is EngineState.READY
        self.lending.measured()
        return []

    def on_inventory(self, event: ev.InventoryChanged) -> Effects:
        """Take the complete list of model files."""
        self.has_inventory = True
        found = {spec.id: spec for spec in event.models}
        effects: Effects = []
        for spec in event.models:
            record = self.held.records.setdefault(spec.id, Record(id=spec.id))
            if record.spec is None:
                effects.append(notice(Level.INFO, f"Model discovered: {spec.id}"))
            record.take_file(spec)
        self.orders.remember()
        for record in list(self.held.records.values()):
            if record.spec is not None and record.id not in found:
                effects += self._lose_file(record, record.spec.path)
            elif record.spec is None and not record.is_served and record.reference is None:
                del self.held.records[record.id]
        self.held.rename()
        return effects

    def _lose_file(self, record: Record, path: str) -> Effects:
        """A file is gone: who wants the model is told, who doesn't will not miss it. An engine that has it keeps it."""
        record.spec = None
        if record.has_process:
            return []
        if record.reference is not None:  # it is being fetched again
            if record.state is EngineState.BACKING_OFF:
                record.signal(Signal.STOP_ASKED)
            return []
        if record.wanted:
            message = f"its file {path} is gone; put it back or pull it again"
            return self.engines.give_up(record, EngineFailure(fault=EngineFault.MISSING_FILE, message=message))
        if not record.is_served:
            del self.held.records[record.id]
        return []

    def on_probed(self, event: ev.EngineProbed) -> Effects:
        """Take the self-test's result."""
        self.held.build, self.held.build_failure = event.build, event.failure
        if event.failure is not None:
            return [notice(Level.ERROR, f"no engine can run here: {event.failure.message}")]
        return []

    def on_exited(self, event: ev.EngineExited, now_s: float) -> Effects:
        """A process is gone, and with it perhaps the last trace of a file that was deleted meanwhile."""
        record = self.held.having(event.model)
        path = ""
        if record is not None and record.plan is not None:
            path = record.plan.model.path
            self.held.note_freed(record.plan.memory.total_bytes)
        self.caches.on_exited(event.model, now_s)
        effects = self.engines.on_exited(event, now_s)
        if record is not None and record.spec is None:
            effects += self._lose_file(record, path)
            self.held.rename()
        return effects

    def on_wanted(self, event: ev.ModelWanted, now_s: float) -> Effects:
        """A request needs a model that is not loaded: somebody should serve it, unless somebody said not to."""
        record = self.held.records.get(event.model)
        if record is not None and record.spec is not None:
            policy = self.held.policy_of(record.id)
            if record.state is EngineState.FAILED or self.orders.withholds(record) or record.wanted:
                return []
            if policy.load is LoadMode.OFF or not policy.is_enabled:
                return []
            if self.held.build_failure is not None:
                self.held.want(record, Reason.REQUESTED_BY_REQUEST)  # which ends with the reason why it cannot run
                return []
        self.gap_filling.want(event.model, now_s)
        return []

    def on_traffic(self, event: ev.TrafficMeasured, now_s: float) -> Effects:
        """Count requests: as use of the engines here, and as demand where they came in here."""
        self.adopted.on_traffic(event, now_s)
        self.health.count(event, now_s)
        self.caches.on_traffic(event, now_s)
        in_flight = dict(event.in_flight)
        for model, count in event.finished:
            if (record := self.held.records.get(model)) is not None:
                record.requests += count
                record.last_used_s = now_s
        for record in self.held.records.values():
            record.in_flight = in_flight.get(record.id, 0)
            if record.in_flight:
                record.last_used_s = now_s
        entered = Counter(dict(event.finished))
        entered.subtract(dict(event.from_peers))
        entered.update(dict(event.elsewhere))
        for model, count in sorted(entered.items()):
            if count > 0:
                self.gap_filling.own_demand.note(model, count, now_s)
        return []

    def on_drained(self, event: ev.EngineDrained) -> Effects:
        """Nothing is in flight at an engine that is to take nothing more."""
        self.adopted.on_drained(event)
        return self.engines.on_drained(event)

    @property
    def names(self) -> NameIndex:
        """Return the names that this node's models answer to, adopted ones included."""
        return self.adopted.names(self.held.names)

    def on_look(self, event: ev.RegistryChanged | ev.HealthAsked, now_s: float) -> Effects:
        """Look at every model: somebody asked, or what its file should be has changed."""
        if isinstance(event, ev.RegistryChanged):
            self.held.registered = event.entries
        self.health.ask(now_s)
        return []

    def on_asked(self, event: ev.ModelAsked) -> Effects:
        """The outside found out what a name stands for, or that it stands for nothing."""
        return self.fetching.on_asked(event) + self.orders.on_asked(event)

    def on_intent(self, event: ev.IntentReceived) -> Effects:
        """Somebody asked for a change."""
        if self.leaving is not None:
            return [answer(event.intent, OutcomeCode.LEAVING, "this node is shutting down")]
        if (refused := self.adopted.refuse(event.intent, self.held.names)) is not None:
            return refused
        return self.orders.on_intent(event)

    def leave(self, reason: str) -> Effects:
        """Drain and stop everything; asked a second time, at once."""
        is_second = self.leaving is not None
        self.leaving = self.leaving or reason
        self.gap_filling.waiting.clear()
        effects: Effects = [] if is_second else [notice(Level.INFO, "leaving", reason=reason)]
        effects += self.adopted.leave(self.policy.drain_s, force=is_second) + self.lending.leave()
        for record in self.held.records.values():
            record.wanted = False
            outcome = Outcome(code=OutcomeCode.LEAVING, message="this node is shutting down", model=record.id)
            effects += answers(taken(record.load_waiters), outcome)
            if record.has_process:
                effects += self.engines.stop(record, force=is_second)
            elif record.state is EngineState.BACKING_OFF:
                record.signal(Signal.STOP_ASKED)
        return effects

    def statement(self, old: Announcement, now_s: float, *, is_client: bool) -> Announcement:
        """Return what this node's models make true of it; `old` gives the rest."""
        said = told(old, self.held, self.fetching, self.adopted.models.values(), is_client=is_client)
        waiting, demand = self.gap_filling.waiting, self.gap_filling.own_demand.told(now_s)
        unshared = tuple(sorted(self.splits.unshared.items()))
        keeps = self.held.caches.config.shares_completions and not is_client
        return replace(said, waiting=tuple(sorted(waiting)), demand=demand, unshared=unshared, keeps_answers=keeps)

    def settle(self, now_s: float, said: Announcement) -> Effects:
        """Start what is wanted and fits; say of the rest what it waits for. `said` is the own announcement so far."""
        effects = self._settle(now_s, said)
        self.health.settle(self.held.records.values(), self.held.registered, now_s)
        return effects

    def _settle(self, now_s: float, said: Announcement) -> Effects:
        if self.leaving is not None:
            self.adopted.settle(now_s, self.held.records)
            gone = not any(record.has_process for record in self.held.records.values())
            gone = gone and not self.adopted.is_draining and not self.held.lent
            return [Leave(reason=self.leaving, exit_code=self._exit_code)] if gone else []
        effects: Effects = []
        if self.has_inventory:
            effects += self.adopted.settle(now_s, self.held.records) + self.fetching.find_pending(self.adopted)
        if self.fetching.is_in_vain and not self.held.order:
            # A typing error, most likely: better told at once than served by nothing.
            self._exit_code = 1
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.fetching.unresolved.items())
            return effects + self.leave(reasons) + self._settle(now_s, said)
        self.gap_filling.is_equipped = self.has_inventory and self.held.build is not None
        effects += self.gap_filling.decide(self.statement(said, now_s, is_client=said.role is Role.CLIENT), now_s)
        effects += self.orders.obey()
        unshared = self.splits.unshared
        effects += self.lending.settle(now_s)
        effects += self.splits.settle(self.gap_filling.needs, now_s, is_joining=self.gap_filling.joining)
        if self.splits.unshared.keys() != unshared.keys():
            self.gap_filling.split_judged(now_s)
        effects += self.caches.settle(now_s)
        for model in list(self.held.order):
            if (record := self.held.records.get(model)) is not None and record.wanted:
                effects += self._pursue(record, now_s)
        for record in self.held.records.values():
            if record.waiting and not record.wanted:
                self.engines.look_again(record)
        return effects

    def _pursue(self, record: Record, now_s: float) -> Effects:
        """Bring a wanted model a step nearer to being served."""
        if self.splits.keeps(record):
            if record.retry_at_s is not None and record.retry_at_s <= now_s:
                record.retry_at_s = None  # the split has its own pauses from here on
            return []
        if record.starts_at_s is not None and record.starts_at_s > now_s:
            return []  # a claim that others have yet to hear of
        record.starts_at_s = None
        if record.retry_at_s is not None and record.retry_at_s > now_s:
            return []
        if record.spec is None:
            effects = self.fetching.download(record)
        else:
            clearing = self.upkeep.clear(record, is_asked=record.id in self.gap_filling.waiting)
            if clearing is not None:
                record.retry_at_s = None  # every later event asks again
                return clearing
            effects = self.engines.pursue(record, now_s)
        self.gap_filling.gave_up(record, now_s)
        return effects

    def next_s(self, now_s: float) -> float | None:
        """Return when a restart, a start, a question to an adopted server, or a look at who serves what is due."""
        if self.leaving is not None:  # a node that goes looks at nobody else again
            return self._own_due_s
        look_s = self.gap_filling.next_s(now_s)
        return min((at_s for at_s in (look_s, self._own_due_s) if at_s is not None), default=None)

    def look_ahead(self) -> None:
        """Find out when something of this node's own models is due: what members say does not change that."""
        due: list[float | None] = [self.health.next_s()]
        if self.leaving is None:
            due += [self.splits.next_s(), self.lending.next_s(), self.caches.next_s()]
        due.append(self.adopted.next_s() if self.has_inventory else None)
        for record in self.held.records.values():
            due += [record.retry_at_s, record.starts_at_s]
        self._own_due_s = min((at_s for at_s in due if at_s is not None), default=None)


def _eager(policies: Iterable[ModelPolicy]) -> tuple[str, ...]:
    """Return the models that are to be loaded at the start."""
    return tuple(policy.name for policy in policies if policy.load is LoadMode.EAGER and policy.is_enabled)
