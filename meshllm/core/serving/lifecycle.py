"""What this node serves: facts and intents go in, orders to engines and downloads come out.

Owns the composition of the parts over one `Holdings`, and leaving. Decides what is served unasked.
Doesn't know processes, sockets or files; `mesh.MeshCore` feeds it and turns its records into the view.

Every handler changes records and returns effects; `settle` then starts whatever is wanted and fits, so
no handler has to think about the others.
"""

from dataclasses import dataclass

from meshllm.core import events as ev
from meshllm.core.effects import Leave, Level
from meshllm.core.engines import EngineFailure, EngineFault, EngineState
from meshllm.core.intents import Outcome, OutcomeCode
from meshllm.core.known_models import CATALOG_FILES
from meshllm.core.limits import DRAIN_S
from meshllm.core.policy import ModelPolicy
from meshllm.core.serving.capacity import EngineWishes, NoRoom, Room, plan_engine
from meshllm.core.serving.engine_life import EngineLife
from meshllm.core.serving.engine_state import Signal
from meshllm.core.serving.fetching import Fetching
from meshllm.core.serving.health import HealthLedger
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.orders import Orders
from meshllm.core.serving.records import Record
from meshllm.core.serving.replies import Effects, answer, answers, notice, taken


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


class Lifecycle:
    """The models of this node and what is done about them."""

    def __init__(self, policy: ServingPolicy) -> None:
        """Start with nothing known."""
        self.policy = policy
        self.held = Holdings(policy.wishes, policy.models)
        self.fetching = Fetching(self.held, policy.requested)
        self.engines = EngineLife(self.held, policy.drain_s)
        self._orders = Orders(self.held, self.fetching, self.engines, self.leave)
        self.health = HealthLedger()
        self.leaving: str | None = None
        self._exit_code = 0
        self.has_inventory = False

    def on_resources(self, event: ev.ResourcesMeasured) -> Effects:
        """Take a measurement of the machine."""
        self.held.resources = event.resources
        for record in self.held.records.values():
            record.is_measured = record.state is EngineState.READY
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
        path = record.plan.model.path if record is not None and record.plan is not None else ""
        effects = self.engines.on_exited(event, now_s)
        if record is not None and record.spec is None:
            effects += self._lose_file(record, path)
            self.held.rename()
        return effects

    def on_wanted(self, event: ev.ModelWanted) -> Effects:
        """A request needs a model that is not loaded: want it, unless somebody said not to."""
        record = self.held.records.get(event.model)
        if record is None or record.state is EngineState.FAILED:
            return []
        if not (record.held or record.dropped or record.wanted):
            self.held.want(record)
            record.is_lazy = True
        return []

    def on_traffic(self, event: ev.TrafficMeasured, now_s: float) -> Effects:
        """Count requests."""
        self.health.count(event, now_s)
        for model, count in event.finished:
            if (record := self.held.records.get(model)) is not None:
                record.requests += count
                record.last_used_s = now_s
        return []

    def on_look(self, event: ev.RegistryChanged | ev.HealthAsked, now_s: float) -> Effects:
        """Look at every model: somebody asked, or what its file should be has changed."""
        if isinstance(event, ev.RegistryChanged):
            self.held.registered = event.entries
        self.health.ask(now_s)
        return []

    def on_asked(self, event: ev.ModelAsked) -> Effects:
        """The outside found out what a name stands for, or that it stands for nothing."""
        return self.fetching.on_asked(event) + self._orders.on_asked(event)

    def on_intent(self, event: ev.IntentReceived) -> Effects:
        """Somebody asked for a change."""
        if self.leaving is not None:
            return [answer(event.intent, OutcomeCode.LEAVING, "this node is shutting down")]
        return self._orders.on_intent(event)

    def leave(self, reason: str) -> Effects:
        """Drain and stop everything; asked a second time, at once."""
        is_second = self.leaving is not None
        self.leaving = self.leaving or reason
        effects: Effects = [] if is_second else [notice(Level.INFO, "leaving", reason=reason)]
        for record in self.held.records.values():
            record.wanted = False
            outcome = Outcome(code=OutcomeCode.LEAVING, message="this node is shutting down", model=record.id)
            effects += answers(taken(record.load_waiters), outcome)
            if record.has_process:
                effects += self.engines.stop(record, force=is_second)
            elif record.state is EngineState.BACKING_OFF:
                record.signal(Signal.STOP_ASKED)
        return effects

    def settle(self, now_s: float) -> Effects:
        """Start what is wanted and fits; say of the rest what it waits for."""
        effects = self._settle(now_s)
        self.health.settle(self.held.records.values(), self.held.registered, now_s)
        return effects

    def _settle(self, now_s: float) -> Effects:
        if self.leaving is not None:
            gone = not any(record.has_process for record in self.held.records.values())
            return [Leave(reason=self.leaving, exit_code=self._exit_code)] if gone else []
        effects: Effects = []
        if self.has_inventory:
            effects += self.fetching.find_pending()
        if self.fetching.is_in_vain and not self.held.order:
            # A typing error, most likely: better told at once than served by nothing.
            self._exit_code = 1
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.fetching.unresolved.items())
            return effects + self.leave(reasons) + self._settle(now_s)
        if self.has_inventory and not self.policy.requested:
            self._choose_unasked()
        for model in list(self.held.order):
            if (record := self.held.records.get(model)) is not None and record.wanted:
                effects += self.fetching.download(record) if record.spec is None else self.engines.pursue(record, now_s)
        for record in self.held.records.values():
            if record.waiting and not record.wanted:
                self.engines.look_again(record)
        return effects

    def next_retry_s(self) -> float | None:
        """Return when the next restart is due, or the next look at the models."""
        due_s = [record.retry_at_s for record in self.held.records.values()] + [self.health.next_s()]
        return min((at_s for at_s in due_s if at_s is not None), default=None)

    def _choose_unasked(self) -> None:
        """Want what lies on disk, largest first, as long as it fits; only while nothing is served."""
        if (
            self.held.build is None
            or self.held.resources is None
            or any(record.is_served for record in self.held.records.values())
        ):
            return
        room, eligible = (
            self.held.room(),
            [record for record in self.held.records.values() if self._is_eligible(record)],
        )
        for record in sorted(eligible, key=lambda record: (-_size(record), record.id)):
            if record.spec is None:
                continue
            plan = plan_engine(record.spec, room, self.held.wishes, self.held.resources)
            if isinstance(plan, NoRoom):
                continue
            self.held.want(record)
            taken = plan.memory.total_bytes
            on_gpu = min(taken, room.gpu_bytes) if plan.gpu_layers else 0
            room = Room(gpu_bytes=room.gpu_bytes - on_gpu, host_bytes=max(room.host_bytes - (taken - on_gpu), 0))

    def _is_eligible(self, record: Record) -> bool:
        """Tell whether a model may be served unasked: nobody has decided about it yet, and it is no toy."""
        if record.spec is None or record.held or record.id in self.held.order:
            return False
        return record.id in CATALOG_FILES or record.spec.size_bytes >= self.policy.min_unasked_bytes


def _size(record: Record) -> int:
    return record.spec.size_bytes if record.spec is not None else 0
