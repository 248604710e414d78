"""What can be tuned, with the values that are in force and what each is good for.

Owns the list and its order: routing, prompt caches, quotas, engines. Decides nothing about the values. Doesn't know
where they came from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunable:
    """One thing to turn."""

    name: str
    value: object
    meaning: str
    """What turning it does."""
    how: str
    """The command, request or flag that does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The documents that hold the values."""

    routing: Mapping[str, object]
    caches: Mapping[str, object]
    settings: Mapping[str, object]
    quotas: Mapping[str, Mapping[str, object]]
    """By model; every key at the top."""
    hit_rate: float | None = None
    """Of all prompt tokens, the share that was found cached; None where nothing was counted."""
    evictions: int | None = None
    """Since the start; None where no node runs."""


_ROUTING = {
    "strategy": "which host: cache_aware where prompts begin alike, affinity_based for conversations, quota_aware, …",
    "model_strategy": "which model, where a request leaves it open",
    "min_cache_hit_rate": "lower: caches decide sooner, at the price of an even load",
    "max_load_threshold": "lower: busy hosts are spared sooner",
    "affinity_timeout_sec": "longer: conversations stay at their host, where their prompts are cached",
    "affinity_from_user": "true: a user's requests are one conversation where none is named",
    "enable_cache_optimization": "false: nothing is remembered of prompts, decisions are quicker",
    "enable_quota_checks": "false: quotas do not count in a choice, decisions are quicker",
    "max_retries": "more: failures are hidden longer; fewer: clients hear sooner",
    "retry_delay_ms": "longer: gentler to a mesh in trouble",
}
_CACHES = {
    "global_cache_size_gb": "larger where evictions are frequent or hit rates low; 0 shares nothing out",
    "allocation_strategy": "fair_share, proportional to use, priority_based, or dynamic by demand",
    "global_eviction_policy": "who goes first: lru, lfu, smallest_model_first, round_robin",
    "min_ram_mb": "what each model keeps at least",
    "completions": "on: whole answers are kept for requests that leave nothing to chance",
    "completions_mb": "what kept answers may take",
}
_QUOTAS = {
    "soft_limits": "percent: noted, warned of, throttled, throttled hard; higher: fewer warnings, harder stops",
    "on_limit": "reject, queue or warn",
    "max_concurrent_requests": "fewer: each is answered sooner; 0 for no limit",
    "max_requests_per_second": "how often requests may come; 0 for no limit",
}
_SETTINGS = {
    "ctx_size": "less context: more requests at a time, less memory; empty: chosen by the memory there is",
    "parallel": "more at a time: more answers in all, each slower; empty: chosen by the memory there is",
    "threads": "of each engine; empty: one for each physical core",
    "max_vram": "what models may take of the memory",
    "load_wait_s": "how long requests wait for a model that loads",
    "load_timeout_s": "how long a load may go without progress; longer for slow disks",
    "drain_s": "how long running requests may take when an engine ends",
    "engine_stall_s": "after so long without any sign an engine counts as hung",
    "trace_share": "of requests that are traced; less costs less",
    "log_level": "debug shows every decision, and costs time",
}


def tunables(tuning: Tuning) -> tuple[Tunable, ...]:
    """Return everything that can be tuned, with its value."""
    return (
        *_section("routing", _ROUTING, tuning.routing, "`mesh-llm routing set {key}=…`"),
        *_section("cache", _CACHES, tuning.caches, "POST /cache/allocation, or [cache] in the file"),
        *_measured(tuning),
        *(
            one
            for model in sorted(tuning.quotas)
            for one in _section(
                f"quotas of {model}", _QUOTAS, tuning.quotas[model], f"`mesh-llm quota set {model} {{key}}=…`"
            )
        ),
        *_section("node", _SETTINGS, tuning.settings, "{key} in the file, its flag or variable; with the next start"),
    )


def _section(
    where: str, meanings: Mapping[str, str], values: Mapping[str, object], how: str
) -> Iterator[Tunable]:  # fmt: skip
    for key, meaning in meanings.items():
        value = values.get(key)
        yield Tunable(
            name=f"{where}: {key}", value="" if value is None else value, meaning=meaning, how=how.format(key=key)
        )


def _measured(tuning: Tuning) -> Iterator[Tunable]:
    """Yield what tells whether the caches want tuning."""
    if tuning.evictions is not None:
        yield Tunable(
            name="cache: evictions since the start", value=tuning.evictions,
            meaning="caches emptied for others: many, and global_cache_size_gb is too small, or models too many",
            how="measured",
        )  # fmt: skip
    if tuning.hit_rate is not None:
        yield Tunable(
            name="cache: hit rate", value=tuning.hit_rate, meaning="below 0.3 GET /cache/stats says what would help",
            how="measured",
        )  # fmt: skip
