"""What becomes of engines: started when wanted and fitting, restarted, stopped, given up.

Owns the meaning of everything an engine reports, and the back-off. Decides when to try again and when
not. Doesn't know who wanted the model.
"""

from dataclasses import replace

from meshllm.core import events as ev
from meshllm.core.effects import CancelDownload, DrainEngine, Level, StartEngine, StopEngine
from meshllm.core.engines import PERMANENT_FAULTS, EngineFailure, EngineFault, EngineState
from meshllm.core.intents import Outcome, OutcomeCode
from meshllm.core.limits import ENGINE_LOAD_FAILURES_MAX
from meshllm.core.serving.capacity import NoRoom, corrected
from meshllm.core.serving.engine_state import Signal
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.records import Record
from meshllm.core.serving.replies import Effects, answers, notice, taken
from meshllm.core.view import LoadProgress

FINAL_LOAD_FAULTS = PERMANENT_FAULTS | {EngineFault.LOAD_TIMEOUT}
"""Faults after which a load is not tried again by itself."""


class EngineLife:
    """Decides about engines."""

    def __init__(self, held: Holdings, drain_s: float) -> None:
        """Give a draining engine `drain_s` seconds."""
        self._held = held
        self._drain_s = drain_s

    def on_started(self, event: ev.EngineStarted) -> Effects:
        """A process exists."""
        if (record := self._held.having(event.model)) is not None:
            record.pid = event.pid
        return []

    def on_progressed(self, event: ev.EngineProgressed) -> Effects:
        """A load goes on."""
        record = self._held.having(event.model)
        if record is not None and record.state is EngineState.STARTING:
            record.progress = LoadProgress(stage="loading", share=event.share)
        return []

    def on_ready(self, event: ev.EngineReady, now_s: float) -> Effects:
        """An engine answers: the model is served."""
        record = self._held.having(event.model)
        if record is None or record.state is not EngineState.STARTING:
            return []
        record.signal(Signal.BECAME_READY)
        record.endpoint, record.pid = event.endpoint, event.pid
        record.context_tokens, record.slots = event.context_tokens, event.slots
        record.load_s, record.ready_since_s, record.failure = event.load_s, now_s, None
        record.load_failures = 0
        if record.plan is not None:
            record.plan = corrected(record.plan, event.resident_bytes)
        if record.load_waiters:
            record.is_lazy = record.is_assigned = False  # the order is carried out, and holds until it is taken back
        done = Outcome(code=OutcomeCode.DONE, message=f"{record.id} is loaded", model=record.id)
        line = notice(
            Level.INFO, "model ready", model=record.id, load_s=round(event.load_s, 2),
            context=event.context_tokens, slots=event.slots, pid=event.pid,
        )  # fmt: skip
        return [*answers(taken(record.load_waiters), done), line]

    def on_hung(self, event: ev.EngineHung) -> Effects:
        """Nothing moves at an engine: kill it; its exit decides what follows."""
        record = self._held.having(event.model)
        if record is None or record.state is EngineState.STOPPING:
            return []
        record.signal(Signal.HUNG)
        return [
            StopEngine(model=record.id, kill=True),
            notice(Level.WARNING, "engine hung", model=record.id, reason=event.message),
        ]

    def on_drained(self, event: ev.EngineDrained) -> Effects:
        """A draining engine has nothing left to do."""
        record = self._held.having(event.model)
        if record is None or record.state is not EngineState.DRAINING:
            return []
        record.signal(Signal.DRAINED)
        return [StopEngine(model=record.id, slots_bytes=self._held.caches.disk_shares.get(record.id, 0))]

    def on_exited(self, event: ev.EngineExited, now_s: float) -> Effects:
        """A process is gone: as asked, or it failed and may get another try."""
        record = self._held.having(event.model)
        if record is None:
            return []
        if record.state is EngineState.STARTING:
            return self._load_failed(record, event.failure, now_s)
        if record.state is EngineState.READY:
            return self._crashed(record, event.failure, now_s)
        record.signal(Signal.EXITED)
        done = Outcome(code=OutcomeCode.DONE, message=f"{record.id} is unloaded", model=record.id)
        return [*answers(taken(record.stop_waiters), done), notice(Level.INFO, "model unloaded", model=record.id)]

    def _load_failed(self, record: Record, failure: EngineFailure, now_s: float) -> Effects:
        """A load came to nothing: another try, unless it would only repeat this one."""
        delay_s = record.note_failure(failure, now_s)
        record.load_failures += 1
        is_final = record.load_failures >= ENGINE_LOAD_FAILURES_MAX or failure.fault in FINAL_LOAD_FAULTS
        if record.split is not None:
            # A worker that is lost or stands still says nothing about the model; its host backs off, and plans anew.
            is_final = failure.fault in PERMANENT_FAULTS
        if failure.fault is EngineFault.OUT_OF_MEMORY:
            # Once more with half the cache; a second time means it does not fit here.
            is_final, delay_s = record.shrink > 0, 0.0
            record.shrink = 1
        if not is_final:
            return self._again(record, failure, now_s + delay_s, delay_s)
        record.signal(Signal.EXITED_FOR_GOOD)
        record.wanted = False
        outcome = Outcome(code=OutcomeCode.LOAD_FAILED, message=failure.message, model=record.id)
        fields = {"model": record.id, "fault": failure.fault.value, "reason": failure.message}
        return [*answers(taken(record.load_waiters), outcome), notice(Level.ERROR, "model failed", **fields)]

    def _crashed(self, record: Record, failure: EngineFailure, now_s: float) -> Effects:
        """An engine that had been ready is gone: it loads, so it is tried for ever, with ever longer pauses."""
        delay_s = record.note_failure(failure, now_s)
        if failure.fault is EngineFault.OUT_OF_MEMORY:
            record.shrink = 1
        record.restarts += 1
        return self._again(record, failure, now_s + delay_s, delay_s)

    def _again(self, record: Record, failure: EngineFailure, at_s: float, delay_s: float) -> Effects:
        record.signal(Signal.EXITED)
        record.retry_at_s = at_s
        record.wanted = True
        fields = {"model": record.id, "fault": failure.fault.value, "reason": failure.message}
        return [notice(Level.WARNING, "engine ended, restarting", **fields, retry_in_s=delay_s)]

    def stop(self, record: Record, *, force: bool) -> Effects:
        """Bring an engine down from whatever it is doing."""
        if record.state is EngineState.STOPPING:
            return [StopEngine(model=record.id, kill=True)] if force else []
        if record.state is EngineState.READY and not force:
            record.signal(Signal.DRAIN_ASKED)
            return [DrainEngine(model=record.id, within_s=self._drain_s)]
        if record.state is EngineState.DRAINING and not force:
            return []
        record.signal(Signal.STOP_ASKED)
        return [StopEngine(model=record.id, kill=force)]

    def withdraw(self, record: Record) -> Effects:
        """Take a model back that the node had given itself: whoever uses it is served to the end."""
        record.wanted, record.waiting, record.starts_at_s = False, "", None
        effects: Effects = []
        if record.is_downloading and not record.pull_waiters:
            record.is_downloading, record.progress = False, None
            effects.append(CancelDownload(model=record.id))
        if record.has_process:
            return effects + self.stop(record, force=False)
        if record.state is EngineState.BACKING_OFF:
            record.signal(Signal.STOP_ASKED)
        return effects

    def pursue(self, record: Record, now_s: float) -> Effects:
        """Start a wanted model whose file is here, if it is its turn and it fits."""
        if record.retry_at_s is not None and record.retry_at_s > now_s:
            return []
        if record.state not in (EngineState.STOPPED, EngineState.BACKING_OFF):
            return []
        if record.spec is None:
            return []
        if self._held.build_failure is not None:
            return self.give_up(record, self._held.build_failure)
        if self._held.build is None or self._held.resources is None:
            return []
        plan = self._held.plan(record.spec, self._held.room(), record.shrink)
        if isinstance(plan, NoRoom):
            return self._wait_for_room(record, plan)
        record.waiting, record.starts_at_s = "", None
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
        return answers(taken(record.load_waiters), outcome)

    def look_again(self, record: Record) -> None:
        """Say no more that there is no room, once there is."""
        if record.spec is None or self._held.build is None or self._held.resources is None:
            return
        plan = self._held.plan(record.spec, self._held.room())
        if not isinstance(plan, NoRoom):
            record.waiting = ""

    def give_up(self, record: Record, failure: EngineFailure) -> Effects:
        """End a wanted model that has no process: another try needs somebody to change something."""
        record.failure, record.wanted = failure, False
        record.signal(Signal.GAVE_UP)
        outcome = Outcome(code=OutcomeCode.LOAD_FAILED, message=failure.message, model=record.id)
        return answers(taken(record.load_waiters), outcome)
