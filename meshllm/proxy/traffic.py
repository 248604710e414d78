"""What passes through the front door, counted: by model for the core, in total for metrics.

Owns the numbers. Decides when an engine has room for one more request. Doesn't know bytes' meaning.
"""

import asyncio
from time import monotonic

from meshllm.core import limits
from meshllm.core.events import TrafficMeasured
from meshllm.core.ids import ModelId

STATUS_CLASSES = range(1, 6)
"""First digits that HTTP gives a status; an engine's odd one is counted as a request alone."""


class ModelTraffic:
    """The requests at one model's engine. Plain fields: they change with every request."""

    __slots__ = ("failed_since", "finished_since", "in_flight", "last_progress_s", "model", "waiters")

    def __init__(self, model: ModelId) -> None:
        """Start with nothing."""
        self.model = model
        self.in_flight = 0
        self.finished_since = 0
        """Requests that ended well since the last report; likewise the failed ones."""
        self.failed_since = 0
        self.last_progress_s = 0.0
        """Monotonic time of the last byte from the engine, or of the first request after a rest."""
        self.waiters: list[asyncio.Event] = []
        """Set and forgotten whenever a request ends."""

    def begin(self) -> None:
        """Count a request in."""
        if self.in_flight == 0:
            self.last_progress_s = monotonic()
        self.in_flight += 1

    def end(self, *, is_failure: bool) -> None:
        """Count a request out."""
        self.in_flight -= 1
        if is_failure:
            self.failed_since += 1
        else:
            self.finished_since += 1
        if self.waiters:
            self.wake()

    def wake(self) -> None:
        """Wake whoever waits for a request to end."""
        waiters, self.waiters = self.waiters, []
        for event in waiters:
            event.set()

    async def one_ended(self) -> None:
        """Return when a request ended. The caller sets the deadline."""
        event = asyncio.Event()
        self.waiters.append(event)
        await event.wait()


def admitted(slots: int) -> int:
    """Return how many requests may be in flight at an engine: those computed and those queued.

    Two for each slot, but never fewer than `ENGINE_QUEUE_REQUESTS`: a queue costs a client only time,
    a refusal costs it the answer, and the engine queues more cheaply than clients retry.
    """
    return slots + max(limits.ENGINE_QUEUE_REQUESTS, slots * limits.HOST_QUEUE_PER_SLOT)


class Traffic:
    """All counters of one front door."""

    __slots__ = ("aborted", "by_status", "bytes_in", "bytes_out", "lost", "models", "refused", "retries", "waiting")

    def __init__(self) -> None:
        """Start at zero."""
        self.models: dict[ModelId, ModelTraffic] = {}
        self.by_status = [0] * 10
        """Answers by the first digit of their status."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.refused = 0
        """Connections for which there was no room."""
        self.retries = 0
        self.aborted = 0
        """Requests whose client left before the end of the answer."""
        self.lost = 0
        """Answers that broke off because their engine was lost."""
        self.waiting = 0
        """Requests that wait for a model; the one number here that falls."""

    def of(self, model: ModelId) -> ModelTraffic:
        """Return the traffic of a model."""
        traffic = self.models.get(model)
        if traffic is None:
            traffic = self.models[model] = ModelTraffic(model)
        return traffic

    @property
    def in_flight(self) -> int:
        """Return the requests at all engines together."""
        return sum(model.in_flight for model in self.models.values())

    def counters(self) -> dict[str, float]:
        """Return the totals by name; each only ever grows."""
        answers: dict[str, float] = {f"answers_{number}xx": self.by_status[number] for number in STATUS_CLASSES}
        return answers | {
            "requests": sum(self.by_status), "bytes_in": self.bytes_in, "bytes_out": self.bytes_out,
            "connections_refused": self.refused, "retries": self.retries, "clients_gone": self.aborted,
            "streams_lost": self.lost,
        }  # fmt: skip

    def measured(self) -> TrafficMeasured | None:
        """Return the requests that ended since the last call, or None if none did."""
        finished, failed = [], []
        for traffic in self.models.values():
            if traffic.finished_since:
                finished.append((traffic.model, traffic.finished_since))
            if traffic.failed_since:
                failed.append((traffic.model, traffic.failed_since))
            traffic.finished_since = traffic.failed_since = 0
        if not finished and not failed:
            return None
        return TrafficMeasured(finished=tuple(finished), failed=tuple(failed))
