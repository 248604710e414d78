"""Which of two models a request gets, where two are compared.

Owns the turn of requests without a session. Decides by session, so that a conversation stays with its variant, else in
an even sequence. Doesn't know what the models answer. Pure.
"""

import random
from hashlib import blake2b

_STEP = (5.0**0.5 - 1.0) / 2.0
"""Steps of the golden ratio fill the circle evenly, so a share is kept within a few requests of thousands."""
_WHOLE = 2.0**64


class Variants:
    """Shares out requests."""

    def __init__(self, rng: random.Random) -> None:
        """Begin anywhere on the circle."""
        self._at = rng.random()

    def is_first(self, share: float, session: str = "") -> bool:
        """Tell whether a request gets the first model, which gets that share of all; the same for all of a session."""
        if session:
            draw = blake2b(session.encode("utf-8", "surrogatepass"), digest_size=8, person=b"variant").digest()
            return int.from_bytes(draw, "big") / _WHOLE < share
        self._at = (self._at + _STEP) % 1.0
        return self._at < share
