"""How many requests were answered over HTTP, how, and how long that took.

Owns the counts by method, path, model and status, and the times by path and model. Decides how many names of models are
told apart. Doesn't know clocks nor connections: who measures says how long it was.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from meshllm.core import limits

EDGES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper ends of the steps that times are counted in; what takes longer has a step of its own."""
UNKNOWN_MODEL = "unknown"
"""Of a request for a name that nothing has: whatever clients make up is one name here."""
Labels = tuple[str, str, str, int]
"""Method, path, model, status."""


class Timing:
    """How long something took, in steps."""

    __slots__ = ("_counts", "sum_s")

    def __init__(self) -> None:
        """Start with nothing."""
        self._counts = [0] * (len(EDGES_S) + 1)
        self.sum_s = 0.0

    def add(self, took_s: float) -> None:
        """Count one time."""
        self._counts[bisect_left(EDGES_S, took_s)] += 1
        self.sum_s += took_s

    @property
    def steps(self) -> tuple[tuple[float, int], ...]:
        """Return how many took up to so many seconds, up to infinity."""
        return tuple(zip((*EDGES_S, inf), accumulate(self._counts), strict=True))


@dataclass(frozen=True, slots=True)
class HttpReport:
    """What is known of the answers of one front door."""

    requests: Mapping[Labels, int]
    durations: Mapping[tuple[str, str], Timing]
    """By path and model."""
    first_tokens: Mapping[str, Mapping[int, int]]
    """By model: how many streams began in which step of `core.health`."""
    between_tokens: Mapping[str, Timing]
    """By model."""


class HttpNumbers:
    """The numbers of one front door."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._requests: Counter[Labels] = Counter()
        self._models: set[str] = {"", UNKNOWN_MODEL}
        self.durations: dict[tuple[str, str], Timing] = {}
        """By path and model: until the answer was complete."""
        self.between_tokens: dict[str, Timing] = {}
        """By model: between two events of a stream, as the mean of each stream."""

    def answered(self, method: str, path: str, model: str, status: int, took_s: float | None = None) -> None:
        """Count an answer, and how long it took where that is known."""
        model = self._named(model)
        self._requests[method, path, model, status] += 1
        if took_s is not None:
            self.durations.setdefault((path, model), Timing()).add(took_s)

    def streamed(self, model: str, took_s: float, events: int) -> None:
        """Count a stream: how long it took once it had begun, and how many events it had."""
        if events > 1:
            self.between_tokens.setdefault(self._named(model), Timing()).add(took_s / (events - 1))

    def report(self, others: Iterable[tuple[Labels, int]], first_tokens: Mapping[str, Mapping[int, int]]) -> HttpReport:
        """Return the numbers, with requests and beginnings of streams that were counted elsewhere."""
        counts = self._requests.copy()
        for labels, count in others:
            if count:
                counts[labels] += count
        return HttpReport(counts, self.durations, first_tokens, self.between_tokens)

    def _named(self, model: str) -> str:
        """Return under which name a model is counted: too many share one."""
        if model not in self._models:
            if len(self._models) >= limits.ROUTING_NAMES_COUNTED:
                return UNKNOWN_MODEL
            self._models.add(model)
        return model
