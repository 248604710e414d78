"""What this node serves: intents and facts go in, orders to engines and downloads come out.

Owns one `Record` for each model and the order in which models were asked for. Decides what is loaded,
restarted, stopped and given up, and when. Doesn't know processes, sockets or files; `mesh.MeshCore`
feeds it and turns its records into the view.

Every handler changes records and returns effects; `settle` then starts whatever is wanted and fits, so
no handler has to think about the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from meshllm.core import events as ev
from meshllm.core.catalog import ModelReference, ModelSpec
from meshllm.core.effects import (
    Answer,
    CancelDownload,
    Download,
    DrainEngine,
    Effect,
    Leave,
    Level,
    Notify,
    ResolveModel,
    StartEngine,
    StopEngine,
)
from meshllm.core.engines import PERMANENT_FAULTS, EngineBuild, EngineFailure, EngineFault
from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.core.known_models import CATALOG_FILES, choose_file, find, reference_of
from meshllm.core.limits import DRAIN_S
from meshllm.core.names import Ambiguous, NameIndex
from meshllm.core.resources import Resources, format_bytes
from meshllm.core.serving.capacity import EngineWishes, NoRoom, Room, plan_engine, room_for_one_more
from meshllm.core.serving.engine_state import EngineState, Signal
from meshllm.core.serving.records import Record
from meshllm.core.view import LoadProgress

Effects = list[Effect]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPolicy:
    """What the configuration says about serving."""

    requested: tuple[str, ...] = ()
    """Names to serve, in order; empty: whatever is on disk and fits."""
    wishes: EngineWishes = EngineWishes()
    min_unasked_bytes: int = 0
    """Smaller files outside the catalogue are not served unasked."""
    drain_s: float = DRAIN_S


class Lifecycle:
    """The models of this node and what is done about them."""

    def __init__(self, policy: ServingPolicy) -> None:
        """Start with nothing known."""
        self.policy = policy
        self.records: dict[ModelId, Record] = {}
        self.names = NameIndex(())
        self.resources: Resources | None = None
        self.build: EngineBuild | None = None
        self.build_failure: EngineFailure | None = None
        self.default_model: ModelId | None = None
        self.unresolved: dict[str, str] = {}
        """Names asked for that stand for nothing, with the reason."""
        self.leaving: str | None = None
        self._order: list[ModelId] = []
        """Models in the order in which they were asked for."""
        self._pending: list[str] = list(policy.requested)
        """Requested names that no model has been found for yet."""
        self._asking: dict[str, list[Intent]] = {}
        """Names being resolved outside, with the intents that wait for the answer."""
        self._has_inventory = False
        self._named: object = None
        """What `names` was made of, so that an unchanged index stays the same object."""
        self._exit_code = 0

    # -- facts -------------------------------------------------------------------------------------

    def on_resources(self, event: ev.ResourcesMeasured) -> Effects:
        """Take a measurement of the machine."""
        self.resources = event.resources
        for record in self.records.values():
            record.is_measured = record.state is EngineState.READY
        return []

    def on_inventory(self, event: ev.InventoryChanged) -> Effects:
        """Take the complete list of model files."""
        self._has_inventory = True
        found = {spec.id: spec for spec in event.models}
        for spec in event.models:
            self._take_file(self.records.setdefault(spec.id, Record(id=spec.id)), spec)
        for record in list(self.records.values()):
            if record.spec is not None and record.id not in found and not record.has_process:
                record.spec = None
            if record.spec is None and not record.is_served and record.reference is None:
                del self.records[record.id]
        self._rename()
        return []

    @staticmethod
    def _take_file(record: Record, spec: ModelSpec) -> None:
        old = record.spec
        if old is None or (old.path, old.size_bytes, old.modified_s) != (spec.path, spec.size_bytes, spec.modified_s):
            record.forgive()
        record.spec = spec

    def on_probed(self, event: ev.EngineProbed) -> Effects:
        """Take the self-test's result."""
        self.build, self.build_failure = event.build, event.failure
        if event.failure is not None:
            return [_notice(Level.ERROR, f"no engine can run here: {event.failure.message}")]
        return []

    def on_wanted(self, event: ev.ModelWanted) -> Effects:
        """A request needs a model that is not loaded: want it, unless somebody said not to."""
        record = self.records.get(event.model)
        if record is not None and not (record.held or record.dropped or record.wanted):
            self._want(record)
            record.is_lazy = True
        return []

    def on_traffic(self, event: ev.TrafficMeasured, now_s: float) -> Effects:
        """Count requests."""
        for model, count in event.finished:
            if (record := self.records.get(model)) is not None:
                record.requests += count
                record.last_used_s = now_s
        return []

    # -- downloads and names -------------------------------------------------------------------------

    def on_download_progressed(self, event: ev.DownloadProgressed) -> Effects:
        """Show how far a download is."""
        record = self.records.get(event.model)
        if record is not None and record.is_downloading:
            total = event.total_bytes or (record.reference.size_bytes if record.reference else 0)
            share = event.done_bytes / total if total else 0.0
            record.progress = LoadProgress(
                stage="downloading", share=min(share, 1.0), done_bytes=event.done_bytes, total_bytes=total
            )
        return []

    def on_download_finished(self, event: ev.DownloadFinished) -> Effects:
        """A file is complete; the inventory will say what is in it."""
        record = self.records.get(event.model)
        if record is None:
            return []
        # Without a reference it is not fetched again while the inventory has yet to see the file.
        record.is_downloading, record.progress, record.reference = False, None, None
        done = Outcome(code=OutcomeCode.DONE, message=f"pulled {record.id}", model=record.id)
        return [*_answers(_taken(record.pull_waiters), done), _notice(Level.INFO, "model downloaded", model=record.id)]

    def on_download_failed(self, event: ev.DownloadFailed) -> Effects:
        """There is no file: whoever waited for it is told why."""
        record = self.records.get(event.model)
        if record is None:
            return []
        record.is_downloading, record.progress = False, None
        record.failure = EngineFailure(fault=EngineFault.DOWNLOAD_FAILED, message=event.message)
        if record.state is EngineState.STOPPED and record.wanted:
            record.signal(Signal.GAVE_UP)
            record.wanted = False
        outcome = Outcome(code=OutcomeCode.DOWNLOAD_FAILED, message=event.message, model=record.id)
        waiters = _taken(record.pull_waiters) + _taken(record.load_waiters)
        return [
            *_answers(waiters, outcome),
            _notice(Level.WARNING, "download failed", model=record.id, code=event.code, reason=event.message),
        ]

    def on_asked(self, event: ev.ModelAsked) -> Effects:
        """The outside found out what a name stands for."""
        intents = self._asking.pop(event.asked, [])
        if event.reference is None:
            self.unresolved[event.asked] = event.message
            outcome = Outcome(code=OutcomeCode.UNKNOWN_MODEL, message=event.message)
            return [
                *(Answer(request_id=intent.request_id, outcome=outcome) for intent in intents),
                _notice(Level.WARNING, "model not found", asked=event.asked, reason=event.message),
                *self._leave_without_models(),
            ]
        record = self._record_of(event.reference)
        self._rename()
        effects: Effects = []
        if event.asked in self._pending:
            self._pending.remove(event.asked)
            self._want(record)
        for intent in intents:
            effects += self._load(record, intent) if intent.verb is Verb.LOAD else self._pull(record, intent)
        return effects

    # -- engines ---------------------------------------------------------------------------------------

    def on_started(self, event: ev.EngineStarted) -> Effects:
        """A process exists."""
        if (record := self._having(event.model)) is not None:
            record.pid = event.pid
        return []

    def on_progressed(self, event: ev.EngineProgressed) -> Effects:
        """A load goes on."""
        record = self._having(event.model)
        if record is not None and record.state is EngineState.STARTING:
            record.progress = LoadProgress(stage="loading", share=event.share)
        return []

    def on_ready(self, event: ev.EngineReady, now_s: float) -> Effects:
        """An engine answers: the model is served."""
        record = self._having(event.model)
        if record is None or record.state is not EngineState.STARTING:
            return []
        record.signal(Signal.BECAME_READY)
        record.endpoint, record.pid = event.endpoint, event.pid
        record.context_tokens, record.slots = event.context_tokens, event.slots
        record.load_s, record.ready_since_s, record.failure = event.load_s, now_s, None
        done = Outcome(code=OutcomeCode.DONE, message=f"{record.id} is loaded", model=record.id)
        notice = _notice(
            Level.INFO, "model ready", model=record.id, load_s=round(event.load_s, 2),
            context=event.context_tokens, slots=event.slots, pid=event.pid,
        )  # fmt: skip
        return [*_answers(_taken(record.load_waiters), done), notice]

    def on_hung(self, event: ev.EngineHung) -> Effects:
        """Nothing moves at an engine: kill it; its exit decides what follows."""
        record = self._having(event.model)
        if record is None or record.state is EngineState.STOPPING:
            return []
        record.signal(Signal.HUNG)
        return [
            StopEngine(model=record.id, kill=True),
            _notice(Level.WARNING, "engine hung", model=record.id, reason=event.message),
        ]

    def on_drained(self, event: ev.EngineDrained) -> Effects:
        """A draining engine has nothing left to do."""
        record = self._having(event.model)
        if record is None or record.state is not EngineState.DRAINING:
            return []
        record.signal(Signal.DRAINED)
        return [StopEngine(model=record.id)]

    def on_exited(self, event: ev.EngineExited, now_s: float) -> Effects:
        """A process is gone: as asked, or it failed and may get another try."""
        record = self._having(event.model)
        if record is None:
            return []
        if record.state in (EngineState.STARTING, EngineState.READY):
            return self._failed(record, event.failure, now_s)
        record.signal(Signal.EXITED)
        done = Outcome(code=OutcomeCode.DONE, message=f"{record.id} is unloaded", model=record.id)
        return [*_answers(_taken(record.stop_waiters), done), _notice(Level.INFO, "model unloaded", model=record.id)]

    def _failed(self, record: Record, failure: EngineFailure, now_s: float) -> Effects:
        was_ready = record.state is EngineState.READY
        delay_s = record.note_failure(failure, now_s)
        if failure.fault is EngineFault.OUT_OF_MEMORY:
            # Once more with half the context and slots; a second time means it does not fit here.
            record.shrink += 1
            delay_s = 0.0 if record.shrink == 1 else None
        if failure.fault in PERMANENT_FAULTS or failure.fault is EngineFault.LOAD_TIMEOUT:
            delay_s = None
        fields = {"model": record.id, "fault": failure.fault.value, "reason": failure.message}
        if delay_s is None:
            record.signal(Signal.EXITED_FOR_GOOD)
            record.wanted = False
            outcome = Outcome(code=OutcomeCode.LOAD_FAILED, message=failure.message, model=record.id)
            return [*_answers(_taken(record.load_waiters), outcome), _notice(Level.ERROR, "model failed", **fields)]
        record.signal(Signal.EXITED)
        record.retry_at_s = now_s + delay_s
        record.restarts += was_ready
        record.wanted = True
        return [_notice(Level.WARNING, "engine ended, restarting", **fields, retry_in_s=delay_s)]

    # -- intents ---------------------------------------------------------------------------------------

    def on_intent(self, event: ev.IntentReceived) -> Effects:
        """Carry out what somebody asked for, now or when its answer is known."""
        intent = event.intent
        if self.leaving is not None:
            return [_answer(intent, OutcomeCode.LEAVING, "this node is shutting down")]
        found = self.names.resolve(intent.model)
        if isinstance(found, Ambiguous):
            message = f"{intent.model!r} could mean any of: {', '.join(found.candidates)}"
            return [_answer(intent, OutcomeCode.AMBIGUOUS_MODEL, message)]
        record = self.records.get(found) if isinstance(found, str) else None
        if record is not None and not (record.spec is None and record.reference is None):
            return self._act(record, intent)
        if intent.verb in (Verb.UNLOAD, Verb.DROP):
            near = f"; did you mean {' or '.join(found.near)}?" if not isinstance(found, str) and found.near else ""
            return [_answer(intent, OutcomeCode.UNKNOWN_MODEL, f"this node has no model {intent.model!r}{near}")]
        if (reference := self._catalogued(intent.model)) is not None:
            record = self._record_of(reference)
            self._rename()
            return self._act(record, intent)
        self._asking.setdefault(intent.model, []).append(intent)
        return [ResolveModel(asked=intent.model)]

    def _act(self, record: Record, intent: Intent) -> Effects:
        match intent.verb:
            case Verb.LOAD:
                return self._load(record, intent)
            case Verb.PULL:
                return self._pull(record, intent)
            case Verb.UNLOAD:
                return self._unload(record, intent)
            case Verb.DROP:
                return self._drop(record, intent)

    def _load(self, record: Record, intent: Intent) -> Effects:
        if record.state is EngineState.READY:
            return [_answer(intent, OutcomeCode.DONE, f"{record.id} is loaded", record.id)]
        record.held = record.dropped = False
        record.forgive()
        self._want(record)
        record.load_waiters.append(intent.request_id)
        return []

    def _pull(self, record: Record, intent: Intent) -> Effects:
        if record.spec is not None:
            return [_answer(intent, OutcomeCode.DONE, f"{record.id} is on this disk", record.id)]
        record.pull_waiters.append(intent.request_id)
        return self._download(record)

    def _unload(self, record: Record, intent: Intent) -> Effects:
        record.held = intent.hold
        return self._withdraw(record, intent)

    def _drop(self, record: Record, intent: Intent) -> Effects:
        if not record.is_served:
            message = f"this node does not serve {record.id}"
            return [_answer(intent, OutcomeCode.NOT_SERVED, message, record.id)]
        record.dropped = True
        effects = self._withdraw(record, intent)
        if not intent.keep_running and not any(
            other.is_served for other in self.records.values() if other is not record
        ):
            effects += self.leave(f"{record.id} was dropped and was the only model")
        return effects

    def _withdraw(self, record: Record, intent: Intent) -> Effects:
        """Take a model out of memory and answer when its process is gone."""
        record.wanted, record.waiting = False, ""
        superseded = Outcome(code=OutcomeCode.SUPERSEDED, message=f"{intent.verb} of {record.id} came in between")
        effects: Effects = list(_answers(_taken(record.load_waiters), superseded))
        if record.is_downloading and not record.pull_waiters:
            record.is_downloading, record.progress = False, None
            effects.append(CancelDownload(model=record.id))
        if not record.has_process:
            if record.state is not EngineState.STOPPED:
                record.signal(Signal.STOP_ASKED)
            return [*effects, _answer(intent, OutcomeCode.DONE, f"{record.id} is unloaded", record.id)]
        record.stop_waiters.append(intent.request_id)
        return effects + self._stop(record, force=intent.force)

    def _stop(self, record: Record, *, force: bool) -> Effects:
        """Bring an engine down from whatever it is doing."""
        if record.state is EngineState.STOPPING:
            return [StopEngine(model=record.id, kill=True)] if force else []
        if record.state is EngineState.READY and not force:
            record.signal(Signal.DRAIN_ASKED)
            return [DrainEngine(model=record.id, within_s=self.policy.drain_s)]
        if record.state is EngineState.DRAINING and not force:
            return []
        record.signal(Signal.STOP_ASKED)
        return [StopEngine(model=record.id, kill=force)]

    def _leave_without_models(self) -> Effects:
        """Leave when every requested name turned out to stand for nothing: a typing error, most likely."""
        asked = self.policy.requested
        if not asked or any(name not in self.unresolved for name in asked) or self._order:
            return []
        self._exit_code = 1
        return self.leave("; ".join(f"{name}: {self.unresolved[name]}" for name in asked))

    def leave(self, reason: str) -> Effects:
        """Drain and stop everything; asked a second time, at once."""
        is_second = self.leaving is not None
        self.leaving = self.leaving or reason
        effects: Effects = [] if is_second else [_notice(Level.INFO, "leaving", reason=reason)]
        for record in self.records.values():
            record.wanted = False
            outcome = Outcome(code=OutcomeCode.LEAVING, message="this node is shutting down", model=record.id)
            effects += _answers(_taken(record.load_waiters), outcome)
            if record.has_process:
                effects += self._stop(record, force=is_second)
            elif record.state is EngineState.BACKING_OFF:
                record.signal(Signal.STOP_ASKED)
        return effects

    # -- settling --------------------------------------------------------------------------------------

    def settle(self, now_s: float) -> Effects:
        """Start what is wanted and fits; say of the rest what it waits for."""
        if self.leaving is not None:
            gone = not any(record.has_process for record in self.records.values())
            return [Leave(reason=self.leaving, exit_code=self._exit_code)] if gone else []
        effects: Effects = []
        if self._has_inventory:
            effects += self._find_pending()
        if self._has_inventory and not self.policy.requested:
            self._choose_unasked()
        for model in list(self._order):
            if (record := self.records.get(model)) is not None and record.wanted:
                effects += self._pursue(record, now_s)
        return effects

    def next_retry_s(self) -> float | None:
        """Return when the next restart is due."""
        return min(
            (record.retry_at_s for record in self.records.values() if record.retry_at_s is not None), default=None
        )

    def _pursue(self, record: Record, now_s: float) -> Effects:
        """Bring one wanted model a step nearer to memory."""
        if record.retry_at_s is not None and record.retry_at_s > now_s:
            return []
        if record.state not in (EngineState.STOPPED, EngineState.BACKING_OFF):
            return []
        if record.spec is None:
            return self._download(record)
        if self.build_failure is not None:
            return self._give_up(record, self.build_failure)
        if self.build is None or self.resources is None:
            return []
        plan = plan_engine(record.spec, self._room(), self.policy.wishes, self.resources, shrink=record.shrink)
        if isinstance(plan, NoRoom):
            return self._wait_for_room(record, plan)
        record.waiting = ""
        record.signal(Signal.RETRY_DUE if record.state is EngineState.BACKING_OFF else Signal.START_ASKED)
        record.plan = replace(plan, attempt=len(record.failures_s) + 1)
        record.progress = LoadProgress(stage="loading", share=0.0)
        return [StartEngine(plan=record.plan)]

    def _wait_for_room(self, record: Record, lack: NoRoom) -> Effects:
        record.waiting, record.retry_at_s = lack.message, None  # every later event asks again
        if not record.load_waiters and not record.is_lazy:
            return []
        record.wanted = not record.is_lazy
        if record.state is EngineState.BACKING_OFF and not record.wanted:
            record.signal(Signal.STOP_ASKED)
        outcome = Outcome(code=OutcomeCode.NO_CAPACITY, message=lack.message, model=record.id)
        return _answers(_taken(record.load_waiters), outcome)

    def _give_up(self, record: Record, failure: EngineFailure) -> Effects:
        record.failure, record.wanted = failure, False
        record.signal(Signal.STOP_ASKED if record.state is EngineState.BACKING_OFF else Signal.GAVE_UP)
        outcome = Outcome(code=OutcomeCode.LOAD_FAILED, message=failure.message, model=record.id)
        return _answers(_taken(record.load_waiters), outcome)

    def _download(self, record: Record) -> Effects:
        if record.is_downloading or record.reference is None or record.spec is not None:
            return []
        record.is_downloading = True
        record.progress = LoadProgress(stage="downloading", share=0.0, total_bytes=record.reference.size_bytes)
        size = format_bytes(record.reference.size_bytes)
        return [Download(reference=record.reference), _notice(Level.INFO, "downloading", model=record.id, size=size)]

    def _find_pending(self) -> Effects:
        """Find models for the requested names; ask outside for those that nothing here knows."""
        effects: Effects = []
        for asked in list(self._pending):
            found = self.names.resolve(asked)
            if isinstance(found, str):
                record = self.records[found]
            elif isinstance(found, Ambiguous):
                self.unresolved[asked] = f"could mean any of: {', '.join(found.candidates)}"
                effects += self._leave_without_models()
                continue
            elif self.resources is None:
                continue  # a catalogue name without a quantisation needs to know the machine's size
            elif (reference := self._catalogued(asked)) is not None:
                record = self._record_of(reference)
            else:
                if asked not in self._asking and asked not in self.unresolved:
                    self._asking[asked] = []
                    effects.append(ResolveModel(asked=asked))
                continue
            self._pending.remove(asked)
            self.unresolved.pop(asked, None)
            self._want(record)
        self._rename()
        return effects

    def _choose_unasked(self) -> None:
        """Want what lies on disk, largest first, as long as it fits; only while nothing is served."""
        if self.build is None or self.resources is None or any(record.is_served for record in self.records.values()):
            return
        room, eligible = self._room(), [record for record in self.records.values() if self._is_eligible(record)]
        for record in sorted(eligible, key=lambda record: (-_size(record), record.id)):
            if record.spec is None:
                continue
            plan = plan_engine(record.spec, room, self.policy.wishes, self.resources)
            if isinstance(plan, NoRoom):
                continue
            self._want(record)
            taken = plan.memory.total_bytes
            on_gpu = min(taken, room.gpu_bytes) if plan.gpu_layers else 0
            room = Room(gpu_bytes=room.gpu_bytes - on_gpu, host_bytes=max(room.host_bytes - (taken - on_gpu), 0))

    def _is_eligible(self, record: Record) -> bool:
        """Tell whether a model may be served unasked: nobody has decided about it yet, and it is no toy."""
        if record.spec is None or record.held or record.id in self._order:
            return False
        return record.id in CATALOG_FILES or record.spec.size_bytes >= self.policy.min_unasked_bytes

    # -- small facts -------------------------------------------------------------------------------------

    def _want(self, record: Record) -> None:
        record.wanted, record.is_lazy = True, False
        if record.id not in self._order:
            self._order.append(record.id)
        if self.default_model is None:
            self.default_model = record.id

    def _room(self) -> Room:
        assert self.resources is not None and self.build is not None  # noqa: S101, PT018 - callers checked both
        taken = {record.id: record.plan for record in self.records.values() if record.plan is not None}
        unseen = frozenset(record.id for record in self.records.values() if not record.is_measured)
        return room_for_one_more(self.resources, self.build, self.policy.wishes.max_memory, taken, unseen)

    def _catalogued(self, asked: str) -> ModelReference | None:
        """Return where a catalogue name's file is: as named, or the largest quantisation that fits."""
        found = find(asked)
        if found is None or self.resources is None:
            return None
        model, file = found
        if file is None:
            file = choose_file(model, self.usable_bytes())
        return reference_of(model, file, asked)

    def usable_bytes(self) -> int:
        """Return the memory that one model could have on this machine if nothing else ran."""
        if self.resources is None:
            return 0
        resources, limit = self.resources, self.policy.wishes.max_memory
        uses_gpu = self.build is not None and self.build.uses_gpu and resources.gpus
        return limit.of(resources.gpu_total_bytes if uses_gpu else resources.memory_total_bytes)

    def _record_of(self, reference: ModelReference) -> Record:
        record = self.records.setdefault(reference.id, Record(id=reference.id))
        record.reference = reference
        return record

    def _having(self, model: ModelId) -> Record | None:
        """Return the record of a model with a process; engines' late words about others mean nothing."""
        record = self.records.get(model)
        return record if record is not None and record.has_process else None

    def _rename(self) -> None:
        aliases: dict[str, list[ModelId]] = {}
        for model in self.records:
            for alias in CATALOG_FILES.get(model, ()):
                aliases.setdefault(alias, []).append(model)
            reference = self.records[model].reference
            if reference is not None and reference.asked_as and reference.asked_as != model:
                aliases.setdefault(reference.asked_as, []).append(model)
        key = (tuple(self.records), tuple((alias, tuple(models)) for alias, models in aliases.items()))
        if key != self._named:
            self._named, self.names = key, NameIndex(self.records, aliases)


def _size(record: Record) -> int:
    return record.spec.size_bytes if record.spec is not None else 0


def _taken(waiters: list[str]) -> list[str]:
    """Return what is in a list and leave it empty."""
    taken = list(waiters)
    waiters.clear()
    return taken


def _answers(request_ids: Iterable[str], outcome: Outcome) -> Effects:
    return [Answer(request_id=request_id, outcome=outcome) for request_id in request_ids]


def _answer(intent: Intent, code: OutcomeCode, message: str, model: str = "") -> Effect:
    return Answer(request_id=intent.request_id, outcome=Outcome(code=code, message=message, model=model))


def _notice(level: Level, message: str, **fields: str | float) -> Notify:
    return Notify(level=level, message=message, fields=tuple(fields.items()))
