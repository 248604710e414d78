"""`mesh-llm from-config -f FILE`: start a node as a configuration file says, in words that others use.

Owns that the file has to be named. Everything else is `serve`'s.
"""

from typing import Annotated

import typer

from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.options import with_node_options
from meshllm.cli.serve import serve
from meshllm.cli.settings import all_flags


@with_node_options
def command(
    ctx: typer.Context,
    file: Annotated[
        str | None, typer.Option("-f", "--file", metavar="FILE", help="The file: TOML, JSON, YAML.")
    ] = None,
    **flags: object,
) -> None:
    """Start a node as -f FILE says."""
    given = all_flags(ctx, **flags)
    if file is not None:
        given["config"] = file
    if not given.get("config"):
        raise CommandError("from-config needs -f FILE", ExitCode.USAGE)
    serve(given)
