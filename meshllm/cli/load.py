"""`mesh-llm load`: bring a model into memory.

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
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Don't wait until it is loaded.")] = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Bring a model into memory."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    answer = order(client, "/v1/models/reload", {"model_id": model, "wait": not no_wait}, model)
    say(f"{model} is {'loading' if answer.get('status') == 'reloading' else 'loaded'}")
