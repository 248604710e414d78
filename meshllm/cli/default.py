"""`mesh-llm default`: show or choose the model that answers where none is named.

Owns its options. Decides nothing: the node does.
"""

from typing import Annotated

import typer

from meshllm.cli.failures import CommandError
from meshllm.cli.node import open_node, scope_of
from meshllm.cli.options import ConfigFile, Json, Node, Port, Scope, StateDir
from meshllm.cli.render import clean, print_json, say


def command(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The new one; none shows it.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="End this node's own choice.")] = False,
    scope: Scope = None,
    node: Node = None,
    as_json: Json = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:  # fmt: skip
    """Show or choose the model that answers where none is named."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    if model is not None and clear:
        raise CommandError("either a model or --clear")
    if model is None and not clear:
        answer = client.get("/v1/models/default")
    else:
        chosen = {"scope": "node"} if clear and scope is None and node is None else scope_of(scope, node)
        answer = client.post("/v1/models/default", {"model_id": model, **chosen})
    if as_json:
        print_json(answer)
        return
    now = answer.get("default_model_id")
    if model is None and not clear:
        print(clean(str(now)) if now else "there is no default model")
    else:
        say(f"the default is {clean(str(now))}" if now else "there is no default model")
