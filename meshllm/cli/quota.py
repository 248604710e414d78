"""`mesh-llm quota`: show what a model may be used for and how much of it is, and change it.

Owns its options and the table. Decides nothing: the node knows limits and counts.
"""

from typing import Annotated
from urllib.parse import quote

import typer

from meshllm.cli.commands import plain_app
from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Json, Model, Port, StateDir
from meshllm.cli.render import clean, print_facts, print_json, print_table, say
from meshllm.cli.routing import document_of
from meshllm.cli.rows import Document, part, text
from meshllm.cli.settings import all_flags

app = plain_app("quota")


@app.callback(invoke_without_command=True)
def quota(
    ctx: typer.Context, as_json: Json = False, port: Port = None, state_dir: StateDir = None, config: ConfigFile = None
) -> None:
    """Show or change what models may be used for: tokens and requests an hour and a day."""
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise CommandError(f"options of `quota` have no place before `{ctx.invoked_subcommand}`", ExitCode.USAGE)
        ctx.obj = all_flags(ctx, port=port, state_dir=state_dir, config=config)
        return
    answer = open_node(ctx, port=port, state_dir=state_dir, config=config).get("/metrics/quotas")
    if as_json:
        print_json(answer)
        return
    reports = part(answer, "per_model")
    if not reports:
        say("no model has quotas")
        return
    rows = [_row(name, part(reports, name)) for name in reports]
    print_table(("MODEL", "MODE", "BINDS", "HOUR", "DAY", "RUNNING"), rows)


@app.command("show")
def show(
    ctx: typer.Context,
    model: Model,
    as_json: Json = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Show what a model may be used for, and how much of it is used."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    limits, report = client.get(_path(model)), client.get(f"{_path(model)}/report")
    if as_json:
        print_json({**limits, "report": dict(report)})
        return
    said = [(name, value or "no limit") for name, value in part(limits, "quotas").items()]
    print_facts([
        ("model", text(limits, "model_id")), ("mode", text(report, "mode")), *said,
        ("on_limit", text(limits, "on_limit")), ("timezone", text(limits, "timezone")),
    ])  # fmt: skip
    print()
    windows = part(report, "windows")
    print_table(
        ("LIMIT", "USED", "OF", "PERCENT", "BEGINS ANEW"),
        [(name.replace("_", " "), *_used(part(windows, name))) for name in windows],
    )


@app.command("set")
def change(
    ctx: typer.Context,
    model: Model,
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="hourly_token_limit=500000; 0 or null: no limit.")
    ],
    as_json: Json = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Change what a model may be used for, in the whole mesh; what is not named stays."""
    answer = open_node(ctx, port=port, state_dir=state_dir, config=config).post(_path(model), document_of(changes))
    if as_json:
        print_json(answer)
    else:
        say(f"done: the quotas of {clean(text(answer, 'model_id'))}, version {answer.get('version')}")


def _path(model: str) -> str:
    return f"/quotas/{quote(model, safe='')}"


def _row(name: str, report: Document) -> tuple[object, ...]:
    windows, running = part(report, "windows"), part(report, "concurrent")
    return (
        clean(name), text(report, "mode"), (text(report, "binding") or "-").replace("_", " "),
        _both(windows, "hourly"), _both(windows, "daily"), _of(running),
    )  # fmt: skip


def _both(windows: Document, name: str) -> str:
    """Return tokens and requests of a window."""
    tokens, requests = part(windows, f"{name}_tokens"), part(windows, f"{name}_requests")
    return f"{_of(tokens)} tokens, {_of(requests)} requests"


def _of(window: Document) -> str:
    limit = window.get("limit")
    return f"{window.get('used', 0)} of {limit}" if limit else str(window.get("used", 0))


def _used(window: Document) -> tuple[object, ...]:
    limit = window.get("limit")
    percent = f"{window.get('percent')} %" if limit else "-"
    return window.get("used", 0), limit or "-", percent, text(window, "resets_at")
