"""Warnings about what should not be in memory as it is."""

from dataclasses import replace

import pytest

from meshllm.core.doctor.findings import Finding, Result
from meshllm.core.doctor.fitness import ServedHere, fitness
from meshllm.core.limits import GIB

SMALL = ServedHere(model="Small-Q4_K_M", size_bytes=GIB, quantization="Q4_K_M", is_wanted=True, health="healthy")
LARGE = replace(SMALL, model="Large-Q4_K_M", size_bytes=9 * GIB)
FULL = replace(SMALL, model="Foo-F16", size_bytes=9 * GIB, quantization="F16")
USABLE = 16 * GIB


def warned(*models: ServedHere, usable_bytes: int = USABLE, hints: tuple[str, ...] = ()) -> dict[str, Finding]:
    """Return the warnings by name."""
    return {one.name: one for one in fitness(models, usable_bytes, hints) if one.result is Result.WARN}


@pytest.mark.rows("OPS-6")
def test_fit_models_pass_every_check() -> None:
    """Each says so."""
    found = fitness([SMALL], USABLE)

    assert [one.name for one in found] == ["full precision", "model sizes", "health", "prompt caches"]
    assert {one.result for one in found} == {Result.OK}


@pytest.mark.rows("OPS-6")
@pytest.mark.parametrize("quantization", ["F16", "bf16", "F32"])
def test_full_precision_on_small_memory_is_warned_of(quantization: str) -> None:
    """With what would do as well, where something of it lies here."""
    full = replace(FULL, quantization=quantization)
    quantised = replace(SMALL, model="Foo-Q4_K_M", size_bytes=3 * GIB, is_wanted=False)

    assert warned(full, quantised)["full precision"].advice == "`mesh-llm load Foo-Q4_K_M`"
    assert "Q4_K_M of it" in warned(full)["full precision"].advice
    assert "full precision" not in warned(full, usable_bytes=64 * GIB)
    assert "full precision" not in warned(replace(full, is_wanted=False))


@pytest.mark.rows("OPS-6")
def test_very_unlike_sizes_without_quotas_are_warned_of() -> None:
    """The large one, or anyone else, may push the small one out."""
    found = warned(SMALL, LARGE)["model sizes"]

    assert "9 times as large" in found.message
    assert "`mesh-llm quota set Large-Q4_K_M" in found.advice
    assert "model sizes" not in warned(replace(SMALL, has_quotas=True), replace(LARGE, has_quotas=True))
    assert "model sizes" in warned(SMALL, replace(LARGE, has_quotas=True))
    assert "model sizes" not in warned(SMALL, replace(LARGE, size_bytes=7 * GIB))
    assert "model sizes" not in warned(SMALL, replace(LARGE, is_wanted=False))


@pytest.mark.parametrize("health", ["degraded", "unhealthy"])
def test_ill_health_is_not_ignored(health: str) -> None:
    """With its reason."""
    found = warned(replace(SMALL, health=health, why="1 of 9 requests failed"))["health"]

    assert (found.model, found.message) == (SMALL.model, f"{health}: 1 of 9 requests failed")


@pytest.mark.rows("OPS-9")
def test_hints_about_caches_and_evictions_are_passed_on() -> None:
    """The node's own words."""
    hint = "9 caches were emptied for others in the last hour: a larger global_cache_size_gb would help"

    assert warned(SMALL, hints=(hint,))["prompt caches"].message == hint
