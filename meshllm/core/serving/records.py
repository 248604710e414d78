"""One model as the life cycle keeps it: the working state behind `view.LocalModel`.

Owns the fields and their invariants; every change of `state` goes through the table in `engine_state`.
Decides nothing about other models. Only `lifecycle` writes here.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from meshllm.core.catalog import ModelReference, ModelSpec
from meshllm.core.engines import EngineEndpoint, EngineFailure, EnginePlan, EngineState
from meshllm.core.health import HealthChecks
from meshllm.core.ids import ModelId
from meshllm.core.limits import (
    ENGINE_BACKOFF_FIRST_S,
    ENGINE_BACKOFF_MAX_S,
    ENGINE_FAILURE_WINDOW_S,
)
from meshllm.core.serving.engine_state import HAS_PROCESS, Signal, next_state
from meshllm.core.serving.splits.plan import SplitPlan
from meshllm.core.view import LoadProgress, LocalModel, Reason


@dataclass(slots=True, kw_only=True)
class Record:
    """Everything that the node knows and intends about one model."""

    id: ModelId
    spec: ModelSpec | None = None
    """Its file on disk, as it was last seen; None without one."""
    state: EngineState = EngineState.STOPPED
    wanted: bool = False
    is_lazy: bool = False
    """Not asked for at the start, or by an order not carried out yet: forgotten when there is no room."""
    is_assigned: bool = False
    """The node gave it to itself, for the mesh or for a request: it yields, and makes room unasked."""
    reason: Reason | None = None
    """Why it was wanted last."""
    why: str = ""
    """The same in words, where the node gave it to itself."""
    starts_at_s: float | None = None
    """Claimed, and not to be started before this."""
    withdrawn: bool = False
    """Somebody unloaded it here: only a request or another order brings it back."""
    rests: bool = False
    """It was unloaded because nobody used it: only a request or an order brings it back."""
    in_flight: int = 0
    """Requests at its engine, as last reported."""
    source: ModelReference | None = None
    """Where its file was fetched from, kept when it is here."""
    held: bool = False
    dropped: bool = False
    pin: bool | None = None
    """Whether somebody ordered that it stays in memory; None: as the configuration says."""
    order: int = 0
    """Version of the newest order about it that whoever wanted it knew: only newer ones end that wish."""
    waiting: str = ""
    reference: ModelReference | None = None
    """Where its file comes from, while it is not on disk."""
    asked_as: str = ""
    """The name that led to its download; it stays an alias."""
    is_downloading: bool = False
    progress: LoadProgress | None = None
    endpoint: EngineEndpoint | None = None
    plan: EnginePlan | None = None
    split: SplitPlan | None = None
    """With whom it is shared, or is about to be."""
    is_replanned: bool = False
    """It was shared until a moment ago, and will be again in a moment: who asks for it waits."""
    failure: EngineFailure | None = None
    retry_at_s: float | None = None
    pid: int | None = None
    context_tokens: int = 0
    slots: int = 0
    load_s: float = 0.0
    ready_since_s: float | None = None
    restarts: int = 0
    requests: int = 0
    last_used_s: float | None = None
    checks: HealthChecks | None = None
    """What `health` measured of it."""
    is_measured: bool = False
    """The machine's free memory was measured after this engine became ready."""
    shrink: int = 0
    """How often its context and slots were halved because it ran out of memory."""
    failures_s: deque[float] = field(default_factory=deque)
    """When it failed, within the window; what the back-off grows with."""
    load_failures: int = 0
    """Loads in a row that did not make it ready."""
    load_waiters: list[str] = field(default_factory=list)
    """Request ids of intents that are answered when it is ready, or cannot be."""
    stop_waiters: list[str] = field(default_factory=list)
    """Request ids of intents that are answered when its process is gone."""
    pull_waiters: list[str] = field(default_factory=list)
    """Request ids of intents that are answered when its file is complete."""

    @property
    def has_process(self) -> bool:
        """Tell whether a child process may exist for it."""
        return self.state in HAS_PROCESS

    @property
    def is_served(self) -> bool:
        """Tell whether this node serves it or is about to."""
        return self.wanted or self.has_process or self.state is EngineState.BACKING_OFF

    @property
    def served_spec(self) -> ModelSpec | None:
        """Return what is in memory, else what is on disk: an engine keeps the file that it was started with."""
        return self.plan.model if self.plan is not None else self.spec

    def take_file(self, spec: ModelSpec) -> None:
        """Take what is on disk; another file than before gets a fresh start, at the next load."""
        if self.spec is None or self.spec.version != spec.version:
            self.forgive()
        self.spec = spec
        if self.plan is not None and self.plan.model.version == spec.version:
            # The same file, hashed by now.
            self.plan = replace(self.plan, model=replace(self.plan.model, digest=spec.digest))

    def signal(self, signal: Signal) -> None:
        """Move to the next state of the table. Raises IllegalTransitionError."""
        self.state = next_state(self.state, signal)
        if self.state not in (EngineState.READY, EngineState.DRAINING):
            self.endpoint, self.ready_since_s, self.is_measured = None, None, False
        if not self.has_process:
            self.pid, self.plan, self.context_tokens, self.slots = None, None, 0, 0
        if self.state is not EngineState.STARTING and not self.is_downloading:
            self.progress = None
        if self.state is not EngineState.BACKING_OFF:
            self.retry_at_s = None

    def note_failure(self, failure: EngineFailure, now_s: float) -> float:
        """Remember a failure; return the delay before the next try, in seconds.

        Delays double from `ENGINE_BACKOFF_FIRST_S` to `ENGINE_BACKOFF_MAX_S` with the failures inside
        the window, so an engine that runs for long between crashes starts again at the shortest.
        """
        self.failure = failure
        self.failures_s.append(now_s)
        while self.failures_s[0] < now_s - ENGINE_FAILURE_WINDOW_S:
            self.failures_s.popleft()
        return float(min(ENGINE_BACKOFF_FIRST_S * 2 ** (len(self.failures_s) - 1), ENGINE_BACKOFF_MAX_S))

    def forgive(self) -> None:
        """Forget past failures: the file, the build or somebody's mind changed."""
        self.failure, self.shrink, self.load_failures = None, 0, 0
        self.failures_s.clear()
        if self.state is EngineState.FAILED:
            self.signal(Signal.STOP_ASKED)

    def snapshot(self) -> LocalModel:
        """Return what everybody else may see of it."""
        return LocalModel(
            id=self.id, spec=self.served_spec, on_disk=self.spec, state=self.state, wanted=self.wanted,
            held=self.held, dropped=self.dropped, pin=self.pin, waiting=self.waiting, progress=self.progress,
            endpoint=self.endpoint, plan=self.plan, failure=self.failure, retry_at_s=self.retry_at_s, pid=self.pid,
            context_tokens=self.context_tokens, slots=self.slots, load_s=self.load_s,
            ready_since_s=self.ready_since_s, restarts=self.restarts, requests=self.requests,
            last_used_s=self.last_used_s, reason=self.reason if self.is_served else None,
            why=self.why if self.is_served else "", checks=self.checks,
            shared=None if self.split is None else self.split.told,
        )  # fmt: skip
