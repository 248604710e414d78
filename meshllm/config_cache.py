"""The table `[cache]` of a configuration file: how this node shares out its prompt cache, and sizes by one word.

Owns reading that table, the same keys at the top of the file, and presets. Decides that what is written wins over a
preset. Doesn't know bounds nor what keys do: `core.cache_config` does.
"""

from collections.abc import Mapping
from types import MappingProxyType

from meshllm.config_file import ConfigFile
from meshllm.config_lines import child
from meshllm.core.cache_config import (
    DEFAULT,
    NAMING_KEYS,
    AllocationStrategy,
    CacheConfig,
    CacheConfigError,
    EvictionPolicy,
    patched,
    shown,
)

TABLE, PRESET, PER_MODEL_QUOTA = "cache", "preset", "per_model_quota"
PRESETS: Mapping[str, Mapping[str, object]] = MappingProxyType({
    "small": {"global_cache_size_gb": 100, "allocation_strategy": "fair_share"},
    "medium": {"global_cache_size_gb": 300, "allocation_strategy": "proportional"},
    "large": {"global_cache_size_gb": 500, "allocation_strategy": "dynamic", "global_eviction_policy": "lru"},
})  # fmt: skip
AT_THE_TOP = frozenset({
    "global_cache_size_gb", "allocation_strategy", "global_eviction_policy", "model_priorities",
    PER_MODEL_QUOTA, PRESET,
})  # fmt: skip
"""Keys of the table that may stand at the top of the file, too."""
MEANINGS: Mapping[str, str] = MappingProxyType({
    "global_cache_size_gb": "What there is for all models of this node; 0: each engine takes what its memory allows.",
    "allocation_strategy": "By what it is shared out: `fair_share`, `proportional`, `priority_based` or `dynamic`.",
    "global_eviction_policy": "Who goes first, a cache for a cache and a model for a model: `lru`, `lfu`, "
    "`smallest_model_first` or `round_robin`.",
    "model_priorities": "For `priority_based`: a table of models and numbers from 1 to 10; 5 without one.",
    "min_ram_mb": "What each model gets at least, as far as the whole reaches.",
    "model_floors_mb": "The same for single models: a table of models and numbers.",
    "model_sizes_mb": "Shares that no strategy changes: a table of models and numbers.",
    "disk_cache_size_gb": "What conversations of engines that end may take of this node's disk; they are read back "
    "when the model is loaded again. 0: nothing is saved.",
    "min_disk_mb": "What each model gets of that at least, as far as it reaches.",
    "completions": "Keep whole answers in this node's memory and tell them again, where nothing is left to chance: "
    "`on` or `off`.",
    "completions_mb": "What kept answers may take of this node's memory.",
    "completions_shared": "Look for kept answers at the nodes that own them too, send them there, and own some for "
    "others: `on` or `off`.",
})  # fmt: skip
"""Every key of the core's, with what it means."""
_SPECIAL: Mapping[str, Mapping[str, object]] = MappingProxyType({
    "global_cache_size_gb": {"type": "number", "minimum": 0}, "min_ram_mb": {"type": "integer", "minimum": 0},
    "allocation_strategy": {"anyOf": [{"enum": list(AllocationStrategy)}, {"type": "string"}]},
    "global_eviction_policy": {"anyOf": [{"enum": list(EvictionPolicy)}, {"type": "string"}]},
    "disk_cache_size_gb": {"type": "number", "minimum": 0}, "min_disk_mb": {"type": "integer", "minimum": 0},
    "completions": {"anyOf": [{"enum": ["on", "off"]}, {"type": "boolean"}]},
    "completions_mb": {"type": "integer", "minimum": 1},
    "completions_shared": {"anyOf": [{"enum": ["on", "off"]}, {"type": "boolean"}]},
    **{key: {"type": "object", "additionalProperties": {"type": "integer"}} for key in NAMING_KEYS},
})  # fmt: skip


def cache_of(file: ConfigFile) -> CacheConfig | None:
    """Return what a file says of the prompt cache, None where it says nothing. Raises ConfigError."""
    given = {key: (child(TABLE, key), value) for key, value in _table(file).items()}
    for key in AT_THE_TOP & file.values.keys():
        if key in given:
            raise file.error(key, f"is given twice: {given[key][0]} says it, too")
        given[key] = (key, file.values[key])
    _, preset = given.pop(PRESET, ("", None))
    given.pop(PER_MODEL_QUOTA, None)
    if not given and preset is None:
        return None
    config = DEFAULT if preset is None else patched(DEFAULT, PRESETS[preset_of(file) or ""])
    try:
        return patched(config, {key: value for key, (_, value) in given.items()})
    except CacheConfigError as error:
        place, _ = given.get(error.key.partition(".")[0], (TABLE, None))
        raise file.error(place, error.message) from None


def preset_of(file: ConfigFile) -> str | None:
    """Return the name of the sizes that a file asks for by one word, None where it does not. Raises ConfigError."""
    table = _table(file)
    place = child(TABLE, PRESET) if PRESET in table else PRESET
    given = table.get(PRESET, file.values.get(PRESET))
    if given is None:
        return None
    if not isinstance(given, str) or given not in PRESETS:
        raise file.error(place, f"expected one of {', '.join(PRESETS)}")
    return given


def per_model_quota_of(file: ConfigFile) -> tuple[str, object] | None:
    """Return where a file says what each model may be used for beside its cache, and what; None where it does not."""
    table = _table(file)
    if PER_MODEL_QUOTA in table:
        return child(TABLE, PER_MODEL_QUOTA), table[PER_MODEL_QUOTA]
    return (PER_MODEL_QUOTA, file.values[PER_MODEL_QUOTA]) if PER_MODEL_QUOTA in file.values else None


def _table(file: ConfigFile) -> Mapping[str, object]:
    given = file.values.get(TABLE, {})
    if not isinstance(given, dict):
        raise file.error(TABLE, f"expected a table, [{TABLE}]")
    return {str(key): value for key, value in given.items()}


def schemas(quota: Mapping[str, object]) -> dict[str, object]:
    """Return what a JSON schema says of the table and of its keys at the top; `quota` is that of a model's limits."""
    plain = shown(DEFAULT)
    properties: dict[str, object] = {
        key: {**_SPECIAL[key], "description": meaning, "default": plain[key]} for key, meaning in MEANINGS.items()
    }
    properties |= {PRESET: {"enum": list(PRESETS)}, PER_MODEL_QUOTA: dict(quota)}
    table = {"title": "Prompt cache.", "type": "object", "additionalProperties": False, "properties": properties}
    return {TABLE: table, **{key: properties[key] for key in sorted(AT_THE_TOP)}}
