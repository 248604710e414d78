"""`mesh-llm drop`: withdraw a model from the local node.

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
    keep_running: Annotated[bool, typer.Option("--keep-running", help="Stay, even without a model.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Cut off the requests in flight.")] = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Stop serving a model; the node ends when it was the only one."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    body = {"model": model, "keep_running": keep_running, "force": force}
    say(f"dropped {order(client, '/mesh/drop', body, model).get('dropped', model)}")
