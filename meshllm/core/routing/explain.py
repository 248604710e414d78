"""Why requests went where they went: the last thousand decisions, with what spoke for and against each candidate.

Owns the ring of decisions and its documents. Decides nothing. Doesn't know HTTP; times are measured by whoever asked.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from meshllm.core import limits
from meshllm.core.ids import ModelId
from meshllm.core.routing.ratings import Rating
from meshllm.core.routing.strategies import Rejected
from meshllm.core.routing_config import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One choice among candidates. The order is the one in which they are tried."""

    request_id: str
    model: ModelId
    """Whose host was chosen; empty where the model itself was."""
    at_s: float
    strategy: Strategy
    """What was configured or asked for."""
    reason: str
    """The rule that decided: the strategy, or the one that it falls back to."""
    ratings: tuple[Rating, ...]
    """Best first."""
    rejected: tuple[Rejected, ...] = ()
    is_rebound: bool = False
    """The session was elsewhere before."""

    @property
    def picked(self) -> str:
        """Return the name of the best candidate; empty without any."""
        return self.ratings[0].name if self.ratings else ""


@dataclass(slots=True)
class Attempt:
    """One host that a request was sent to."""

    node: str
    after_s: float
    """Since the decision, in seconds."""
    setback: str = ""
    """Why it did not lead to an answer; empty for one that did, or may yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much an answer was, by its own account."""

    prompt_tokens: int
    """All of them, cached ones too."""
    cached_tokens: int
    made_tokens: int
    wrote_s: float
    """How long it was made; 0 where nobody knows."""

    def shown(self) -> dict[str, object]:
        """Return it as a document."""
        pace = self.made_tokens / self.wrote_s if self.wrote_s > 0 else None
        return {
            "prompt_tokens": self.prompt_tokens, "cached_tokens": self.cached_tokens,
            "completion_tokens": self.made_tokens, "tokens_per_s": None if pace is None else round(pace, 2),
        }  # fmt: skip


@dataclass(slots=True)
class Kept:
    """A decision, and what came of it."""

    decision: Decision
    took_s: float
    went: str = ""
    """Where the request was answered in the end."""
    is_ok: bool | None = None
    first_byte_s: float | None = None
    attempts: list[Attempt] = field(default_factory=list)
    """In their order, the first so many."""
    amount: Amount | None = None
    """What the answer said of itself, once it was complete."""

    def sent(self, node: str, after_s: float) -> None:
        """Note that the request was sent to a host, so many seconds after the decision."""
        if len(self.attempts) < limits.ATTEMPTS_SHOWN:
            self.attempts.append(Attempt(node, after_s))

    def came_back(self, node: str, setback: str) -> None:
        """Note why a host did not answer it."""
        if self.attempts and self.attempts[-1].node == node:
            self.attempts[-1].setback = setback


class Decisions:
    """The newest decisions."""

    def __init__(self, most: int = limits.DECISIONS_KEPT) -> None:
        """Start with none."""
        self._kept: deque[Kept] = deque(maxlen=most)

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._kept)

    def add(self, decision: Decision, took_s: float) -> Kept:
        """Keep a decision that took so long; what comes of it is written into the answer."""
        kept = Kept(decision, took_s)
        self._kept.append(kept)
        return kept

    def newest(self, model: ModelId | None = None, most: int = limits.DECISIONS_KEPT) -> Iterator[Kept]:
        """Return decisions, the newest first, about one model or all."""
        for kept in reversed(self._kept):
            if most <= 0:
                return
            if model is None or kept.decision.model == model:
                most -= 1
                yield kept


def shown(kept: Kept) -> dict[str, object]:
    """Return a decision as the document of `GET /api/explain`."""
    decision = kept.decision
    return {
        "request_id": decision.request_id, "model_id": decision.model, "at_s": round(decision.at_s, 3),
        "strategy": decision.strategy, "reason": decision.reason, "picked": decision.picked,
        "rebound": decision.is_rebound, "routing_time_us": round(kept.took_s * 1e6, 1),
        "candidates": [shown_rating(rating) for rating in decision.ratings],
        "rejected": [{"candidate": one.name, "why": one.why} for one in decision.rejected],
        "went": kept.went or None, "ok": kept.is_ok, "first_byte_s": _rounded(kept.first_byte_s),
        "attempts": [
            {"candidate": one.node, "after_s": round(max(one.after_s, 0.0), 4), "setback": one.setback or None}
            for one in kept.attempts
        ],
        "usage": None if kept.amount is None else kept.amount.shown(),
    }  # fmt: skip


def shown_rating(rating: Rating) -> dict[str, object]:
    """Return what was found of a candidate as a document."""
    return {
        "candidate": rating.name, "score": round(rating.score, 4), "load": round(rating.load, 3),
        "cache_hit": round(rating.hit_share, 3), "predicted_first_token_s": round(rating.predicted_s, 4),
        "queue_wait_s": round(rating.wait_s, 4), "first_byte_s": _rounded(rating.first_byte_s),
        "recent": round(rating.recent, 2), "over_share": rating.is_over, "suspect": rating.candidate.is_suspect,
        "here": rating.candidate.is_here, "health": rating.candidate.health,
    }  # fmt: skip


def _rounded(value_s: float | None) -> float | None:
    return None if value_s is None else round(value_s, 4)
