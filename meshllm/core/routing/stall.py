"""When an engine that answers its port no longer does its work: `observe` over samples, pure.

Owns the meaning of progress (a slot's counters moved; where those cannot be read, bytes came) and the
two budgets: a short one for silence without processor time, a long one for silence with it. Doesn't know
how samples are taken, nor what is done about a hung engine: that is the core's.

An engine's keep-alive comments never count: they are bytes, and bytes only count while slots are unread.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from meshllm.core import limits

BUSY_SHARE = 0.05
"""Of one core: below it an engine is idle. A waiting llama.cpp takes 0, a computing one at least 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StallSample:
    """What is seen of an engine at one moment. Times are monotonic."""

    at_s: float
    in_flight: int
    """Requests that the front door has given to the engine and that are not answered."""
    progress: Hashable | None = None
    """The counters of all slots; None where the engine did not tell."""
    busy_slots: int | None = None
    """Slots that compute; None where the engine did not tell."""
    last_byte_s: float = 0.0
    """When the last byte came from it."""
    cpu_s: float | None = None
    """Processor time it has taken so far; None where the system does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StallBudget:
    """How long nothing may move, in seconds."""

    idle_s: float = limits.ENGINE_STALL_S
    """Without processor time."""
    busy_s: float = limits.ENGINE_BUSY_STALL_S
    """With processor time: a long prompt on a slow machine moves no counter for a while."""
    gap_s: float = 2 * (limits.ENGINE_PROBE_INTERVAL_S + limits.ENGINE_PROBE_TIMEOUT_S)
    """Samples that lie further apart mean that the machine slept: all that was timed is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StallClock:
    """What is remembered between samples."""

    last: StallSample
    progress: Hashable | None
    """The last counters that could be read."""
    moved_s: float
    """When something last moved, or had no reason to."""
    burned_s: float
    """When it last moved or took processor time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hung:
    """Work is in flight and nothing moves any more."""

    reason: str


def start_clock(sample: StallSample) -> StallClock:
    """Return a clock that has seen one sample: nothing is late yet."""
    return StallClock(last=sample, progress=sample.progress, moved_s=sample.at_s, burned_s=sample.at_s)


def observe(clock: StallClock, sample: StallSample, budget: StallBudget) -> tuple[StallClock, Hung | None]:
    """Return the clock after one more sample, and why the engine is hung if it is."""
    moved = _has_moved(clock, sample, budget)
    moved_s = sample.at_s if moved else clock.moved_s
    burned_s = sample.at_s if moved or _has_burned(clock.last, sample) else clock.burned_s
    progress = clock.progress if sample.progress is None else sample.progress
    after = StallClock(last=sample, progress=progress, moved_s=moved_s, burned_s=burned_s)
    if sample.at_s - burned_s >= budget.idle_s:
        return after, Hung(reason=_reason(sample, sample.at_s - moved_s, "and it takes no processor time"))
    if sample.at_s - moved_s >= budget.busy_s:
        return after, Hung(reason=_reason(sample, sample.at_s - moved_s, "although it is busy"))
    return after, None


def _has_moved(clock: StallClock, sample: StallSample, budget: StallBudget) -> bool:
    """Tell whether an engine went on since the last sample, or had nothing to go on with."""
    if sample.in_flight == 0 or clock.last.in_flight == 0:
        return True
    if sample.at_s - clock.last.at_s > budget.gap_s:
        return True
    if sample.busy_slots == 0:
        return True  # it waits for a client that reads slowly, or for the request's body
    if sample.progress is not None:
        return sample.progress != clock.progress
    return clock.progress is None and sample.last_byte_s > clock.last.last_byte_s


def _has_burned(last: StallSample, sample: StallSample) -> bool:
    """Tell whether an engine took processor time between two samples. Not to know is to believe so."""
    if sample.cpu_s is None or last.cpu_s is None:
        return True
    return sample.cpu_s - last.cpu_s >= BUSY_SHARE * (sample.at_s - last.at_s)


def _reason(sample: StallSample, silent_s: float, aside: str) -> str:
    requests = "1 request is" if sample.in_flight == 1 else f"{sample.in_flight} requests are"
    return f"{requests} in flight and nothing has moved for {silent_s:.0f} s, {aside}"
