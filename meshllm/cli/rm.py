"""`mesh-llm rm`: delete a model's files, through the running node or without one.

Owns nothing else. The node unloads the model before.
"""

from urllib.parse import quote

import typer

from meshllm.cli import standalone
from meshllm.cli.node import look
from meshllm.cli.options import ConfigFile, Model, ModelsDirs, Port, StateDir
from meshllm.cli.render import say


def command(
    ctx: typer.Context,
    model: Model,
    models_dirs: ModelsDirs = None,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Delete a model's files."""
    found = look(ctx, port=port, state_dir=state_dir, config=config, models_dirs=models_dirs)
    if found.status is not None:
        files = found.client.delete(f"/api/models/{quote(model, safe='')}").get("files")
        paths = [str(path) for path in files] if isinstance(files, list) else []
    else:
        paths = [str(path) for path in standalone.remove(found.config, model)]
    for path in paths:
        say(f"deleted {path}")
