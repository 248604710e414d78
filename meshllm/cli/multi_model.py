"""`mesh-llm multi-model`: start a node with the models of a configuration file, in words that others use.

Owns that the file has to be named. Everything else is `serve`'s.
"""

import typer

from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.options import with_node_options
from meshllm.cli.serve import serve
from meshllm.cli.settings import all_flags


@with_node_options
def command(ctx: typer.Context, **flags: object) -> None:
    """Start a node with the models of --config FILE: JSON, TOML or YAML."""
    given = all_flags(ctx, **flags)
    if not given.get("config"):
        raise CommandError("multi-model needs --config FILE, which names the models", ExitCode.USAGE)
    serve(given)
