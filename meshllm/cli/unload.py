"""`mesh-llm unload`: take a model out of memory.

Owns its options. Decides nothing: the node does.
"""

from typing import Annotated

import typer

from meshllm.cli.node import open_node, order, scope_of
from meshllm.cli.options import ConfigFile, Model, Node, Port, Scope, StateDir
from meshllm.cli.render import say


def command(
    ctx: typer.Context,
    model: Model,
    hold: Annotated[bool, typer.Option("--hold", help="Don't let a request bring it back.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Cut off the requests in flight.")] = False,
    scope: Scope = None,
    node: Node = None,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:  # fmt: skip
    """Take a model out of memory; a request brings it back."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    body = {"model_id": model, "hold": hold, "force": force, **scope_of(scope, node)}
    order(client, "/v1/models/unload", body, model)
    say(f"unloaded {model}")
