"""The kinds of limits, what is asked of them, and how they answer.

Owns the values between a ledger and whoever asks it. Decides how near to a limit is how serious. Doesn't count. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum

from meshllm.core import limits
from meshllm.core.effects import Level
from meshllm.core.ids import ModelId
from meshllm.core.quota_config import Quotas
from meshllm.core.routing.priorities import Priority

FULL = 100.0


class Kind(StrEnum):
    """What is limited."""

    HOURLY_TOKENS = "hourly_tokens"
    HOURLY_REQUESTS = "hourly_requests"
    DAILY_TOKENS = "daily_tokens"
    DAILY_REQUESTS = "daily_requests"
    CONCURRENT = "concurrent"
    BURST = "burst"
    EMERGENCY = "emergency"
    RATE = "rate"


WINDOWED = (Kind.HOURLY_TOKENS, Kind.HOURLY_REQUESTS, Kind.DAILY_TOKENS, Kind.DAILY_REQUESTS)
OF_HOUR = frozenset({Kind.HOURLY_TOKENS, Kind.HOURLY_REQUESTS})
OF_TOKENS = frozenset({Kind.HOURLY_TOKENS, Kind.DAILY_TOKENS})
_FIELDS = {
    Kind.HOURLY_TOKENS: "hourly_token_limit", Kind.HOURLY_REQUESTS: "hourly_request_limit",
    Kind.DAILY_TOKENS: "daily_token_limit", Kind.DAILY_REQUESTS: "daily_request_limit",
    Kind.CONCURRENT: "max_concurrent_requests", Kind.BURST: "burst_token_limit",
}  # fmt: skip


class Mode(StrEnum):
    """How near a model is to its limits."""

    NORMAL = "normal"
    SOFT_LIMIT = "soft_limit"
    THROTTLED = "throttled"
    HARD_LIMIT = "hard_limit"
    EMERGENCY = "emergency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request would take."""

    prompt_tokens: int = 0
    """As far as can be told before its engine has counted."""
    answer_tokens: int | None = 0
    """The most that it may be answered with; None where it sets no limit."""
    most_answer_tokens: int = limits.QUOTA_ANSWER_TOKENS
    """What its engine would say at most."""
    choices: int = 1
    """Answers that it asks for; the number above is for each."""
    priority: Priority = Priority.NORMAL
    is_crowded: bool = False
    """Far more requests than its engine can bear are before it."""


@dataclass(slots=True)
class Charge:
    """What one request has reserved, until it is settled."""

    model: ModelId
    tokens: int
    hour_unix_s: int
    day_unix_s: int
    is_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """It may run."""

    charge: Charge
    answer_tokens: int | None = None
    """What each of its answers may have at most, where it set no limit itself and one is needed."""
    delay_s: float = 0.0
    """For so long it has to wait first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """It may not, or not now."""

    kind: Kind
    message: str
    retry_after_s: int
    """When it may be better; 0 where it never is."""
    may_queue: bool = False
    """It may wait for that."""


def limit_of(quotas: Quotas, kind: Kind) -> int:
    """Return the limit of one kind; 0 for none."""
    field = _FIELDS.get(kind)
    return getattr(quotas, field) if field is not None else 0


def mode_of(percent: float, levels: tuple[float, ...]) -> Mode:
    """Return how serious a percentage is."""
    noted, _, throttled, _ = levels
    if percent >= FULL:
        return Mode.HARD_LIMIT
    if percent >= throttled:
        return Mode.THROTTLED
    return Mode.SOFT_LIMIT if percent >= noted else Mode.NORMAL


def crossed(percent: float, levels: tuple[float, ...]) -> int:
    """Return how many levels are reached, the full limit being the last."""
    return sum(percent >= level for level in (*levels, FULL))


def severity(level: int) -> Level:
    """Return how much people should care about the level of that number, from 1."""
    return (Level.INFO, Level.WARNING, Level.WARNING, Level.ERROR, Level.ERROR)[level - 1]


def delay_s(percent: float, levels: tuple[float, ...]) -> float:
    """Return for how long a request waits so near to a limit: more with each percent, up to a bound."""
    throttled, hard = levels[2:]
    if percent >= hard:
        return min(10 * limits.QUOTA_THROTTLE_BASE_S * (1 + percent - hard), limits.QUOTA_THROTTLE_HARD_MOST_S)
    if percent >= throttled:
        return min(limits.QUOTA_THROTTLE_BASE_S * (1 + percent - throttled), limits.QUOTA_THROTTLE_MOST_S)
    return 0.0
