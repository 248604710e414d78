"""`mesh-llm`: without a command it starts a node, with one it talks to a node or looks at this machine.

Owns the root command and how a failure becomes one line and an exit code. Imports no command before it
is invoked: `--help` has to be quick.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from meshllm import __version__
from meshllm.cli.commands import LazyGroup, plain_app
from meshllm.cli.failures import EPILOG, CommandError, ExitCode
from meshllm.cli.options import with_console_port, with_node_options
from meshllm.cli.streams import prepare

app = plain_app(group=LazyGroup)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mesh-llm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=EPILOG)
@with_node_options
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    multi_model: Annotated[bool, typer.Option("--multi-model", hidden=True)] = False,
    multi_model_config: Annotated[str | None, typer.Option("--multi-model-config", hidden=True)] = None,
    **flags: object,
) -> None:
    """Serve language models: one OpenAI-compatible address for everything that your machines can run.

    Without a command, start a node: `mesh-llm --model smollm2-135m`. Without a model, it serves what is on disk
    and fits. Options may stand before or after a command.
    """
    del version
    if multi_model or multi_model_config is not None:
        flags["config"] = _legacy_config(multi_model_config)
    ctx.obj = flags
    if ctx.invoked_subcommand is None:
        from meshllm.cli.serve import serve

        serve(flags)


def _legacy_config(named: str | None) -> str:
    """Return the file of the older spelling of `multi-model`. Raises CommandError where none is named."""
    if named is None:
        raise CommandError("--multi-model needs --multi-model-config FILE", ExitCode.USAGE)
    print("note: --multi-model is deprecated; write `mesh-llm multi-model --config FILE`", file=sys.stderr)
    return named


def main() -> None:
    """Run the command line of this process and exit."""
    prepare()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line; return its exit code."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except CommandError as error:
        if error.message:
            print(f"mesh-llm: {error.message}", file=sys.stderr)
        return error.exit_code
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        app(args=with_console_port(arguments), prog_name="mesh-llm")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.DONE
    return ExitCode.DONE
