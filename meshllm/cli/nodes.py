"""`mesh-llm nodes`: the members of the mesh, as the local node sees them.

Owns nothing but the command: rows and words are `members`'.
"""

import typer

from meshllm.cli.members import COLUMNS, members_of, mesh_line, table
from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Json, Port, StateDir
from meshllm.cli.render import print_json, print_table, say
from meshllm.cli.rows import part


def command(
    ctx: typer.Context,
    as_json: Json = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Show the nodes of the mesh: state, round trip, lines, models."""
    document = open_node(ctx, port=port, state_dir=state_dir, config=config).get("/api/nodes")
    members = members_of(document, "nodes")
    if as_json:
        print_json(members)
        return
    print_table(COLUMNS, table(members))
    mesh = part(document, "mesh")
    say(f"mesh {mesh_line(mesh, members)}; * is this node")
    rights = mesh.get("rights")
    if len(members) < 2 and isinstance(rights, list) and "admin" in rights:
        say("`mesh-llm token` prints the command with which another machine joins")
