"""`mesh-llm unload`: take a model out of memory.

Owns its options. Decides nothing: the node does.
"""

from typing import Annotated

import typer

from meshllm.cli.node import open_node, order
from meshllm.cli.options import ConfigFile, Model, Port, StateDir
from meshllm.cli.render import say


def command(
    ctx: typer.Context,
    model: Model,
    hold: Annotated[bool, typer.Option("--hold", help="Don't let a request bring it back.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Cut off the requests in flight.")] = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Take a model out of memory; a request brings it back."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    order(client, "/v1/models/unload", {"model_id": model, "hold": hold, "force": force}, model)
    say(f"unloaded {model}")
