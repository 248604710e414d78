"""`mesh-llm config`: check a configuration file, show what is in force, print the schema for editors.

Owns the forms of the three. Works without a node and starts nothing. Never shows a secret.
"""

import json
from typing import Annotated

import typer

from meshllm.cli.commands import plain_app
from meshllm.cli.options import ConfigFile, Json
from meshllm.cli.render import clean, print_facts, print_json
from meshllm.cli.settings import all_flags, configured, settings
from meshllm.config_shown import shown

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


def _line(value: object) -> str:
    """Return a value on one line: of tables their names."""
    if isinstance(value, list):
        names = (item.get("name") if isinstance(item, dict) else item for item in value)
        return ", ".join(clean(name) for name in names)
    if isinstance(value, dict):
        return ", ".join(f"{name}={clean(json.dumps(below))}" for name, below in value.items())
    return "" if value is None else clean(value)
