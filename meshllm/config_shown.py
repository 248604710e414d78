"""A configuration as a document: every setting by its name, as it is in force, for commands and the API.

Owns which settings are secret: of those it says that they are set, and no more. Decides nothing. Doesn't know where a
setting came from.
"""

from dataclasses import fields

from meshllm.config import Config
from meshllm.core.cache_config import CacheConfig
from meshllm.core.cache_config import shown as caches_shown
from meshllm.core.policy import ModelPolicy
from meshllm.core.quota_config import shown as shown_quotas
from meshllm.core.remotes import RemoteBackend
from meshllm.core.resources import MemoryLimit
from meshllm.core.routing_config import RoutingConfig
from meshllm.core.routing_config import shown as routing_shown

SECRETS = frozenset({"admin_key", "api_key", "join"})


def shown(config: Config) -> dict[str, object]:
    """Return every setting by its name, with secrets left out."""
    found = {field.name: _shown(field.name, getattr(config, field.name)) for field in fields(Config)}
    clients = [name for _, name in config.client_keys]
    return found | {
        "client_keys": clients,
        "quotas": {name or "default": shown_quotas(one) for name, one in config.quotas},
    }


def _shown(name: str, value: object) -> object:
    if name in SECRETS:
        return "(set)" if value else ""
    if isinstance(value, tuple):
        return [_item(item) for item in value]
    if isinstance(value, RoutingConfig):
        return routing_shown(value)
    if isinstance(value, CacheConfig):
        return caches_shown(value)
    if isinstance(value, MemoryLimit):
        return f"{value.share:.0%}" if value.share is not None else f"{value.size_bytes}B"
    return value if isinstance(value, bool | int | float | None) else str(value)


def _item(item: object) -> object:
    if isinstance(item, ModelPolicy):
        return {field.name: _shown("", getattr(item, field.name)) for field in fields(item)}
    if isinstance(item, RemoteBackend):
        has_key = bool(item.api_key)
        return {"name": item.name, "base_url": item.base_url, "models": list(item.models), "has_key": has_key}
    return str(item)
