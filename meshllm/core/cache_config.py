"""How a node shares out its prompt cache, and whether it keeps completions: the keys of `[cache]`, as people set them.

Owns the keys, their other spellings, bounds and defaults, and the merging of a partial change. Decides what a change
may say, sums included. Doesn't know models, bytes in use, nor HTTP. Pure.

Invariant: a change is taken whole or not at all.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import NoReturn

from meshllm.core import cache_limits
from meshllm.core.limits import GIB, MIB
from meshllm.core.routing_config import ConfigFault

WRAPPERS = ("cache", "cache_config")
"""The keys below which a document may have all others."""
MODELS = "models"
"""The key of a document that says something of single models."""
_FREE_KEYS = frozenset({"nodes", "is_dividing"})
"""Keys of the document that are shown and may be sent back; nothing is changed by them."""
_FREE_MODEL_KEYS = frozenset({"used_mb", "limit_mb", "disk_mb"})
PRIORITY_LEAST, PRIORITY_USUAL, PRIORITY_MOST = 1, 5, 10
_NAME_CHARS = 512
_SHOWN_CHARS = 80


class AllocationStrategy(StrEnum):
    """By what models get their shares."""

    FAIR_SHARE = "fair_share"
    """All the same."""
    PROPORTIONAL = "proportional"
    """By use: requests, and how long ago the last one was."""
    PRIORITY_BASED = "priority_based"
    DYNAMIC = "dynamic"
    """By how much they are asked for now."""


class EvictionPolicy(StrEnum):
    """Who goes first where room is needed."""

    LRU = "lru"
    """Whoever was used longest ago."""
    LFU = "lfu"
    """Whoever is used least."""
    SMALLEST_MODEL_FIRST = "smallest_model_first"
    ROUND_ROBIN = "round_robin"
    """Each in turn."""


_STRATEGIES: Mapping[str, AllocationStrategy] = MappingProxyType({
    "fairshare": AllocationStrategy.FAIR_SHARE, "fair": AllocationStrategy.FAIR_SHARE,
    "equal": AllocationStrategy.FAIR_SHARE, "proportional": AllocationStrategy.PROPORTIONAL,
    "prioritybased": AllocationStrategy.PRIORITY_BASED, "priority": AllocationStrategy.PRIORITY_BASED,
    "dynamic": AllocationStrategy.DYNAMIC,
})  # fmt: skip
_POLICIES: Mapping[str, EvictionPolicy] = MappingProxyType({
    "lru": EvictionPolicy.LRU, "leastrecentlyused": EvictionPolicy.LRU, "leastrecentlyusedmodel": EvictionPolicy.LRU,
    "lfu": EvictionPolicy.LFU, "leastfrequentlyused": EvictionPolicy.LFU,
    "leastfrequentlyusedmodel": EvictionPolicy.LFU,
    "smallestmodelfirst": EvictionPolicy.SMALLEST_MODEL_FIRST, "smallestmodel": EvictionPolicy.SMALLEST_MODEL_FIRST,
    "roundrobin": EvictionPolicy.ROUND_ROBIN, "roundrobinmodels": EvictionPolicy.ROUND_ROBIN,
})  # fmt: skip
"""Every spelling, in lower-case letters alone."""


class CacheConfigError(Exception):
    """A change that cannot be made; the message is for people."""

    def __init__(self, fault: ConfigFault, key: str, message: str) -> None:
        """Keep the kind of mistake and the key that is wrong."""
        super().__init__(message)
        self.fault, self.key, self.message = fault, key, message


Numbers = tuple[tuple[str, int], ...]
"""A number for each of some models, by any name of them, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """How one node shares out its prompt cache."""

    global_cache_size_gb: float = 0.0
    """0: nothing is shared out, and each engine takes what the memory arithmetic gives it."""
    allocation_strategy: AllocationStrategy = AllocationStrategy.FAIR_SHARE
    global_eviction_policy: EvictionPolicy = EvictionPolicy.LRU
    model_priorities: Numbers = ()
    """1 to 10; 5 where nothing is said."""
    min_ram_mb: int = 256
    """What each model gets at least, as far as the whole reaches."""
    model_floors_mb: Numbers = ()
    """The same for single models."""
    model_sizes_mb: Numbers = ()
    """Shares that no strategy changes."""
    disk_cache_size_gb: float = 0.0
    """What conversations of engines that end may take of the disk; 0: none is saved, and what was saved goes."""
    min_disk_mb: int = cache_limits.SLOT_DISK_MB
    """What each model gets of that at least, as far as it reaches."""
    completions: bool = False
    """Whole answers are kept here, and told again to requests that leave nothing to chance."""
    completions_mb: int = 64
    """What they may take of this node's memory."""
    completions_shared: bool = True
    """They are looked up at their owners too, and this node is one."""

    @property
    def whole_bytes(self) -> int:
        """Return what there is to share out; 0 for nothing."""
        return int(self.global_cache_size_gb * GIB)

    @property
    def disk_bytes(self) -> int:
        """Return what there is of the disk to share out; 0 for nothing."""
        return int(self.disk_cache_size_gb * GIB)

    @property
    def is_dividing(self) -> bool:
        """Tell whether a whole is shared out."""
        return self.global_cache_size_gb > 0

    @property
    def shares_completions(self) -> bool:
        """Tell whether kept answers are looked up at their owners, and sent there."""
        return self.completions and self.completions_shared


DEFAULT = CacheConfig()


def _refuse(key: str, wanted: str) -> NoReturn:
    raise CacheConfigError(ConfigFault.INVALID_VALUE, key, f"{key!r} must be {wanted}")


def _folded(value: object) -> str:
    return re.sub(r"[^a-z]", "", str(value)[:_SHOWN_CHARS].lower())


def _size(key: str, value: object, _: object) -> float:
    most = cache_limits.CACHE_GB_MOST
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not 0 <= value <= most:  # type: ignore[operator]
        _refuse(key, f"a number from 0, which shares out nothing, to {most:g}")
    return float(value)  # type: ignore[arg-type]


def _switch(key: str, value: object, _: object) -> bool:
    known = {"on": True, "off": False}
    found = value if isinstance(value, bool) else known.get(value) if isinstance(value, str) else None
    if found is None:
        _refuse(key, "on or off")
    return found


def _completions_size(key: str, value: object, _: object) -> int:
    return _whole(key, value, 1, cache_limits.COMPLETION_MB_MOST)


def _strategy(key: str, value: object, _: object) -> AllocationStrategy:
    found = _STRATEGIES.get(_folded(value))
    if found is None:
        message = f"{key!r} must be one of: {', '.join(AllocationStrategy)}"
        raise CacheConfigError(ConfigFault.INVALID_STRATEGY, key, message)
    return found


def _policy(key: str, value: object, _: object) -> EvictionPolicy:
    found = _POLICIES.get(_folded(value))
    if found is None:
        message = f"{key!r} must be one of: {', '.join(EvictionPolicy)}"
        raise CacheConfigError(ConfigFault.INVALID_STRATEGY, key, message)
    return found


def _whole(key: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        _refuse(key, f"a whole number from {least} to {most}")
    return value


def _megabytes(key: str, value: object, _: object = None) -> int:
    return _whole(key, value, 0, int(cache_limits.CACHE_GB_MOST * GIB // MIB))


def _numbers(read: Callable[[str, object], int]) -> Callable[[str, object, object], Numbers]:
    """Return what reads a table of models and numbers, and merges it with the one that there is; null takes one out."""

    def read_table(key: str, value: object, old: object) -> Numbers:
        if not isinstance(value, Mapping):
            _refuse(key, "an object of models and numbers")
        found = dict(old) if isinstance(old, tuple) else {}
        for name, number in value.items():
            if not isinstance(name, str) or not 0 < len(name) <= _NAME_CHARS:
                _refuse(key, "an object of models and numbers")
            if number is None:
                found.pop(name, None)
            else:
                found[name] = read(f"{key}.{name[:_SHOWN_CHARS]}", number)
        if len(found) > cache_limits.CACHE_MODELS:
            _refuse(key, f"about {cache_limits.CACHE_MODELS} models at most")
        return tuple(sorted(found.items()))

    return read_table


def _priority(key: str, value: object) -> int:
    return _whole(key, value, PRIORITY_LEAST, PRIORITY_MOST)


_KEYS: Mapping[str, Callable[[str, object, object], object]] = MappingProxyType({
    "global_cache_size_gb": _size, "allocation_strategy": _strategy, "global_eviction_policy": _policy,
    "model_priorities": _numbers(_priority), "min_ram_mb": _megabytes, "model_floors_mb": _numbers(_megabytes),
    "model_sizes_mb": _numbers(_megabytes), "disk_cache_size_gb": _size, "min_disk_mb": _megabytes,
    "completions": _switch, "completions_mb": _completions_size,
    "completions_shared": _switch,
})  # fmt: skip
KEYS = tuple(_KEYS)
"""Every key, in the order in which they are shown."""
NAMING_KEYS = ("model_priorities", "model_floors_mb", "model_sizes_mb")
"""Those whose values are tables of models."""


def shown(config: CacheConfig) -> dict[str, object]:
    """Return a configuration as a document."""
    return {key: _plain(getattr(config, key)) for key in KEYS}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return dict(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, StrEnum):
        return str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def patched(config: CacheConfig, changes: Mapping[str, object]) -> CacheConfig:
    """Return a configuration with these keys changed; null brings a default back. Raises CacheConfigError."""
    found: dict[str, object] = {}
    for key, value in changes.items():
        read = _KEYS.get(key)
        if read is None:
            message = f"there is no key {key[:_SHOWN_CHARS]!r}; the keys are: {', '.join(KEYS)}"
            raise CacheConfigError(ConfigFault.UNKNOWN_KEY, key[:_SHOWN_CHARS], message)
        found[key] = getattr(DEFAULT, key) if value is None else read(key, value, getattr(config, key))
    whole = replace(config, **found)  # type: ignore[arg-type]
    _check_sums(whole, found)
    return whole


def _check_sums(config: CacheConfig, changed: Mapping[str, object]) -> None:
    """Refuse shares that are more than the whole, or parts of none."""
    fixed = sum(size for _, size in config.model_sizes_mb) * MIB
    if not fixed or fixed <= config.whole_bytes:
        return
    key = "model_sizes_mb" if "model_sizes_mb" in changed else "global_cache_size_gb"
    message = f"the sizes of single models are {fixed // MIB} MB together, more than the whole of "
    message += f"{config.whole_bytes // MIB} MB (global_cache_size_gb)"
    raise CacheConfigError(ConfigFault.INVALID_VALUE, key, message)


def checked(config: CacheConfig) -> CacheConfig:
    """Return a configuration that came from elsewhere, as its keys may be set. Raises CacheConfigError."""
    return patched(DEFAULT, shown(config))


def unwrapped(document: Mapping[str, object]) -> dict[str, object]:
    """Return a change with its keys at the top, wherever they stood. Raises CacheConfigError.

    `models` says of single models what the tables of sizes and priorities say: `{"phi-4": {"allocated_mb": 512}}`.
    """
    found: dict[str, object] = {}
    for key, value in document.items():
        if key in _FREE_KEYS:
            continue
        if key in WRAPPERS and not isinstance(value, Mapping):
            _refuse(key, "an object with keys")
        below = dict(value) if key in WRAPPERS and isinstance(value, Mapping) else {key: value}
        for name, given in below.items():
            if name in found:
                _refuse(str(name)[:_SHOWN_CHARS], f"given once: beside {key!r}, or in it")
            found[str(name)] = given
    models = found.pop(MODELS, None)
    if models is not None:
        _of_models(models, found)
    return found


def _of_models(models: object, found: dict[str, object]) -> None:
    """Add what is said of single models to the tables."""
    if not isinstance(models, Mapping) or not all(isinstance(one, Mapping) for one in models.values()):
        _refuse(MODELS, "an object of models, each with allocated_mb or priority")
    tables = {"allocated_mb": "model_sizes_mb", "priority": "model_priorities"}
    for model, said in models.items():
        for key, value in said.items():
            if key in _FREE_MODEL_KEYS:
                continue
            if key not in tables:
                place = f"{MODELS}.{model}.{key}"[:_SHOWN_CHARS]
                message = f"of a model, allocated_mb and priority may be said, not {str(key)[:_SHOWN_CHARS]!r}"
                raise CacheConfigError(ConfigFault.UNKNOWN_KEY, place, message)
            table = found.setdefault(tables[key], {})
            if not isinstance(table, dict) or model in table:
                _refuse(tables[key], f"given once: {MODELS!r} says the same")
            table[model] = value
