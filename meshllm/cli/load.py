"""`mesh-llm load`: bring a model into memory.

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
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Don't wait until it is loaded.")] = False,
    scope: Scope = None,
    node: Node = None,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:  # fmt: skip
    """Bring a model into memory."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    body = {"model_id": model, "wait": not no_wait, **scope_of(scope, node)}
    answer = order(client, "/v1/models/reload", body, model)
    say(f"{model} is {'loading' if answer.get('status') == 'reloading' else 'loaded'}")
