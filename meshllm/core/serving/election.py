"""Who of several is preferred: the host of a group, and the order in which nodes reach for a model.

Owns both rules. Pure and short on purpose: every node applies them to its own view, and nodes with the
same view come to the same answer without a word.
"""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from meshllm.core.announcement import Announcement
from meshllm.core.ids import ModelId, NodeId

_MASK = 2**64 - 1
_ODD = 0x9E3779B97F4A7C15
"""Spreads bits over a word when multiplied: 2^64 divided by the golden ratio."""


def elect(members: Iterable[Announcement]) -> NodeId:
    """Return the host of a group. Raises ValueError for a group without members.

    The most GPU memory, then the most memory, then the smallest id: total sizes, which change only with the
    machine. Free memory flickers with every request and would move the host for nothing (decision 0030).
    Suspicion does not count either: it is one node's opinion and passes.
    """
    return min(members, key=_standing).node


def in_order(members: Iterable[Announcement]) -> list[Announcement]:
    """Return members in the order in which they become hosts: who would be elected without those before it."""
    return sorted(members, key=_standing)


def _standing(said: Announcement) -> tuple[int, int, NodeId]:
    resources = said.resources
    if resources is None:
        return 0, 0, said.node
    return -resources.gpu_total_bytes, -resources.memory_total_bytes, said.node


def preference(node: NodeId, model: ModelId) -> int:
    """Return a number by which nodes differ for each model, smaller first: rendezvous hashing.

    Without a model that everybody fights over, and a node that joins or leaves changes only its own place.
    """
    mixed = ((_hash(node) ^ _hash(model)) * _ODD) & _MASK
    return ((mixed ^ (mixed >> 32)) * _ODD) & _MASK


@lru_cache(maxsize=8192)
def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
