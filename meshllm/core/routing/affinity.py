"""Where sessions are: the same host for all requests of one, at whichever node they enter.

Owns the bindings of sessions that entered here. Decides the host of a new session by rendezvous hashing, so that all
entry nodes come to the same one without a word, and when a session has to move. Doesn't know prompts. Pure.

Invariants: a session that is used stays bound, also when its first choice comes back; a host without a free slot and
with more to do than others gets no new session.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from meshllm.core import limits
from meshllm.core.ids import ModelId
from meshllm.core.rendezvous import lot
from meshllm.core.routing.ratings import Rating

_KEY_BYTES = 16
_BOUND = 1.25
"""Of the mean load: what a host may have and still get a session of its own (Mirrokni and others, 2018)."""


def session_key(session: str) -> bytes:
    """Return what stands for a session in memory and in hashes, as short for a long name as for a short one."""
    return blake2b(session.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


def by_rendezvous(session: str, ratings: Sequence[Rating], max_load: float) -> list[Rating]:
    """Return candidates in the order that belongs to a session; those that are full and fuller than most come last."""
    key = session_key(session)
    bound = max(max_load, _BOUND * sum(rating.load for rating in ratings) / len(ratings))
    return sorted(ratings, key=lambda rating: (rating.load > bound, lot(key, rating.name), rating.name))


class Bound(NamedTuple):
    """Where a session was last, and until when that counts."""

    name: str
    """A node, or a model."""
    expires_s: float


class Affinity:
    """The sessions that entered here."""

    def __init__(self, most: int = limits.AFFINITY_SESSIONS) -> None:
        """Start without sessions."""
        self._most = most
        self._bound: OrderedDict[tuple[bytes, ModelId], Bound] = OrderedDict()

    def __len__(self) -> int:
        """Return how many sessions are remembered."""
        return len(self._bound)

    def where(self, session: str, scope: ModelId, now_s: float) -> str | None:
        """Return where a session is bound; None when it is nowhere, or was not used for too long."""
        bound = self._bound.get((session_key(session), scope))
        return bound.name if bound is not None and now_s < bound.expires_s else None

    def bind(self, session: str, scope: ModelId, name: str, now_s: float, timeout_s: float) -> None:
        """Note that a session is used, and where."""
        key = (session_key(session), scope)
        self._bound[key] = Bound(name, now_s + timeout_s)
        self._bound.move_to_end(key)
        while len(self._bound) > self._most:
            self._bound.popitem(last=False)
