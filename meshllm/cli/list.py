"""`mesh-llm list`: the models on disk, with what the running node knows of them.

Owns the columns. Works without a node too.
"""

import typer

from meshllm.cli import standalone
from meshllm.cli.node import look
from meshllm.cli.options import ConfigFile, Json, ModelsDirs, Port, StateDir
from meshllm.cli.render import count_of, print_json, print_table, say, size
from meshllm.cli.rows import problems_of, row_of_spec, rows_of


def command(
    ctx: typer.Context,
    as_json: Json = False,
    models_dirs: ModelsDirs = None,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Show the models on disk."""
    found = look(ctx, port=port, state_dir=state_dir, config=config, models_dirs=models_dirs)
    if found.status is not None:
        rows, problems = rows_of(found.status), problems_of(found.status)
    else:
        specs, bad = standalone.models(found.config)
        rows = [row_of_spec(spec) for spec in specs]
        problems = [(problem.path, problem.message) for problem in bad]
    for path, message in problems:
        say(f"warning: {path}: {message}")
    if as_json:
        print_json(rows)
        return
    columns = ("NAME", "SIZE", "QUANTIZATION", "PARAMETERS", "CONTEXT", "STATE", "ALSO CALLED")
    print_table(
        columns,
        [
            (row.id, size(row.size_bytes), row.quantization or "-", count_of(row.parameters),
             count_of(row.train_context_tokens), row.phase, ", ".join([*row.aliases, *row.versions]) or "-")
            for row in rows
        ],
    )  # fmt: skip
    if not rows:
        say("no model is on this disk; `mesh-llm pull smollm2-135m` fetches a small one")
