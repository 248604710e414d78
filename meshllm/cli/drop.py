"""`mesh-llm drop`: withdraw a model from the local node, or from all.

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
    everywhere: Annotated[bool, typer.Option("--everywhere", help="At all nodes; the others stay running.")] = False,
    keep_running: Annotated[bool, typer.Option("--keep-running", help="Stay, even without a model.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Cut off the requests in flight.")] = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:  # fmt: skip
    """Stop serving a model; the node ends when it was the only one."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    body: dict[str, object] = {"model": model, "keep_running": keep_running, "force": force}
    if everywhere:
        body["everywhere"] = True
    say(f"dropped {order(client, '/mesh/drop', body, model).get('dropped', model)}")
