"""`mesh-llm config`: check a configuration file, show what is in force, print the schema for editors.

Owns the forms of the three. Works without a node and starts nothing. Never shows a secret.
"""

import json
from dataclasses import fields
from typing import Annotated

import typer

from meshllm.cli.commands import plain_app
from meshllm.cli.options import ConfigFile, Json
from meshllm.cli.render import clean, print_facts, print_json
from meshllm.cli.settings import all_flags, configured, settings
from meshllm.config import Config
from meshllm.core.policy import ModelPolicy
from meshllm.core.quota_config import shown as shown_quotas
from meshllm.core.remotes import RemoteBackend
from meshllm.core.resources import MemoryLimit
from meshllm.core.routing_config import RoutingConfig
from meshllm.core.routing_config import shown as routing_shown

SECRETS = frozenset({"api_key", "join"})

app = plain_app("config")


@app.callback()
def config_commands() -> None:
    """Check a configuration file, show what is in force, or print its schema."""


@app.command("check")
def check(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file: TOML, JSON or YAML.")],
    as_json: Json = False,
) -> None:
    """Say whether a file can be used: exit code 2 and the place of the first mistake when it cannot."""
    found = configured(all_flags(ctx, config=file))
    if as_json:
        print_json(shown(found))
        return
    counts = [_count(len(found.policies), "model"), f"{_count(len(found.remotes), 'server')} elsewhere"]
    eager = ", ".join(clean(name) for name in found.models) or "whatever is on disk and fits"
    print_facts([("file", file), ("says", ", ".join(counts)), ("serves from the start", eager)])


@app.command("show")
def show(ctx: typer.Context, as_json: Json = False, config: ConfigFile = None) -> None:
    """Show every setting as it is in force, from flags, environment and file."""
    found = shown(settings(ctx, config=config))
    if as_json:
        print_json(found)
    else:
        print_facts([(name, _line(value)) for name, value in found.items()])


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of configuration files, for editors that check and complete."""
    from meshllm.config_schema import json_schema

    print_json(json_schema())


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


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


def _line(value: object) -> str:
    """Return a value on one line: of tables their names."""
    if isinstance(value, list):
        names = (item.get("name") if isinstance(item, dict) else item for item in value)
        return ", ".join(clean(name) for name in names)
    if isinstance(value, dict):
        return ", ".join(f"{name}={clean(json.dumps(below))}" for name, below in value.items())
    return "" if value is None else clean(value)
