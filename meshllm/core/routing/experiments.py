"""What came of requests whose model was one of several that are compared: the figures of each variant.

Owns the sums. Decides nothing: people compare them, and so does a rollout. Doesn't know why a request got its variant,
nor the time; how long things took is told.
"""

from dataclasses import dataclass, fields

from meshllm.core import limits
from meshllm.core.ids import ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One request that is over."""

    is_ok: bool
    took_s: float
    first_byte_s: float | None = None
    """None where nothing was answered."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's."""
    made_tokens: int = 0


@dataclass(slots=True)
class Figures:
    """The sums of one variant."""

    requests: int = 0
    errors: int = 0
    first_bytes: int = 0
    first_byte_s: float = 0.0
    """Of all first bytes together."""
    took_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    made_tokens: int = 0

    def add(self, trial: Trial) -> None:
        """Count a request."""
        self.requests += 1
        self.errors += not trial.is_ok
        self.took_s += trial.took_s
        if trial.first_byte_s is not None:
            self.first_bytes += 1
            self.first_byte_s += trial.first_byte_s
        self.prompt_tokens += trial.prompt_tokens
        self.cached_tokens += trial.cached_tokens
        self.made_tokens += trial.made_tokens

    def since(self, before: "Figures") -> "Figures":
        """Return what came after other, older figures of the same variant."""
        return Figures(**{one.name: getattr(self, one.name) - getattr(before, one.name) for one in fields(self)})

    @property
    def error_share(self) -> float:
        """Return which part of the requests failed."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def mean_first_byte_s(self) -> float | None:
        """Return how soon answers began; None without any."""
        return self.first_byte_s / self.first_bytes if self.first_bytes else None

    def shown(self) -> dict[str, object]:
        """Return the figures as a document."""
        first_byte_s = self.mean_first_byte_s
        return {
            "requests": self.requests, "errors": self.errors, "error_rate": round(self.error_share, 4),
            "avg_first_byte_ms": None if first_byte_s is None else round(first_byte_s * 1000, 2),
            "avg_latency_ms": round(self.took_s / self.requests * 1000, 2) if self.requests else None,
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.made_tokens,
            "cache_hit_rate": round(self.cached_tokens / self.prompt_tokens, 4) if self.prompt_tokens else None,
        }  # fmt: skip


class Trials:
    """The figures of all variants since the start."""

    def __init__(self) -> None:
        """Start with none."""
        self._figures: dict[ModelId, Figures] = {}

    def ended(self, model: ModelId, trial: Trial) -> None:
        """Count a request that got a variant; of models beyond a limit nothing is kept."""
        if model not in self._figures and len(self._figures) >= limits.ROUTING_WEIGHTS:
            return
        self._figures.setdefault(model, Figures()).add(trial)

    def of(self, model: ModelId) -> Figures:
        """Return the figures of a variant as they are now."""
        found = self._figures.get(model)
        return Figures() if found is None else found.since(Figures())

    def shown(self) -> dict[str, object]:
        """Return the figures of every variant as a document."""
        return {model: found.shown() for model, found in sorted(self._figures.items())}
