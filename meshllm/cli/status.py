"""`mesh-llm status`: the node, its machine, its engine, its mesh, its models; `--watch` goes on with what changes.

Owns the lines. `--json` prints the node's status document as it is.
"""

from collections.abc import Iterable
from typing import Annotated

import typer

from meshllm.cli.members import COLUMNS as MEMBER_COLUMNS
from meshllm.cli.members import members_of, mesh_line, table
from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Json, Port, StateDir
from meshllm.cli.render import Table, count_of, duration, print_facts, print_json, print_table, say, size
from meshllm.cli.rows import Document, items, number, part, problems_of, rows_of, text
from meshllm.cli.watching import watch

MODEL_COLUMNS = ("MODEL", "STATE", "SIZE", "CONTEXT", "REQUESTS", "NOTE")


def command(
    ctx: typer.Context,
    as_json: Json = False,
    is_watched: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it as it changes.")] = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Show the node: machine, engine, mesh, models."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    if is_watched:
        watch(client, facts=facts, tables=tables, warnings=warnings, as_json=as_json)
        return
    status = client.get("/api/status")
    if as_json:
        print_json(status)
        return
    print_facts(facts(status))
    for columns, rows in tables(status):
        print()
        print_table(columns, rows)
    for warning in warnings(status):
        say(f"warning: {warning}")


def tables(status: Document) -> list[Table]:
    """Return the tables of members and of models that are not empty."""
    members, models = members_of(status, "members"), rows_of(status)
    found: list[Table] = [(MEMBER_COLUMNS, table(members))] if len(members) > 1 else []
    rows = [
        (row.id, _state(row.phase, row.progress), size(row.size_bytes),
         count_of(row.context_tokens or row.train_context_tokens), row.requests, row.message)
        for row in models
    ]  # fmt: skip
    return [*found, (MODEL_COLUMNS, rows)] if rows else found


def warnings(status: Document) -> Iterable[str]:
    """Yield what a person should look at."""
    for entry in items(status, "unresolved"):
        yield f"{text(entry, 'name')}: {text(entry, 'message')}"
    for path, message in problems_of(status):
        yield f"{path}: {message}"


def facts(status: Document) -> list[tuple[str, object]]:
    """Return the node in names and values."""
    mesh = mesh_line(part(status, "mesh"), members_of(status, "members"))
    return [*_facts(status), ("mesh", mesh)]


def _facts(status: Document) -> list[tuple[str, object]]:
    node, machine, engine = part(status, "node"), part(status, "machine"), part(status, "engine")
    gpus = [
        f"{text(gpu, 'name')} ({size(gpu.get('free_bytes'))} of {size(gpu.get('total_bytes'))} free)"
        for gpu in items(machine, "gpus")
    ]
    no_gpu = text(machine, "gpu_problem") or "none"
    failure = text(part(status, "engine_failure"), "message")
    processor = "GPU" if engine.get("uses_gpu") else "CPU"
    described = f"{text(engine, 'kind')} {text(engine, 'version')} on the {processor}" if engine else "being tested"
    return [
        ("node", f"{text(node, 'name')} ({text(node, 'id')[:8]}), version {text(node, 'version')}"),
        ("address", f"http://{text(node, 'address')}"),
        ("up", f"{duration(node.get('uptime_s'))}{', shutting down' if status.get('leaving') else ''}"),
        ("memory", f"{size(machine.get('memory_free_bytes'))} of {size(machine.get('memory_total_bytes'))} free"),
        ("processor", f"{number(machine, 'cores')} cores"),
        ("GPU", "; ".join(gpus) or no_gpu),
        ("engine", f"none can run: {failure}" if failure else described),
        *(("server", _server(server)) for server in items(status, "servers")),
        ("default model", status.get("default_model") or "-"),
    ]


def _server(server: Document) -> str:
    """Return how it goes with an adopted server."""
    where = f"{text(server, 'name')} at {text(server, 'url') or 'no place'}"
    if not server.get("is_up"):
        return f"{where}: {text(server, 'message')}"
    left_out = number(server, "left_out")
    return f"{where}: {number(server, 'models')} models{f', {left_out} more are not served' if left_out else ''}"


def _state(phase: str, progress: float | None) -> str:
    return phase if progress is None else f"{phase} {progress:.0%}"
