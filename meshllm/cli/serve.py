"""`mesh-llm serve`, and `mesh-llm` without a command: run a node in the foreground.

Owns the way from flags to a configuration. Doesn't know the daemon: `node_process` becomes one.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, NoReturn

import typer

from meshllm.cli import standalone
from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.join_texts import HOW_TO_GET_ONE, LAN, STANDARD_INPUT, ask_for_token, join_texts, show_meshes
from meshllm.cli.node_process import become_node
from meshllm.cli.options import with_node_options
from meshllm.cli.render import say
from meshllm.cli.settings import all_flags, configured, given
from meshllm.config import Config, is_loopback


@with_node_options
def command(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None, typer.Option("--model", metavar="MODEL", help="Model to serve; may be repeated.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option("-m", metavar="MODEL", help="The one model to serve.")] = None,
    **flags: object,
) -> None:
    """Start a node; the same as `mesh-llm` without a command."""
    if model and (len(model) > 1 or models):
        raise CommandError("-m names the one model to serve; repeat --model for several", ExitCode.USAGE)
    serve(all_flags(ctx, **flags, models=model or models))


def serve(flags: Mapping[str, object]) -> NoReturn:
    """Become a node until it is asked to leave. Raises CommandError."""
    flags = given(flags)
    config = configured(flags)
    for flag, variable in (("api_key", "MESH_LLM_API_KEY"), ("admin_key", "MESH_LLM_ADMIN_KEY")):
        if flags.get(flag):
            say(f"note: everybody on this machine can see --{flag.replace('_', '-')} in `ps`; {variable} is not shown")
    if config.insecure_no_auth and not config.api_key and not is_loopback(config.host):
        say(f"warning: everybody who reaches {config.host} may use this node (--insecure-no-auth)")
    joins = _listed(flags.get("join"))
    if not all(text.strip() for text in joins):
        # An empty variable in a script: a mesh of its own, founded in silence, is not what was meant.
        raise CommandError(f"--join: the token is empty; {HOW_TO_GET_ONE}", ExitCode.BAD_TOKEN)
    if any(text not in {STANDARD_INPUT, LAN} for text in joins):
        say("note: everybody on this machine can see --join in `ps`; --join-file and MESH_LLM_JOIN are not shown")
    tokens = join_texts(
        config, is_member=standalone.is_member(config), ask=ask_for_token,
        show_lan=lambda: show_meshes(standalone.meshes_in_reach(config)),
    )  # fmt: skip
    become_node(replace(_quieter(config, flags), join=tokens))


_LEVELS = frozenset({"MESH_LLM_LOG_LEVEL", "NOPENAI_LOG_LEVEL"})


def _listed(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _quieter(config: Config, flags: Mapping[str, object]) -> Config:
    """Leave the telling to `Startup` on a terminal, unless somebody chose a level for the log."""
    is_chosen = "log_level" in flags or "verbose" in flags or _LEVELS & os.environ.keys()
    if is_chosen or config.log_format == "json" or config.log_level != "info" or not sys.stderr.isatty():
        return config
    return replace(config, log_level="warning")
