"""Which of several models a request gets, where models are compared.

Owns the turn of requests without a session. Decides by weight: by session, so that a conversation stays with its
variant at every entry node, else in an even sequence. Doesn't know what the models answer. Pure.
"""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

from meshllm.core.routing_config import Rollout, RoutingConfig

_STEP = (5.0**0.5 - 1.0) / 2.0
"""Steps of the golden ratio fill the circle evenly, so a share is kept within a few requests of thousands."""
_WHOLE = 2.0**64


def compared(config: RoutingConfig) -> tuple[tuple[str, float], ...]:
    """Return the models that are compared, with their weights: those of `variants`, else the two of a test."""
    if config.variants:
        return config.variants
    first, second = config.ab_test_model_a or "", config.ab_test_model_b or ""
    return ((first, config.ab_test_split), (second, 1.0 - config.ab_test_split))


def rolled_out(plan: Rollout, share: float) -> tuple[tuple[str, float], ...]:
    """Return the two models of a rollout with their weights; who got the new one at a smaller share keeps it."""
    return ((plan.of, 1.0 - share), (plan.to, share))


class Variants:
    """Shares out requests."""

    def __init__(self, rng: random.Random) -> None:
        """Begin anywhere on the circle."""
        self._at = rng.random()

    def order(self, weights: Sequence[tuple[str, float]], session: str = "") -> tuple[str, ...]:
        """Return variants: the one that a request gets first, then those that stand in for it, in turn.

        It is the same for all requests of a session. Weights that are all 0 are all alike.
        """
        even = 0.0 if any(weight > 0 for _, weight in weights) else 1.0
        ends = list(accumulate(weight or even for _, weight in weights))
        first = bisect_right(ends, self._draw(session) * ends[-1])
        first = min(first, bisect_left(ends, ends[-1]))  # of a draw just below 1, and sums that are not exact
        return tuple(name for name, _ in (*weights[first:], *weights[:first]))

    def _draw(self, session: str) -> float:
        """Return a number from 0 to 1."""
        if session:
            draw = blake2b(session.encode("utf-8", "surrogatepass"), digest_size=8, person=b"variant").digest()
            return int.from_bytes(draw, "big") / _WHOLE
        self._at = (self._at + _STEP) % 1.0
        return self._at
