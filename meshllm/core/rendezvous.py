"""Rendezvous hashing: whose something is, among names that everybody knows, without a word between them.

Owns the draw. Decides nothing more. Doesn't know what the names are; the smallest lot wins, and a name that goes
changes nobody else's (Thaler and Ravishankar, 1998).
"""

from collections.abc import Iterable
from hashlib import blake2b

_LOT_BYTES = 8


def lot(key: bytes, name: str) -> bytes:
    """Return a name's lot for a key of at most 64 bytes."""
    return blake2b(name.encode(), digest_size=_LOT_BYTES, key=key).digest()


def winner(key: bytes, names: Iterable[str]) -> str | None:
    """Return whose a key is; None among nobody."""
    return min(names, key=lambda name: (lot(key, name), name), default=None)
