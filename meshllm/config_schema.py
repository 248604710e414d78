"""The JSON schema of the configuration file, made from the same tables that read it.

Owns its form, for editors that complete and check. Decides nothing: what a key may hold stands with the key. Doesn't
know TOML; the schema is of the values, in whatever format.
"""

from collections.abc import Mapping

from meshllm import config_cache, config_quotas
from meshllm.config_keys import HIDDEN_KEYS, MODEL_KEYS, REMOTE_KEYS, Key
from meshllm.config_kinds import KINDS, ValueKind
from meshllm.config_routing import TABLE, schema
from meshllm.config_sections import COMMANDS, OTHER_NAMES, SECTIONS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_LAYERS: Mapping[str, object] = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}, {"type": "array"}]}
_SPECIAL: Mapping[str, object] = {
    "gpu_layers": _LAYERS,
    "quant": {"type": ["string", "integer"]},
    "isq": False,
    "jinja": {"type": ["boolean", "string"]},
    "max_vram": {"type": "string", "pattern": r"^[0-9.]+ *(%|[kKMGT]?i?B?)$"},
}


def json_schema() -> dict[str, object]:
    """Return the schema as a document."""
    settings = {name: _of_kind(name, kind) for name, kind in KINDS.items() if name != "models"}
    models = {"anyOf": [_NAME, _object(MODEL_KEYS, "One model.")]}
    settings[TABLE] = schema()
    settings |= config_cache.schemas(config_quotas.schema_of_limits())
    settings[config_quotas.TABLE] = config_quotas.schema()
    settings[config_quotas.OTHER_TIMEZONE] = {"type": "string"}
    settings[config_quotas.KEYS_TABLE] = config_quotas.schema_of_keys()
    sections = {
        table: {
            "type": "object", "additionalProperties": False,
            "properties": {name: settings[setting] for name, setting in keys.items()},
        }
        for table, keys in SECTIONS.items()
    }  # fmt: skip
    return {
        "$schema": DRAFT,
        "title": "mesh-llm configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "$schema": {"type": "string"},
            "command": {"enum": sorted(COMMANDS)},
            **settings,
            **{other: settings[name] for other, name in OTHER_NAMES.items()},
            **sections,
            "allow_mixed_cpu": {"type": "boolean"},
            "models": {"anyOf": [_NAME, {"type": "array", "items": models}]},
            "remotes": {"type": "array", "items": _object(REMOTE_KEYS, "A server elsewhere.", needs=("base_url",))},
        },
    }


_NAME = {"type": "string", "minLength": 1}


def _of_kind(name: str, kind: ValueKind) -> object:
    """Return what a value has to be; a list may be one string."""
    one = _SPECIAL.get(name, dict(kind.schema))
    return {"anyOf": [one, {"type": "array", "items": one}]} if kind.is_list else one


def _object(keys: Mapping[str, Key], title: str, needs: tuple[str, ...] = ()) -> dict[str, object]:
    """Return the schema of a table, with the tables below it and every other spelling."""
    properties: dict[str, object] = {}
    below: dict[str, dict[str, object]] = {}
    for own, key in keys.items():
        if own in HIDDEN_KEYS:
            continue
        schema = _of_kind(own, key.kind)
        if own == "aliases" and keys is REMOTE_KEYS:
            schema = {"type": "object", "additionalProperties": _NAME}
        if isinstance(schema, dict):
            schema = {**schema, "description": key.meaning}
        for spelling in (own, *key.also):
            properties[spelling] = schema
            if key.table:
                below.setdefault(key.table, {})[spelling] = schema
    for table, inner in below.items():
        properties[table] = {"type": "object", "additionalProperties": False, "properties": inner}
    found: dict[str, object] = {"title": title, "type": "object", "additionalProperties": False}
    return {**found, "properties": properties, **({"required": list(needs)} if needs else {})}
