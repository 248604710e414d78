"""`mesh-llm pin`: keep a model in a node's memory once it is there, or no longer.

Owns its options. Decides nothing: the node does, and a pin is of one node, never of the mesh.
"""

from typing import Annotated

import typer

from meshllm.cli.node import open_node, order, scope_of
from meshllm.cli.options import ConfigFile, Model, Port, StateDir
from meshllm.cli.render import clean, say


def command(
    ctx: typer.Context,
    model: Model,
    off: Annotated[bool, typer.Option("--off", help="End that: it may make room and rest again.")] = False,
    node: Annotated[
        str | None, typer.Option("--node", metavar="NODE", help="At this node: name, id, or its beginning. [this one]")
    ] = None,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Keep a model in memory once it is there: neither others' room nor idleness unloads it."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    body = {"model_id": model, "pinned": not off, **scope_of(None, node)}
    order(client, "/v1/models/pin", body, model)
    where = f" at {clean(node)}" if node is not None else ""
    say(f"{model} is {'not pinned' if off else 'pinned'}{where}")
