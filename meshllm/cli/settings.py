"""From the options of a command line to the configuration, also for options that stand before the command.

Owns merging the two places and what `-v` and `-q` mean. Doesn't know settings: `config` does.
"""

import os
import sys
from collections.abc import Mapping

import typer

from meshllm.cli.failures import CommandError, ExitCode
from meshllm.config import Config, ConfigError, load


def all_flags(ctx: typer.Context, **own: object) -> dict[str, object]:
    """Return the flags that were given, those after the command's name over those before it."""
    before: Mapping[str, object] = ctx.obj if isinstance(ctx.obj, dict) else {}
    return {**given(before), **given(own)}


def given(flags: Mapping[str, object]) -> dict[str, object]:
    """Return only the flags that say something."""
    return {name: value for name, value in flags.items() if value is not None and value is not False and value != []}


def settings(ctx: typer.Context, **own: object) -> Config:
    """Return the configuration that a command line asks for. Raises CommandError with exit code 2."""
    return configured(all_flags(ctx, **own))


def configured(flags: Mapping[str, object]) -> Config:
    """Return the configuration for flags. Raises CommandError with exit code 2."""
    flags = dict(flags)
    verbose, quiet = flags.pop("verbose", False), flags.pop("quiet", False)
    if verbose and quiet:
        raise CommandError("--verbose and --quiet contradict each other", ExitCode.USAGE)
    if verbose or quiet:
        flags.setdefault("log_level", "debug" if verbose else "warning")
    try:
        return load(flags, os.environ, note=_note)
    except ConfigError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None


def has_port(flags: Mapping[str, object]) -> bool:
    """Tell whether somebody said which port to talk to."""
    return flags.get("port") is not None or bool(os.environ.get("MESH_LLM_PORT"))


def _note(sentence: str) -> None:
    print(f"note: {sentence}", file=sys.stderr)
