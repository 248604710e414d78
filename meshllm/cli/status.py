"""`mesh-llm status`: the node, its machine, its engine, its mesh, its models.

Owns the lines. `--json` prints the node's status document as it is.
"""

import typer

from meshllm.cli.members import COLUMNS as MEMBER_COLUMNS
from meshllm.cli.members import members_of, mesh_line, table
from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Json, Port, StateDir
from meshllm.cli.render import count_of, duration, print_facts, print_json, print_table, say, size
from meshllm.cli.rows import Document, items, number, part, problems_of, rows_of, text


def command(
    ctx: typer.Context,
    as_json: Json = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Show the node: machine, engine, mesh, models."""
    status = open_node(ctx, port=port, state_dir=state_dir, config=config).get("/api/status")
    if as_json:
        print_json(status)
        return
    members = members_of(status, "members")
    mesh = mesh_line(part(status, "mesh"), members)
    print_facts([*_facts(status), ("mesh", mesh)])
    if len(members) > 1:
        print()
        print_table(MEMBER_COLUMNS, table(members))
    rows = rows_of(status)
    if rows:
        print()
        columns = ("MODEL", "STATE", "SIZE", "CONTEXT", "REQUESTS", "NOTE")
        print_table(
            columns,
            [
                (row.id, _state(row.phase, row.progress), size(row.size_bytes),
                 count_of(row.context_tokens or row.train_context_tokens), row.requests, row.message)
                for row in rows
            ],
        )  # fmt: skip
    for entry in items(status, "unresolved"):
        say(f"warning: {text(entry, 'name')}: {text(entry, 'message')}")
    for path, message in problems_of(status):
        say(f"warning: {path}: {message}")


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
