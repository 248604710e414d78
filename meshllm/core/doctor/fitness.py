"""What should not be in memory as it is: full precision on a small machine, very unlike sizes, ill health, full caches.

Owns these warnings and the numbers from which on they are given. Decides by what the node tells of its models. Doesn't
change anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from meshllm.core.doctor.findings import Finding, Result, listed
from meshllm.core.doctor.smaller import FileOnDisk, smaller_that_fits
from meshllm.core.resources import format_bytes

FULL_PRECISION = frozenset({"F32", "F16", "BF16", "FP16", "FP32"})
FULL_PRECISION_SHARE = 0.5
"""Of the memory that models may take: a file in full precision that takes more of it is in a quantised one's place."""
SIZES_APART = 8.0
"""So many times as large as another: requests to it push the small one out, unless quotas keep them apart."""
_BAD_HEALTH = frozenset({"degraded", "unhealthy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedHere:
    """A model of one node, as far as its fitness shows."""

    model: str
    size_bytes: int
    quantization: str
    is_wanted: bool
    """It is in memory, or should be."""
    has_quotas: bool = False
    health: str = ""
    why: str = ""
    """What ails it, in words."""


def fitness(
    models: Sequence[ServedHere], usable_bytes: int, cache_hints: Sequence[str] = ()
) -> tuple[Finding, ...]:  # fmt: skip
    """Return what is unfit about the models of a node, and a word where nothing is."""
    files = tuple(
        FileOnDisk(model=one.model, size_bytes=one.size_bytes, quantization=one.quantization) for one in models
    )
    wanted = [one for one in models if one.is_wanted]
    return (
        *_full_precision(wanted, usable_bytes, files),
        *_sizes(wanted),
        *_health(models),
        *_caches(cache_hints),
    )


def is_full_precision(quantization: str) -> bool:
    """Tell whether a file's numbers are not quantised."""
    return quantization.upper() in FULL_PRECISION


def _full_precision(
    wanted: Sequence[ServedHere], usable_bytes: int, files: tuple[FileOnDisk, ...]
) -> list[Finding]:  # fmt: skip
    found = []
    for one in wanted:
        if not is_full_precision(one.quantization) or one.size_bytes <= FULL_PRECISION_SHARE * usable_bytes:
            continue
        instead = smaller_that_fits(one.model, one.size_bytes, int(FULL_PRECISION_SHARE * usable_bytes), files)
        advice = f"`mesh-llm load {instead.name}`" if instead is not None else "a Q8_0 or Q4_K_M of it does as well"
        message = (
            f"{one.quantization} in {format_bytes(one.size_bytes)}, more than half of the "
            f"{format_bytes(usable_bytes)} that models may take"
        )
        found.append(
            Finding(name="full precision", result=Result.WARN, message=message, advice=advice, model=one.model)
        )
    if found:
        return found
    return [Finding(name="full precision", result=Result.OK, message="no model wastes memory on it")]


def _sizes(wanted: Sequence[ServedHere]) -> list[Finding]:
    name, sized = "model sizes", sorted((one for one in wanted if one.size_bytes), key=lambda one: one.size_bytes)
    free = [one.model for one in sized if not one.has_quotas]
    if len(sized) < 2 or sized[-1].size_bytes < SIZES_APART * sized[0].size_bytes:
        return [Finding(name=name, result=Result.OK, message="the models in memory are not too unlike in size")]
    small, large = sized[0], sized[-1]
    message = (
        f"{large.model} is {large.size_bytes / small.size_bytes:.0f} times as large as {small.model} "
        f"({format_bytes(large.size_bytes)}, {format_bytes(small.size_bytes)})"
    )
    if not free:
        return [Finding(name=name, result=Result.OK, message=f"{message}, and all have quotas")]
    advice = f"`mesh-llm quota set {free[-1]} max_concurrent_requests=N`, or max_ram_mb, for {listed(free)}"
    return [Finding(name=name, result=Result.WARN, message=f"{message}, without quotas", advice=advice)]


def _health(models: Sequence[ServedHere]) -> list[Finding]:
    ill = [one for one in models if one.health in _BAD_HEALTH and one.is_wanted]
    if not ill:
        return [Finding(name="health", result=Result.OK, message="no model in memory is in ill health")]
    advice = "`mesh-llm doctor {}` looks at it step by step"
    return [
        Finding(
            name="health", result=Result.WARN, model=one.model, advice=advice.format(one.model),
            message=f"{one.health}: {one.why}" if one.why else one.health,
        )
        for one in ill
    ]  # fmt: skip


def _caches(hints: Sequence[str]) -> list[Finding]:
    if not hints:
        message = "neither hit rates nor evictions call for another cache"
        return [Finding(name="prompt caches", result=Result.OK, message=message)]
    return [Finding(name="prompt caches", result=Result.WARN, message=hint) for hint in hints]
