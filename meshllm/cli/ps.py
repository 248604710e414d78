"""`mesh-llm ps`: the models in memory.

Owns the columns. Doesn't know how a model got there.
"""

import typer

from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Json, Port, StateDir
from meshllm.cli.render import count_of, duration, print_json, print_table, size
from meshllm.cli.rows import ModelRow, part, rows_of

IN_MEMORY = frozenset({"loading", "ready", "draining", "stopping", "retrying"})


def command(
    ctx: typer.Context,
    as_json: Json = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Show the models in memory."""
    status = open_node(ctx, port=port, state_dir=state_dir, config=config).get("/api/status")
    rows = [row for row in rows_of(status) if row.phase in IN_MEMORY]
    if as_json:
        print_json(rows)
        return
    processor = "GPU" if part(status, "engine").get("uses_gpu") else "CPU"
    columns = ("NAME", "STATE", "MEMORY", "PROCESSOR", "CONTEXT", "SLOTS", "IN FLIGHT", "UP")
    print_table(columns, [_cells(row, processor) for row in rows])


def _cells(row: ModelRow, processor: str) -> tuple[object, ...]:
    context = count_of(row.context_tokens)
    return (
        row.id,
        row.phase,
        size(row.memory_bytes),
        processor,
        context,
        row.slots or "-",
        row.in_flight,
        duration(row.ready_for_s),
    )
