"""`mesh-llm routing`: show how requests are routed, change it, and show the numbers.

Owns its options and the way from `KEY=VALUE` to a change. Decides nothing: the node knows keys and what they may be.
"""

import json
from typing import Annotated

import typer

from meshllm.cli.commands import plain_app
from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Json, Port, StateDir
from meshllm.cli.render import clean, print_facts, print_json, say
from meshllm.cli.rows import Document, part, text
from meshllm.cli.settings import all_flags

app = plain_app("routing")
PATH = "/routing/config"
Where = Annotated[
    str | None, typer.Option("--scope", metavar="SCOPE", help="mesh, or node for this one alone. [as it was, mesh]")
]


@app.callback(invoke_without_command=True)
def routing(
    ctx: typer.Context, as_json: Json = False, port: Port = None, state_dir: StateDir = None, config: ConfigFile = None
) -> None:
    """Show or change how requests are routed to models and hosts."""
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise CommandError(f"options of `routing` have no place before `{ctx.invoked_subcommand}`", ExitCode.USAGE)
        ctx.obj = all_flags(ctx, port=port, state_dir=state_dir, config=config)
        return
    _print(open_node(ctx, port=port, state_dir=state_dir, config=config).get(PATH), as_json=as_json)


@app.command("show")
def show(
    ctx: typer.Context, as_json: Json = False, port: Port = None, state_dir: StateDir = None, config: ConfigFile = None
) -> None:
    """Show how requests are routed here; the same as `routing` alone."""
    _print(open_node(ctx, port=port, state_dir=state_dir, config=config).get(PATH), as_json=as_json)


@app.command("set")
def change(
    ctx: typer.Context,
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="strategy=random, weights.NAME=2; =null: its default.")
    ],
    scope: Where = None,
    as_json: Json = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Change how requests are routed; what is not named stays."""
    body = document_of(changes) | ({} if scope is None else {"scope": scope})
    answer = open_node(ctx, port=port, state_dir=state_dir, config=config).post(PATH, body)
    if as_json:
        print_json(answer)
    else:
        say(f"done: {_said_by(answer)}")


@app.command("reset")
def reset(ctx: typer.Context, port: Port = None, state_dir: StateDir = None, config: ConfigFile = None) -> None:
    """End this node's own choice: what the mesh has chosen counts again."""
    answer = open_node(ctx, port=port, state_dir=state_dir, config=config).post(PATH, {"scope": "mesh"})
    say(f"done: {_said_by(answer)}")


@app.command("stats")
def stats(
    ctx: typer.Context, as_json: Json = False, port: Port = None, state_dir: StateDir = None, config: ConfigFile = None
) -> None:
    """Show how many requests this node has routed, and how."""
    answer = open_node(ctx, port=port, state_dir=state_dir, config=config).get("/routing/stats")
    if as_json:
        print_json(answer)
        return
    strategies = part(answer, "per_strategy")
    plain = [(name.replace("_", " "), value) for name, value in answer.items() if not isinstance(value, dict | list)]
    print_facts([*plain, *((f"by {name}", count) for name, count in strategies.items())])


def document_of(changes: list[str]) -> dict[str, object]:
    """Return `KEY=VALUE` and `KEY.PART=VALUE` as a change. Values are JSON, else words. Raises CommandError."""
    found: dict[str, object] = {}
    for change in changes:
        key, mark, value = change.partition("=")
        if not mark or not key.strip():
            raise CommandError(f"expected KEY=VALUE, not {clean(change[:80])!r}", ExitCode.USAGE)
        # Names of models have dots, keys have none: the first one divides.
        name, dot, below = key.strip().partition(".")
        if not dot:
            found[name] = _value(value)
            continue
        table = found.setdefault(name, {})
        if not isinstance(table, dict):
            raise CommandError(f"{clean(name)} is given twice", ExitCode.USAGE)
        table[below] = _value(value)
    return found


def _value(text_: str) -> object:
    try:
        return json.loads(text_)
    except (ValueError, RecursionError):
        return text_


def _print(answer: Document, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    facts = [(key, _line(value)) for key, value in answer.items() if key not in {"scope", "version"}]
    print_facts([*facts, ("chosen", _said_by(answer))])


def _line(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _said_by(answer: Document) -> str:
    version = answer.get("version")
    if text(answer, "scope") == "node":
        return "for this node alone"
    return f"for the mesh, version {version}" if version else "by nobody: these are the defaults"
