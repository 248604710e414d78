"""`mesh-llm logs`: the newest lines of the node's log or of a model's engine.

Owns its options. Doesn't filter.
"""

from typing import Annotated
from urllib.parse import urlencode

import typer

from meshllm.cli.api_client import LONG_WAIT_S
from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Json, Port, StateDir
from meshllm.cli.render import clean, print_json
from meshllm.core.limits import NODE_ANSWER_TIMEOUT_S


def command(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A model; without one, the node itself.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with lines as they come.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", metavar="N", min=0, help="Lines to begin with.")] = 200,
    as_json: Json = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Show the node's log, or a model's."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    query = {"tail": str(tail), **({"model": model} if model else {}), **({"follow": "1"} if follow else {})}
    path = f"/api/logs?{urlencode(query)}"
    with client.lines("GET", path, timeout_s=LONG_WAIT_S if follow else NODE_ANSWER_TIMEOUT_S) as lines:
        if as_json and not follow:
            print_json(list(lines))
            return
        for line in lines:
            if as_json:
                print_json(line)
            else:
                print(clean(line), flush=follow)
