"""What the prompt caches of engines did: counted by the engines, added up over their lives.

Owns the shapes and the adding. Decides nothing. Doesn't know how counters are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from meshllm.core.cache_config import DEFAULT, CacheConfig
from meshllm.core.cache_limits import CACHE_LEAST_BYTES
from meshllm.core.ids import ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotUse:
    """One slot of an engine, since its start."""

    slot: int
    kept_tokens: int = 0
    """Of the last conversation in it: what the next request may find."""
    hit_tokens: int = 0
    """Of prompts, found cached; the others were computed."""
    miss_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReading:
    """What was read at one engine, counted since its start."""

    hit_tokens: int | None = None
    """Prompt tokens that were found cached; None where the engine does not count them."""
    miss_tokens: int | None = None
    size_bytes: int = 0
    """Of the memory that its process took since it was loaded: its prompt cache is what grows there."""
    slots: tuple[SlotUse, ...] = ()


NOTHING_READ = CacheReading()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUse:
    """What one model's prompt cache did since the node's start."""

    model: ModelId
    hit_tokens: int = 0
    miss_tokens: int = 0
    is_counted: bool = False
    """Its engine tells what it found."""
    size_bytes: int = 0
    """That it takes now, as measured."""
    evictions: int = 0
    """How often it was emptied for the sake of others, and really became smaller."""
    freed_bytes: int = 0
    """By that, as measured."""
    slots: tuple[SlotUse, ...] = ()
    seen: CacheReading = NOTHING_READ
    """The last reading of the engine that runs."""

    @property
    def prompt_tokens(self) -> int:
        """Return the tokens of all prompts."""
        return self.hit_tokens + self.miss_tokens

    @property
    def hit_rate(self) -> float | None:
        """Return the share of prompt tokens that was found cached; None before there were any."""
        return round(self.hit_tokens / self.prompt_tokens, 4) if self.is_counted and self.prompt_tokens else None

    def read(self, reading: CacheReading) -> "CacheUse":
        """Return the same after another reading of the same engine. Counters that fell began anew."""
        hits, misses = reading.hit_tokens, reading.miss_tokens
        return replace(
            self, size_bytes=reading.size_bytes, slots=reading.slots, seen=reading,
            is_counted=self.is_counted or (hits is not None and misses is not None),
            hit_tokens=self.hit_tokens + _grown(hits, self.seen.hit_tokens),
            miss_tokens=self.miss_tokens + _grown(misses, self.seen.miss_tokens),
        )  # fmt: skip

    def emptied(self, *, is_eviction: bool) -> "CacheUse":
        """Return the same after its engine ended; an eviction counts where there was something to free."""
        counts = is_eviction and self.size_bytes >= CACHE_LEAST_BYTES
        return replace(
            self, size_bytes=0, slots=(), seen=NOTHING_READ, evictions=self.evictions + counts,
            freed_bytes=self.freed_bytes + (self.size_bytes if counts else 0),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePicture:
    """How a node's prompt cache is shared out, and what became of that."""

    config: CacheConfig = DEFAULT
    shares: Mapping[ModelId, int] = field(default_factory=lambda: MappingProxyType({}))
    """Bytes of each model that takes part; empty while nothing is shared out."""
    uses: Mapping[ModelId, CacheUse] = field(default_factory=lambda: MappingProxyType({}))
    evictions_lately: int = 0
    """In the last hour."""
    disk_shares: Mapping[ModelId, int] = field(default_factory=lambda: MappingProxyType({}))
    """Bytes of the disk that each model's conversations may take; empty while none are saved."""


NO_CACHES = CachePicture()


def _grown(now: int | None, before: int | None) -> int:
    if now is None:
        return 0
    return now - (before or 0) if now >= (before or 0) else now
