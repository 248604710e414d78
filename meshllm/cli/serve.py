"""`mesh-llm serve`, and `mesh-llm` without a command: run a node in the foreground.

Owns the way from flags to the daemon and its end as an exit code. Doesn't know the daemon's inside: it hands over
a configuration and somebody who listens.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import typer

from meshllm.cli import standalone
from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.join_texts import HOW_TO_GET_ONE, LAN, STANDARD_INPUT, ask_for_token, join_texts, show_meshes
from meshllm.cli.options import with_node_options
from meshllm.cli.render import Bars, say
from meshllm.cli.settings import all_flags, configured, given
from meshllm.cli.startup import Startup
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


def serve(flags: Mapping[str, object]) -> None:
    """Run a node until it is asked to leave, then exit. Raises CommandError, and typer's Exit."""
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
    raise typer.Exit(_run(replace(_quieter(config, flags), join=tokens)))


_LEVELS = frozenset({"MESH_LLM_LOG_LEVEL", "NOPENAI_LOG_LEVEL"})


def _listed(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _quieter(config: Config, flags: Mapping[str, object]) -> Config:
    """Leave the telling to `Startup` on a terminal, unless somebody chose a level for the log."""
    is_chosen = "log_level" in flags or "verbose" in flags or _LEVELS & os.environ.keys()
    if is_chosen or config.log_format == "json" or config.log_level != "info" or not sys.stderr.isatty():
        return config
    return replace(config, log_level="warning")


def _run(config: Config) -> int:
    from meshllm.daemon.frugal import be_frugal

    be_frugal()
    from meshllm.daemon.errors import StartError
    from meshllm.daemon.node import run

    is_empty = not (config.models or config.remotes or standalone.models(config)[0])
    with Bars() as bars:
        # Machines read the JSON log; lines for people between its lines would break them.
        is_silent = config.log_format == "json"
        startup = Startup(
            (lambda _: None) if is_silent else say, _NoBars() if is_silent else bars,
            shlex.quote(str(config.models_dirs[0])), is_empty=is_empty,
            needs_key=bool(config.api_key), is_client=config.client, console=_console(config),
            # What a service writes is kept in logs, where a token has no place.
            shows_token=sys.stderr.isatty(),
        )  # fmt: skip
        try:
            return run(config, startup)
        except StartError as error:
            raise CommandError(error.message, error.exit_code) from None


def _console(config: Config) -> str:
    """Return the address of the console where it has a port of its own."""
    if config.console in {None, config.port}:
        return ""
    return f"[{config.host}]:{config.console}" if ":" in config.host else f"{config.host}:{config.console}"


class _NoBars:
    """Progress that nobody sees."""

    def show(self, key: str, label: str, share: float, detail: str = "") -> None:
        """Show nothing."""

    def done(self, key: str) -> None:
        """Forget nothing."""
