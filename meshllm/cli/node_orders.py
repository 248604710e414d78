"""`mesh-llm node revoke`: expel a node from the mesh.

Owns its options and the question before. Decides nothing: the node does.
"""

import sys
from typing import Annotated
from urllib.parse import quote

import typer

from meshllm.cli.commands import plain_app
from meshllm.cli.failures import CommandError
from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Port, StateDir
from meshllm.cli.render import clean, say

app = plain_app("node")


@app.callback()
def orders() -> None:
    """Expel a node from the mesh."""


@app.command("revoke")
def revoke(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its id, the beginning of it, or its name.")],
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the logs.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Expel a node for good: it cannot come back by its certificate, nor by any token."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    if not yes and sys.stdin.isatty() and not typer.confirm(f"expel {clean(node)} from the mesh for good?", err=True):
        raise CommandError("nothing was done")
    answer = client.post(f"/api/nodes/{quote(node, safe='')}/revoke", {"reason": reason or ""})
    say(f"{answer.get('revoked', node)} is expelled; all nodes hear of it within seconds")
