"""What people are told of the prompt caches of this node: shares, use, and what would help.

Owns the forms of these documents. Decides which hint a number deserves. Doesn't count; the engines do.
"""

from collections.abc import Iterable, Mapping

from meshllm.core.cache_config import PRIORITY_USUAL, shown
from meshllm.core.cache_limits import (
    CACHE_EVICTIONS_PER_HOUR,
    CACHE_FULL_SHARE,
    CACHE_JUDGED_TOKENS,
    CACHE_LOW_HIT_RATE,
)
from meshllm.core.cache_use import CacheUse
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId
from meshllm.core.limits import MIB
from meshllm.core.routing_config import RoutingConfig, Strategy
from meshllm.core.view import MeshView


def allocation(view: MeshView) -> dict[str, object]:
    """Return the document of `GET /cache/allocation`."""
    config, shares = view.caches.config, view.caches.shares
    started = limits_of(view)
    allocated = dict(shares) if config.is_dividing else started
    priorities = {found: number for name, number in config.model_priorities if (found := _meant(view, name))}
    models = {
        model: {
            "allocated_mb": allocated.get(model, 0) // MIB, "limit_mb": started.get(model, 0) // MIB,
            "used_mb": _use(view, model).size_bytes // MIB, "priority": priorities.get(model, PRIORITY_USUAL),
            "disk_mb": view.caches.disk_shares.get(model, 0) // MIB,
        }
        for model in sorted({*allocated, *started})
    }  # fmt: skip
    here = {
        "node_id": view.me.node, "allocated_mb": sum(allocated.values()) // MIB,
        "used_mb": sum(_use(view, model).size_bytes for model in models) // MIB,
    }  # fmt: skip
    return {**shown(config), "is_dividing": config.is_dividing, "models": models, "nodes": [here]}


def limits_of(view: MeshView) -> dict[ModelId, int]:
    """Return the cache that each engine in memory was started with, in bytes."""
    return {
        name: model.plan.memory.prompt_cache_bytes
        for name, model in view.local.items()
        if model.plan is not None and model.plan.split is None
    }


def stats(view: MeshView, routing: RoutingConfig, *, is_detailed: bool = False) -> dict[str, object]:
    """Return the document of `GET /cache/stats`; in detail by host and slot."""
    ready = {name for name, model in view.local.items() if model.state is EngineState.READY and not model.adopted_from}
    uses = {model: _use(view, model) for model in sorted({*view.caches.uses, *ready})}
    started = limits_of(view)
    found = {model: _of_model(use, hints(use, routing, started.get(model, 0))) for model, use in uses.items()}
    if is_detailed:
        for model, use in uses.items():
            found[model]["nodes"] = [_at_host(view, use, started.get(model, 0))]
    every = [f"{model}: {hint}" for model, one in found.items() for hint in _texts(one["hints"])]
    if view.caches.evictions_lately > CACHE_EVICTIONS_PER_HOUR:
        every.append(
            f"{view.caches.evictions_lately} caches were emptied for others in the last hour: a larger "
            "global_cache_size_gb, or fewer models on this node, would help"
        )
    return {"global": _together(uses.values()), "per_model": found, "hints": every}


def hints(use: CacheUse, routing: RoutingConfig, limit_bytes: int) -> list[str]:
    """Return what would help where little of the prompts is found cached; nothing where that is well, or unknown."""
    rate = use.hit_rate
    if rate is None or use.prompt_tokens < CACHE_JUDGED_TOKENS or rate >= CACHE_LOW_HIT_RATE:
        return []
    found = [f"only {rate:.0%} of {use.prompt_tokens} prompt tokens were found cached"]
    if routing.strategy is not Strategy.CACHE_AWARE:
        found.append(
            f"hosts are chosen by {routing.strategy}: cache_aware sends a prompt where its beginning is cached"
        )
    if use.size_bytes >= CACHE_FULL_SHARE * limit_bytes:
        size = f"{use.size_bytes // MIB} of {limit_bytes // MIB} MB"
        found.append(f"its cache is full ({size}): a larger global_cache_size_gb, or a higher priority, would help")
    else:
        found.append("its cache has room, so prompts hardly begin alike: what they share should come first")
    found.append("conversations stay at their host where requests name their session (X-Session-ID)")
    return found


def _texts(hints: object) -> list[str]:
    return [str(one) for one in hints] if isinstance(hints, list) else []


def _of_model(use: CacheUse, hints: list[str]) -> dict[str, object]:
    return {
        "hit_rate": use.hit_rate, "hit_tokens": use.hit_tokens, "prompt_tokens": use.prompt_tokens,
        "evictions": use.evictions, "size_bytes": use.size_bytes, "hints": hints,
    }  # fmt: skip


def _at_host(view: MeshView, use: CacheUse, limit_bytes: int) -> dict[str, object]:
    return {
        "node_id": view.me.node, "hit_tokens": use.hit_tokens, "miss_tokens": use.miss_tokens,
        "evictions": use.evictions, "freed_bytes": use.freed_bytes, "size_bytes": use.size_bytes,
        "limit_bytes": limit_bytes,
        "slots": [
            {
                "slot": one.slot, "kept_tokens": one.kept_tokens, "hit_tokens": one.hit_tokens,
                "miss_tokens": one.miss_tokens,
            }
            for one in use.slots
        ],
    }  # fmt: skip


def _together(uses: Iterable[CacheUse]) -> Mapping[str, object]:
    found = list(uses)
    counted = [use for use in found if use.is_counted]
    hit, prompt = sum(use.hit_tokens for use in counted), sum(use.prompt_tokens for use in counted)
    return {
        "hit_rate": round(hit / prompt, 4) if prompt else None, "hit_tokens": hit, "prompt_tokens": prompt,
        "evictions": sum(use.evictions for use in found), "size_bytes": sum(use.size_bytes for use in found),
    }  # fmt: skip


def _use(view: MeshView, model: ModelId) -> CacheUse:
    return view.caches.uses.get(model) or CacheUse(model=model)


def _meant(view: MeshView, name: str) -> ModelId | None:
    found = view.names.resolve(name)
    return found if isinstance(found, str) else None
