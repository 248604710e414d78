"""How this node's models are: measured from what happens to them, looked at every half minute and when asked.

Owns the counts of the last minutes, and what they make of a model, for everybody who shows or routes by it.
Decides when a model is looked at again, and what its file's digest means. Doesn't know HTTP, engines or files:
traffic, digests and states come in as events and records.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.events import TrafficMeasured
from meshllm.core.health import Allocation, HealthChecks, HealthState, Integrity, percentile_s
from meshllm.core.ids import ModelId
from meshllm.core.limits import HEALTH_INTERVAL_S, HEALTH_LEAST_REQUESTS, HEALTH_WINDOW_S
from meshllm.core.registration import Registration
from meshllm.core.serving.records import Record
from meshllm.core.view import LocalModel

_SHARE = 0.95
_LOADED = frozenset({EngineState.READY, EngineState.DRAINING})
_DOWN = frozenset({EngineState.BACKING_OFF, EngineState.FAILED})
_FILE_FAULTS = frozenset({EngineFault.BAD_FILE, EngineFault.MISSING_FILE})

_ByPath = Mapping[str, Sequence[Registration]]


# -- measuring -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Slice:
    """What happened to one model in a part of the window."""

    until_s: float
    finished: int = 0
    failed: int = 0
    first_tokens: Counter[int] = field(default_factory=Counter)


class HealthLedger:
    """What was measured of this node's models lately. Bounded: a few slices for each model with requests."""

    def __init__(self) -> None:
        """Start with nothing measured."""
        self._slices: dict[ModelId, deque[_Slice]] = {}
        self._due_s = float("-inf")
        self._is_running = False

    def count(self, event: TrafficMeasured, now_s: float) -> None:
        """Add requests that ended at this node's engines."""
        for model, count in event.finished:
            self._slice(model, now_s).finished += count
        for model, count in event.failed:
            self._slice(model, now_s).failed += count
        for model, steps in event.first_tokens:
            self._slice(model, now_s).first_tokens.update(dict(steps))

    def ask(self, now_s: float) -> None:
        """Look at everything at the next settling, instead of when it is due."""
        self._due_s = now_s

    def settle(self, records: Iterable[Record], registered: Sequence[Registration], now_s: float) -> None:
        """Renew what is measured of the records: files and memory at once, times and errors when they are due."""
        records = list(records)
        is_due = now_s >= self._due_s
        if is_due:
            self._forget(now_s)
        expected = _by_path(registered)
        for record in records:
            if is_due or record.checks is not None or record.has_process or record.spec is not None:
                record.checks = self._checked(record, expected, now_s, is_due=is_due)
        if is_due:
            self._due_s = now_s + HEALTH_INTERVAL_S
        self._is_running = any(record.state in _LOADED for record in records)

    def next_s(self) -> float | None:
        """Return when models are looked at next, while any runs."""
        return self._due_s if self._is_running else None

    def _slice(self, model: ModelId, now_s: float) -> _Slice:
        slices = self._slices.setdefault(model, deque())
        if not slices or slices[-1].until_s <= now_s:
            slices.append(_Slice(now_s + HEALTH_INTERVAL_S))
        return slices[-1]

    def _forget(self, now_s: float) -> None:
        for model, slices in list(self._slices.items()):
            while slices and slices[0].until_s <= now_s - HEALTH_WINDOW_S:
                slices.popleft()
            if not slices:
                del self._slices[model]

    def _checked(self, record: Record, registered: _ByPath, now_s: float, *, is_due: bool) -> HealthChecks:
        old = record.checks or HealthChecks()
        path = record.spec.path if record.spec is not None else ""
        integrity, reason = _integrity(record, registered.get(path, ()))
        memory = _allocation(record)
        if (integrity, reason, memory) != (old.file_integrity, old.reason, old.memory):
            old = replace(old, file_integrity=integrity, memory=memory, reason=reason)
        if not is_due and record.checks is not None:
            return old
        slices = self._slices.get(record.id, ())
        finished, failed = (sum(getattr(one, name) for one in slices) for name in ("finished", "failed"))
        times: Counter[int] = sum((one.first_tokens for one in slices), Counter())
        total = finished + failed
        return replace(
            old, response_time_s=percentile_s(times, _SHARE), checked_s=now_s,
            error_rate=round(failed / total, 4) if total >= HEALTH_LEAST_REQUESTS else None,
        )  # fmt: skip


def _by_path(registered: Iterable[Registration]) -> _ByPath:
    found: dict[str, list[Registration]] = {}
    for one in registered:
        found.setdefault(one.path, []).append(one)
    return found


def _integrity(record: Record, registered: Sequence[Registration]) -> tuple[Integrity, str]:
    """Return what is known of a record's file, and what is wrong with it."""
    spec, loaded = record.spec, record.plan.model if record.plan is not None else None
    if spec is None:
        return (Integrity.MISSING, "its file is gone") if loaded is not None else (Integrity.UNKNOWN, "")
    if spec.damage:
        return Integrity.FAILED, spec.damage
    if loaded is not None and _is_written_over(loaded, spec):
        return Integrity.FAILED, "its file was written to while an engine had it in memory; load it again"
    if spec.digest and registered and all(one.digest != spec.digest for one in registered):
        version = f"{registered[0].name} {registered[0].version}"
        return Integrity.FAILED, f"its file is not the one that was registered as {version}; register it again"
    return (Integrity.OK, "") if spec.digest else (Integrity.UNKNOWN, "")


def _is_written_over(loaded: ModelSpec, now: ModelSpec) -> bool:
    """Tell whether the very file that an engine has open has other content by now.

    A file that was put in its place is another one: the engine still has the old.
    """
    is_same_file = loaded.inode and loaded.inode == now.inode and loaded.path == now.path
    return bool(is_same_file and loaded.digest and now.digest and loaded.digest != now.digest)


def _allocation(record: Record) -> Allocation:
    if record.state in _LOADED:
        return Allocation.OK
    is_short = record.failure is not None and record.failure.fault is EngineFault.OUT_OF_MEMORY
    return Allocation.FAILED if is_short else Allocation.UNKNOWN


# -- reading ---------------------------------------------------------------------------------------------


def local_health(model: LocalModel) -> HealthState:
    """Return how a model of this node is."""
    if model.checks is not None and model.checks.is_broken:
        return HealthState.UNHEALTHY
    if model.state in _LOADED:
        return model.checks.verdict if model.checks is not None else HealthState.HEALTHY
    if model.state is EngineState.STARTING:
        return HealthState.LOADING
    if model.state in _DOWN or (model.failure is not None and model.failure.fault in _FILE_FAULTS):
        return HealthState.UNHEALTHY
    return HealthState.UNKNOWN


def remote_checks(served: ServedModel) -> HealthChecks | None:
    """Return what another node says that it measured of a model; None where it says nothing."""
    try:
        integrity, memory = Integrity(served.file_integrity), Allocation(served.memory)
    except ValueError:  # nothing, or a word of a later version
        return None
    return HealthChecks(
        file_integrity=integrity, memory=memory, response_time_s=served.response_time_s,
        error_rate=served.error_rate, reason=served.trouble,
    )  # fmt: skip


def remote_health(served: ServedModel) -> HealthState:
    """Return how a model of another node is, as that node says."""
    if served.state is ServingState.FAILED:
        return HealthState.UNHEALTHY
    if served.state not in (ServingState.READY, ServingState.DRAINING):
        return HealthState.LOADING
    try:
        return HealthState(served.health)
    except ValueError:  # a word of a later version
        return HealthState.DEGRADED
