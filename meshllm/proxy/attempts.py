"""Where one request was, what came of it there, and what is counted of it now.

Owns its setbacks, losses and its place at a host. Decides nothing: `pursuit` and `ways` read it. Doesn't know
connections, nor what was answered.
"""

from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import ModelId
from meshllm.core.routing.attempts import Setback
from meshllm.proxy.openai import Problem
from meshllm.proxy.plan import Plan
from meshllm.proxy.pool import TunnelEnd
from meshllm.proxy.target import Target, Trip
from meshllm.proxy.tracing import Watch


class Attempts:
    """The attempts of one request: the part of an exchange that finding a way reads.

    Made for every request, so what only trouble needs is not set by then: it stands below, as defaults.
    """

    attempts = 0
    losses = 0
    """Engines that were lost while they worked on it."""
    trip: Trip | None = None
    failed_at: EngineEndpoint | TunnelEnd | None = None
    failures = 0
    """Losses in a row at `failed_at`."""
    waits: tuple[int, float] | None = None
    """How many engines it had lost when it began to wait, and until when it waits: another loss is another wait."""
    known_orders: dict[ModelId, int] | None = None
    """The newest order about each model that it waited for, when it began to: later ones are meant for it too."""
    wait_most_s: float | None = None
    """How long it may wait for its model; None for as long as any."""
    plan: Plan | None = None
    """In which order its hosts are tried, where it has several."""
    is_counted = False
    watch: Watch | None = None
    """Who hears of its steps, where anybody watches."""

    def __init__(self, target: Target) -> None:
        """Begin with a first target."""
        self.target = target
        self.traffic = target.traffic

    def go(self, target: Target) -> None:
        """Take a place at a host, before a connection to it is there."""
        self.target = target
        if self.plan is not None:
            self.plan.go(target.node)
        if self.watch is not None:
            self.watch.goes(target)

    def leave(self) -> None:
        """Give up the place at a host."""
        if self.plan is not None:
            self.plan.leave()
        if self.watch is not None:
            self.watch.comes_back(is_failure=True)

    def count(self) -> None:
        """Count the request in at its target, if it is not."""
        if not self.is_counted:
            self.is_counted = True
            self.traffic = self.target.traffic
            self.traffic.begin()
            if self.watch is not None:
                self.watch.goes(self.target)

    @property
    def setbacks(self) -> int:
        """Return on how many ways it did not get its answer."""
        return len(self.trip.trail.setbacks) if self.trip is not None else 0

    def note(self, setback: Setback, problem: Problem | None = None) -> None:
        """Remember that the target did not lead to an answer."""
        trip = self.trip = self.trip or Trip()
        trip.note(self.target, setback, problem)
        if self.plan is not None:
            self.plan.kept.came_back(self.target.node, setback)
        if self.watch is not None:
            self.watch.set_back(setback)

    def note_failure(self, *, was_stale: bool, is_known: bool = False) -> None:
        """Remember where the engine was lost. A stale connection is nobody's failure.

        It is an attempt all the same: an engine that dies of a request looks no different on a used connection.
        `is_known` is a loss of an engine that was counted as lost already: one that dies takes a moment to be gone.
        """
        if self.target.peer is not None:
            self.note(Setback.LOST)
            return
        self.losses += not is_known
        if was_stale:
            return
        if self.target.others:
            self.note(Setback.LOST)
        endpoint = self.target.pool.endpoint
        self.failures = self.failures + 1 if self.failed_at == endpoint else 1
        self.failed_at = endpoint

    def uncount(self, *, is_failure: bool) -> None:
        """Count the request out, and give up its place."""
        if self.is_counted:
            self.is_counted = False
            self.traffic.end(is_failure=is_failure)
            if self.watch is not None:
                self.watch.comes_back(is_failure=is_failure)
        self.leave()
