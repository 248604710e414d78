"""Who goes first where several models hold what another one needs: memory, or a part of the prompt cache.

Owns the four orders. Decides nothing about how much is needed, nor whether anybody has to go. Doesn't know engines.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from meshllm.core.cache_config import EvictionPolicy
from meshllm.core.ids import NO_MODEL, ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """A model in this node's memory that could go."""

    model: ModelId
    last_used_s: float
    requests: int = 0
    size_bytes: int = 0
    """Of its file."""


def in_order(occupants: Iterable[Occupant], policy: EvictionPolicy, last: ModelId = NO_MODEL) -> list[Occupant]:
    """Return who goes first; `last` went last, for the policy that takes each in turn.

    Of those that are alike, whoever was used longest ago: with as many requests, it has the lower usage score.
    """
    found = sorted(occupants, key=lambda one: (one.last_used_s, one.model))
    match policy:
        case EvictionPolicy.LRU:
            return found
        case EvictionPolicy.LFU:
            return sorted(found, key=lambda one: one.requests)
        case EvictionPolicy.SMALLEST_MODEL_FIRST:
            return sorted(found, key=lambda one: one.size_bytes)
        case EvictionPolicy.ROUND_ROBIN:
            return sorted(found, key=lambda one: (one.model <= last, one.model))


WHY = {
    EvictionPolicy.LRU: "it was used longest ago",
    EvictionPolicy.LFU: "it is used least",
    EvictionPolicy.SMALLEST_MODEL_FIRST: "it is the smallest",
    EvictionPolicy.ROUND_ROBIN: "it is its turn",
}
"""What people are told of each."""
