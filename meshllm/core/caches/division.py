"""One whole that is shared out among models, with the shares in force.

Owns the shares and when they were made. Decides when they are made anew: models or the choice differ, or time has
passed where shares go by use. Doesn't know what is shared out, nor what speaks for a model.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from meshllm.core.cache_config import AllocationStrategy, CacheConfig
from meshllm.core.cache_limits import CACHE_DIVIDE_S
from meshllm.core.caches.shares import Claim, divide, is_worth_it
from meshllm.core.ids import ModelId

_BY_USE = frozenset({AllocationStrategy.PROPORTIONAL, AllocationStrategy.DYNAMIC})
"""Strategies whose shares change while the models stay the same."""


@dataclass(slots=True)
class Division:
    """The shares of one whole."""

    shares: dict[ModelId, int] = field(default_factory=dict)
    """In force, in bytes; empty while nothing is shared out."""
    _made_s: float = float("-inf")
    _made_by: CacheConfig | None = None

    def renew(
        self, whole_bytes: int, config: CacheConfig, models: Collection[ModelId],
        claims: Callable[[], Iterable[Claim]], now_s: float,
    ) -> bool:  # fmt: skip
        """Share the whole out where that is due; tell whether the shares are others now."""
        if not whole_bytes:
            self.shares, self._made_by = {}, None
            return False
        is_due = config.allocation_strategy in _BY_USE and now_s >= self._made_s + CACHE_DIVIDE_S
        is_other = self._made_by != config or set(models) != self.shares.keys()
        if not (is_due or is_other):
            return False
        self._made_s, self._made_by = now_s, config
        old, found = self.shares, divide(whole_bytes, claims())
        if is_other or is_worth_it(old, found):
            self.shares = found
        return self.shares != old

    def next_s(self, config: CacheConfig) -> float | None:
        """Return when the use of models is looked at again; None where it does not matter."""
        matters = config.allocation_strategy in _BY_USE and len(self.shares) > 1
        return self._made_s + CACHE_DIVIDE_S if matters else None
