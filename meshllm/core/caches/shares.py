"""The division of a node's prompt cache: how much of the whole each model gets.

Owns the arithmetic of shares, floors and usage scores. Decides nothing about engines: what a share does to one that
runs is `cache_keeping`'s. Doesn't know the clock; how long ago something was is told. Pure functions.

Invariants: the shares together never exceed the whole; the same claims give the same shares, in whatever order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshllm.core.cache_limits import CACHE_HYSTERESIS
from meshllm.core.ids import ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What speaks for one model."""

    model: ModelId
    weight: float = 1.0
    """Not below 0. Where all are 0, all are alike."""
    floor_bytes: int = 0
    fixed_bytes: int | None = None
    """A share that somebody wrote down; None where the weights decide."""


def usage_score(requests: int, idle_s: float) -> float:
    """Return how much a model is used: requests for each second since the last one, and one more."""
    return requests / (max(idle_s, 0.0) + 1.0)


def divide(whole_bytes: int, claims: Iterable[Claim]) -> dict[ModelId, int]:
    """Return the share of each model in bytes: first what was written down, then floors, then by weight."""
    ordered = sorted(claims, key=lambda one: one.model)
    fixed = {one.model: one.fixed_bytes for one in ordered if one.fixed_bytes is not None}
    shares = _cut(fixed, whole_bytes)
    free = [one for one in ordered if one.fixed_bytes is None]
    left = whole_bytes - sum(shares.values())
    floors = {one.model: one.floor_bytes for one in free}
    if sum(floors.values()) >= left:
        return shares | _cut(floors, left)
    return shares | _above_floors(left, free)


def _cut(wanted: Mapping[ModelId, int], most_bytes: int) -> dict[ModelId, int]:
    """Return what was wanted, or as large a part of each as fits."""
    total = sum(wanted.values())
    if total <= most_bytes:
        return dict(wanted)
    return {model: size * most_bytes // total for model, size in wanted.items()}


def _above_floors(whole_bytes: int, claims: list[Claim]) -> dict[ModelId, int]:
    """Return shares by weight, where whoever would get less than its floor gets that; together they fit."""
    shares: dict[ModelId, int] = {}
    rest, left = list(claims), whole_bytes
    while rest:
        total = sum(one.weight for one in rest)
        by_weight = {one.model: int(left * (one.weight / total if total > 0 else 1 / len(rest))) for one in rest}
        low = [one for one in rest if by_weight[one.model] < one.floor_bytes]
        if not low:
            # Rounding may have gone up where numbers are too large for a float: the last one makes up for it.
            over = max(sum(by_weight.values()) - left, 0)
            last = max(by_weight, key=lambda model: (by_weight[model], model))
            by_weight[last] -= over
            return shares | by_weight
        for one in low:
            shares[one.model] = one.floor_bytes
            left -= one.floor_bytes
        rest = [one for one in rest if one.model not in shares]
    return shares


def is_worth_it(old: Mapping[ModelId, int], new: Mapping[ModelId, int]) -> bool:
    """Tell whether a new division differs enough from the one in force: by a tenth of some share, or in its models."""
    if old.keys() != new.keys():
        return True
    return any(abs(new[model] - size) > CACHE_HYSTERESIS * max(size, 1) for model, size in old.items())
