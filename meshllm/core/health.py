"""What is measured of a model on one node, and what that makes of it.

Owns the shapes and the one rule from measurements to a verdict. Measures nothing and remembers nothing:
`serving.health` does. Times to a first token are told in steps, so that many fit into a few numbers and
those of several moments can be added up.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

RESPONSE_TIME_MOST_S = 5.0
"""To the first token, for 95 of 100 requests; above it a model is degraded."""
ERROR_RATE_MOST = 0.01
"""Share of requests that failed, from which on a model is degraded."""
_STEP = 1.25
FIRST_TOKEN_STEPS_S = tuple(round(RESPONSE_TIME_MOST_S * _STEP**power, 4) for power in range(-28, 15))
"""Upper ends of the steps, from 10 ms to 2 minutes; the limit above is one of them, so it is judged exactly."""


class HealthState(StrEnum):
    """How a model is; independent of whether it is loaded."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """It works, less well than it should: asked after the others."""
    UNHEALTHY = "unhealthy"
    """Nothing is sent to it."""
    LOADING = "loading"


class Integrity(StrEnum):
    """What is known of a model's file."""

    UNKNOWN = "unknown"
    """It is being hashed."""
    OK = "ok"
    MISSING = "missing"
    """An engine still has what was in it."""
    FAILED = "failed"


class Allocation(StrEnum):
    """Whether an engine got the memory that it needs."""

    UNKNOWN = "unknown"
    OK = "ok"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChecks:
    """What was measured of one model on this node."""

    file_integrity: Integrity = Integrity.UNKNOWN
    memory: Allocation = Allocation.UNKNOWN
    response_time_s: float | None = None
    """To the first token of a stream, for 95 of 100 requests of the last minutes; None without any."""
    error_rate: float | None = None
    """Share of the requests of the last minutes that failed; None where there were too few to tell."""
    reason: str = ""
    """What is wrong, in words."""
    checked_s: float = 0.0
    """When, on the core's clock."""

    @property
    def facts(self) -> dict[str, str | float | None]:
        """Return the measurements by the names that people see."""
        return {
            "file_integrity": str(self.file_integrity), "memory": str(self.memory),
            "response_time_s": self.response_time_s, "error_rate": self.error_rate,
        }  # fmt: skip

    @property
    def is_broken(self) -> bool:
        """Tell whether an engine's answers cannot be relied on, however well it runs."""
        return self.file_integrity is Integrity.FAILED

    @property
    def verdict(self) -> HealthState:
        """Return what the measurements make of a model whose engine runs."""
        if self.is_broken:
            return HealthState.UNHEALTHY
        is_slow = self.response_time_s is not None and self.response_time_s > RESPONSE_TIME_MOST_S
        is_failing = self.error_rate is not None and self.error_rate >= ERROR_RATE_MOST
        is_short = self.file_integrity is Integrity.MISSING or self.memory is Allocation.FAILED
        return HealthState.DEGRADED if is_slow or is_failing or is_short else HealthState.HEALTHY


def first_token_step(took_s: float) -> int:
    """Return the number of the step that a time falls into; the last one takes all that are longer."""
    return min(bisect_left(FIRST_TOKEN_STEPS_S, took_s), len(FIRST_TOKEN_STEPS_S) - 1)


def percentile_s(counts: Mapping[int, int], share: float) -> float | None:
    """Return the time within which this share of requests began to be answered: the upper end of its step."""
    total = sum(counts.values())
    if not total:
        return None
    passed = 0
    for step in sorted(counts):
        passed += counts[step]
        if passed >= share * total:
            return FIRST_TOKEN_STEPS_S[step]
    return FIRST_TOKEN_STEPS_S[-1]  # not reached for a share up to 1
