"""The table `[routing]` of a configuration file: how this node routes requests, whatever the mesh has chosen.

Owns reading that table and describing it for editors. Decides nothing about values: `core.routing_config` has the keys,
their ranges and defaults. Doesn't know formats.
"""

from collections.abc import Mapping
from types import MappingProxyType

from meshllm.config_file import ConfigFile
from meshllm.config_lines import child
from meshllm.core import limits
from meshllm.core.routing_config import (
    AB_TEST,
    DEFAULT,
    FALL_BACK,
    REJECT,
    RoutingConfig,
    RoutingConfigError,
    Strategy,
    patched,
    shown,
)

TABLE = "routing"
MEANINGS: Mapping[str, str] = MappingProxyType({
    "strategy": "Chooses the host of a model, always; `ab_test` turns `ab_test_enabled` on.",
    "model_strategy": "Chooses the model, where a request leaves it open.",
    "enable_health_checks": "`false`: unhealthy hosts get requests too; for measurements.",
    "enable_quota_checks": "`false`: what is left of a quota does not count in a choice; at the host it always does.",
    "enable_cache_optimization": "`false`: nothing is remembered of prompts.",
    "max_load_threshold": "Above it a host is used only when all are above; 0 to 1.",
    "min_cache_hit_rate": "Share of a prompt that some host has to have cached, for caches to decide; 0 to 1.",
    "affinity_timeout_sec": "How long a session stays bound after its last request.",
    "affinity_from_user": "The fields `user` and `prompt_cache_key` name a session where nothing else does.",
    "max_retries": "How often a request is tried again before its first byte.",
    "retry_delay_ms": "How long it waits before that.",
    "unknown_model": "For a model nobody has: `reject` or `fallback`. `--unknown-model` wins over it.",
    "ab_test_enabled": "Requests whose model is open are shared between compared models.",
    "ab_test_split": "Share of the first one; 0 to 1.",
    "ab_test_model_a": "The first one.",
    "ab_test_model_b": "The second one.",
    "ab_test_variants": "Instead of these two any number of models: a table of names and weights.",
    "weights": "For `weighted_random`: a table of models or nodes and their weights.",
    "score_weights": "What the composite score is made of: a table with `cache`, `load`, `quota`.",
    "shadow": "Models of which a share of requests is copied to another: tables with `of`, `to`, `sample`.",
    "rollout": 'A model that takes over step by step: `of`, `to`, `steps` as `[["1%", "10m"], ["100%"]]`.',
    "routing_time_alarm_us": "A choice that takes longer is worth a warning.",
})  # fmt: skip
"""Every key of the table, with what it means."""
_SPECIAL: Mapping[str, Mapping[str, object]] = MappingProxyType({
    "strategy": {"enum": [*Strategy, AB_TEST]}, "model_strategy": {"enum": list(Strategy)},
    "unknown_model": {"enum": [REJECT, FALL_BACK]}, "ab_test_model_a": {"type": "string"},
    "ab_test_model_b": {"type": "string"},
    "max_retries": {"type": "integer", "minimum": 0, "maximum": limits.ROUTING_RETRIES_MOST},
})  # fmt: skip


def routing_of(file: ConfigFile) -> RoutingConfig | None:
    """Return what a file says of routing, None where it says nothing. Raises ConfigError."""
    given = file.values.get(TABLE)
    if given is None:
        return None
    if not isinstance(given, dict):
        raise file.error(TABLE, f"expected a table, [{TABLE}]")
    try:
        return patched(DEFAULT, {str(key): value for key, value in given.items()})
    except RoutingConfigError as error:
        raise file.error(child(TABLE, error.key), error.message) from None


def schema() -> dict[str, object]:
    """Return what a JSON schema says of the table."""
    kinds = {bool: "boolean", float: "number", int: "number", dict: "object", list: "array"}
    plain = shown(DEFAULT)
    properties = {
        key: {**(_SPECIAL[key] if key in _SPECIAL else {"type": kinds[type(plain[key])]}), "description": meaning}
        for key, meaning in MEANINGS.items()
    }
    return {"title": "Routing.", "type": "object", "additionalProperties": False, "properties": properties}
