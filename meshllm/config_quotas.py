"""The table `[quotas]` of a configuration file: what models may be used for at this node, unless the mesh says else.

Owns reading that table and describing it for editors. Decides nothing about limits: `core.quota_config` has the keys,
their bounds and other spellings. Doesn't know who counts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from meshllm.config_cache import per_model_quota_of, preset_of
from meshllm.config_file import ConfigFile
from meshllm.config_lines import child
from meshllm.core.quota_config import OF_CLIENT, UNLIMITED, OnLimit, QuotaError, Quotas, RateAction, patched

TABLE = "quotas"
DEFAULT = "default"
TIMEZONE, PRESET = "timezone", "preset"
OTHER_TIMEZONE = "quota_timezone"
"""The same at the top of the file."""
UTC = "UTC"
KEYS_TABLE, _KEY = "keys", "key"
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
PRESETS: Mapping[str, Mapping[str, int]] = MappingProxyType({
    "small": {"max_ram_mb": 40_960, "hourly_token_limit": 500_000},
    "medium": {"max_ram_mb": 81_920, "hourly_token_limit": 1_000_000},
    "large": {"max_ram_mb": 81_920, "hourly_token_limit": 2_000_000},
})  # fmt: skip
MEANINGS: Mapping[str, str] = MappingProxyType({
    "max_ram_mb": "Memory of its engine at each host, from its next load on.",
    "max_ssd_gb": "Size of its file: a larger one is not fetched.",
    "hourly_token_limit": "Tokens of prompts and answers in an hour of the clock.",
    "hourly_request_limit": "Requests in an hour of the clock.",
    "daily_token_limit": "Tokens from midnight to midnight.",
    "daily_request_limit": "Requests from midnight to midnight.",
    "burst_token_limit": "Tokens of one request, prompt and answer together.",
    "max_concurrent_requests": "Requests that run at the same time at one host.",
    "on_limit": "What becomes of a request above a limit: `reject`, `queue` for a while, or `warn` and serve it.",
    "soft_limits": "Four percentages: noted, warned of, throttled, throttled hard. [80, 85, 90, 95]",
    "emergency": "`true`: only urgent requests come in.",
    "max_requests_per_second": "At each host.",
    "max_tokens_per_second": "At each host; who comes after too many waits until they are made up for.",
    "burst_requests": "That may come at once. [as many as in a second]",
    "action": "What becomes of a request that comes too early: `reject`, `throttle` (delayed), `queue` or `warn`.",
    "grace_period_sec": "So long after the first excess, requests that come too early are served.",
})  # fmt: skip
"""Every key of a model's table, with what it means; 0 is no limit."""
_SPECIAL: Mapping[str, Mapping[str, object]] = MappingProxyType({
    "on_limit": {"enum": list(OnLimit)}, "emergency": {"type": "boolean"}, "max_ssd_gb": {"type": "number"},
    "action": {"enum": list(RateAction)},
    **{name: {"type": "number"} for name in ("max_requests_per_second", "max_tokens_per_second", "grace_period_sec")},
    "soft_limits": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettings:
    """What a file says of quotas."""

    quotas: tuple[tuple[str, Quotas], ...] = ()
    """By the model's id; "" is every other model."""
    timezone: str = UTC
    keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Keys of clients, and what these are called."""


NO_SETTINGS = QuotaSettings()


def quotas_of(file: ConfigFile) -> QuotaSettings:
    """Return what a file says of quotas. Raises ConfigError."""
    table = file.values.get(TABLE, {})
    if not isinstance(table, dict):
        raise file.error(TABLE, f"expected a table, [{TABLE}]")
    place = child(TABLE, TIMEZONE) if TIMEZONE in table else OTHER_TIMEZONE
    zone = _timezone(file, place, table.get(TIMEZONE, file.values.get(OTHER_TIMEZONE, UTC)))
    found: dict[str, Quotas] = {}
    preset = table[PRESET] if PRESET in table else preset_of(file)
    if preset is not None:
        found[""] = _preset(file, preset)
    if (everybody := per_model_quota_of(file)) is not None:
        found[""] = _quotas(file, everybody[0], everybody[1], found.get("", UNLIMITED))
    for name, given in table.items():
        if name in {TIMEZONE, PRESET}:
            continue
        model = "" if name == DEFAULT else str(name)
        found[model] = _quotas(file, child(TABLE, str(name)), given, found.get("", UNLIMITED))
    keys: dict[str, str] = {}
    for name, given in _clients(file).items():
        keys[_key(file, name, given, keys)] = name
        limits = {key: value for key, value in given.items() if key != _KEY}
        found[f"{OF_CLIENT}{name}"] = _quotas(file, child(KEYS_TABLE, name), limits, UNLIMITED)
    return QuotaSettings(quotas=tuple(sorted(found.items())), timezone=zone, keys=tuple(keys.items()))


def _clients(file: ConfigFile) -> Mapping[str, Mapping[str, object]]:
    """Return the tables of clients that have keys of their own."""
    table = file.values.get(KEYS_TABLE, {})
    if not isinstance(table, dict):
        raise file.error(KEYS_TABLE, f"expected tables, [{KEYS_TABLE}.NAME]")
    for name, given in table.items():
        if not isinstance(given, dict):
            raise file.error(child(KEYS_TABLE, str(name)), f"expected a table, [{KEYS_TABLE}.{name}]")
        if not _CLIENT.fullmatch(str(name)):
            raise file.error(child(KEYS_TABLE, str(name)), "expected a name of letters, digits, dots and dashes")
    return {str(name): given for name, given in table.items()}


def _key(file: ConfigFile, name: str, given: Mapping[str, object], others: Mapping[str, str]) -> str:
    """Return a client's key: visible text that nobody else has."""
    place, key = child(child(KEYS_TABLE, name), _KEY), given.get(_KEY)
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or not key.strip():
        raise file.error(place, "expected the key that this client shows")
    if key.strip() in others:
        raise file.error(place, "is another client's key, too")
    return key.strip()


def _quotas(file: ConfigFile, place: str, given: object, base: Quotas) -> Quotas:
    """Return one model's quotas: what is not said is as for all models that were said before it."""
    if not isinstance(given, dict):
        raise file.error(place, f"expected a table of limits, or {TIMEZONE} and {PRESET}")
    try:
        return patched(base, {str(key): value for key, value in given.items()})
    except QuotaError as error:
        raise file.error(child(place, error.key), error.message) from None


def _preset(file: ConfigFile, given: object) -> Quotas:
    if not isinstance(given, str) or given not in PRESETS:
        raise file.error(child(TABLE, PRESET), f"expected one of {', '.join(PRESETS)}")
    return patched(UNLIMITED, PRESETS[given])


def _timezone(file: ConfigFile, place: str, given: object) -> str:
    """Return the name of a zone that exists; UTC does also where no table of zones is installed."""
    import zoneinfo  # noqa: PLC0415 - costs start-up time that only a file with this key has to pay

    if given == UTC:
        return UTC
    try:
        zoneinfo.ZoneInfo(given if isinstance(given, str) else "")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise file.error(place, "expected the name of a time zone, like Europe/Berlin") from None
    return str(given)


def schema_of_keys() -> dict[str, object]:
    """Return what a JSON schema says of the tables of clients."""
    one = {"allOf": [schema_of_limits(), {"properties": {_KEY: {"type": "string"}}, "required": [_KEY]}]}
    return {"title": "Clients with keys of their own.", "type": "object", "additionalProperties": one}


def schema_of_limits() -> dict[str, object]:
    """Return what a JSON schema says of one model's limits."""
    properties = {
        key: {**_SPECIAL.get(key, {"type": "integer", "minimum": 0}), "description": meaning}
        for key, meaning in MEANINGS.items()
    }
    return {"title": "What a model may be used for.", "type": "object", "properties": properties}


def schema() -> dict[str, object]:
    """Return what a JSON schema says of the table."""
    one = schema_of_limits()
    known = {PRESET: {"enum": list(PRESETS)}, TIMEZONE: {"type": "string"}, DEFAULT: one}
    return {"title": "Quotas.", "type": "object", "properties": known, "additionalProperties": one}
