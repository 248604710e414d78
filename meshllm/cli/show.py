"""`mesh-llm show`: what is known of one model, and the memory arithmetic on this machine.

Owns the lines. The arithmetic is `core.serving.capacity`'s. Asks the running node, which may have other model
folders than this command; works without one too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from urllib.parse import quote

import typer

from meshllm.cli import standalone
from meshllm.cli.api_client import ApiClient
from meshllm.cli.node import look
from meshllm.cli.options import ConfigFile, Json, Model, ModelsDirs, Port, StateDir
from meshllm.cli.render import count_of, print_facts, print_json, size
from meshllm.cli.rows import Document, ModelRow, items, number, part, row_of, row_of_spec, text, texts
from meshllm.config import Config


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
    shown = _on_disk(found.config, model) if found.status is None else _of_node(found.client, model)
    if as_json:
        print_json({
            "model": asdict(shown.row), "files": shown.files, "memory": dict(shown.memory), "nodes": shown.nodes,
            "versions": shown.versions,
        })  # fmt: skip
        return
    memory = [(f"memory: {name}", value) for name, value in shown.memory.items()]
    print_facts([*_facts(shown), *map(_version, shown.versions), *map(_node, shown.nodes), *memory])


@dataclass(frozen=True, slots=True)
class _Shown:
    """Everything about one model."""

    row: ModelRow
    files: list[str]
    memory: Mapping[str, object]
    health: str = ""
    nodes: Sequence[Document] = ()
    """Those that serve it or have its file."""
    versions: Sequence[Document] = ()


def _of_node(client: ApiClient, asked: str) -> _Shown:
    """Return what the running node knows of a model. Raises CommandError."""
    document = client.get(f"/api/models/{quote(asked, safe='')}")
    return _Shown(
        row_of(part(document, "model")), texts(document, "files"), part(document, "memory"),
        text(document, "health_status"), list(items(document, "nodes")), list(items(document, "versions")),
    )  # fmt: skip


def _on_disk(config: Config, asked: str) -> _Shown:
    """Return what the disk and the machine say of a model. Raises CommandError."""
    spec = standalone.find(config, asked)
    measured = standalone.resources(config)
    memory = standalone.memory(config, spec, measured, uses_gpu=bool(measured.gpus))
    return _Shown(row_of_spec(spec), list(spec.files), dict(memory))


def _facts(shown: _Shown) -> list[tuple[str, object]]:
    row, files = shown.row, shown.files
    file = files[0] if files else "on other nodes" if shown.nodes else "none is here yet"
    return [
        ("name", row.id),
        ("also called", ", ".join(row.aliases) or "-"),
        ("state", f"{row.phase}: {row.message}" if row.message else row.phase),
        *([("pinned", "stays in memory once it is there")] if row.pinned else []),
        *([("health", shown.health)] if shown.health else []),
        ("file", file if len(files) < 2 else f"{file} and {len(files) - 1} more"),
        ("size", size(row.size_bytes)),
        ("digest", row.digest or "not computed yet"),
        ("architecture", row.architecture or "-"),
        ("parameters", count_of(row.parameters)),
        ("quantization", row.quantization or "-"),
        ("trained context", count_of(row.train_context_tokens)),
        ("can do", ", ".join(row.capabilities) or "-"),
    ]


def _version(version: Document) -> tuple[str, object]:
    """Return the line of a version: `version 1.1.0: sha256:0123456789ab, stable`."""
    words = [text(version, "digest")[:19] or "not computed yet", *texts(version, "aliases")]
    return f"version {text(version, 'version')}", ", ".join(words)


def _node(node: Document) -> tuple[str, object]:
    """Return the line of a node that has the model."""
    slots = number(node, "slots")
    words = [text(node, "status"), text(node, "health_status"), f"{slots} slots" if slots else ""]
    return f"node {text(node, 'name')}", ", ".join(word for word in words if word)
