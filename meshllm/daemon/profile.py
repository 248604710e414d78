"""What takes how long in this daemon, for those who asked for it at its start.

Owns the names of the phases. Decides nothing. Costs nothing where nobody asked: the loop then measures nothing.
"""

from meshllm.core.durations import Durations, Histogram
from meshllm.core.events import Event, TrafficMeasured
from meshllm.core.health import FIRST_TOKEN_STEPS_S

DECIDE, CARRY_OUT, FIRST_TOKEN = "decide", "carry_out", "first_token"


class Profile:
    """The durations of one daemon."""

    def __init__(self) -> None:
        """Start with nothing measured."""
        self._durations = Durations()

    def consumed(self, event: Event, decided_s: float, carried_s: float) -> None:
        """Count an event: how long the core took to decide, and the shells to begin what was decided."""
        name = type(event).__name__
        self._durations.add(DECIDE, name, decided_s)
        self._durations.add(CARRY_OUT, name, carried_s)
        if isinstance(event, TrafficMeasured):
            for model, steps in event.first_tokens:
                for step, count in steps:
                    self._durations.add(FIRST_TOKEN, model, FIRST_TOKEN_STEPS_S[step], count)

    def histograms(self) -> tuple[Histogram, ...]:
        """Return every phase: `decide` and `carry_out` by kind of event, `first_token` by model."""
        return self._durations.histograms()
