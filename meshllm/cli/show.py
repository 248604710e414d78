"""`mesh-llm show`: what is known of one model, and the memory arithmetic on this machine.

Owns the lines. The arithmetic is `core.serving.capacity`'s. Works without a node too.
"""

from dataclasses import asdict

import typer

from meshllm.cli import standalone
from meshllm.cli.node import Surroundings, look
from meshllm.cli.options import ConfigFile, Json, Model, ModelsDirs, Port, StateDir
from meshllm.cli.render import count_of, print_facts, print_json, size
from meshllm.cli.rows import ModelRow, part, row_of_spec, rows_of
from meshllm.core.catalog import ModelSpec
from meshllm.core.ids import ModelId
from meshllm.core.names import NameIndex


def command(
    ctx: typer.Context,
    model: Model,
    as_json: Json = False,
    models_dirs: ModelsDirs = None,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Show one model: what its file says and the memory that it takes."""
    found = look(ctx, port=port, state_dir=state_dir, config=config, models_dirs=models_dirs)
    known = _known(found, model)
    spec = standalone.find(found.config, known.id if known is not None else model)
    row = known or row_of_spec(spec)
    measured = standalone.resources(found.config)
    uses_gpu = bool(measured.gpus) if found.status is None else part(found.status, "engine").get("uses_gpu") is True
    memory = standalone.memory(found.config, spec, measured, uses_gpu=uses_gpu)
    if as_json:
        print_json({"model": asdict(row), "files": list(spec.files), "memory": dict(memory)})
        return
    print_facts([*_facts(row, spec), *((f"memory: {name}", value) for name, value in memory)])


def _known(found: Surroundings, asked: str) -> ModelRow | None:
    """Return what the running node says of a model, if it has it."""
    if found.status is None:
        return None
    rows = {ModelId(row.id): row for row in rows_of(found.status)}
    aliases: dict[str, list[ModelId]] = {}
    for model, row in rows.items():
        for alias in row.aliases:
            aliases.setdefault(alias, []).append(model)
    name = NameIndex(rows, aliases).resolve(asked)
    return rows.get(name) if isinstance(name, str) else None


def _facts(row: ModelRow, spec: ModelSpec) -> list[tuple[str, object]]:
    return [
        ("name", row.id),
        ("also called", ", ".join(row.aliases) or "-"),
        ("state", f"{row.phase}: {row.message}" if row.message else row.phase),
        ("file", spec.path if len(spec.files) == 1 else f"{spec.path} and {len(spec.files) - 1} more"),
        ("size", size(spec.size_bytes)),
        ("digest", spec.digest or "not computed yet"),
        ("architecture", spec.architecture.name),
        ("parameters", count_of(spec.parameters)),
        ("quantization", spec.quantization or "-"),
        ("trained context", count_of(spec.architecture.context_tokens)),
        ("can do", ", ".join(sorted(spec.capabilities)) or "-"),
    ]
