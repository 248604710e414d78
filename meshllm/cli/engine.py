"""`mesh-llm engine show`: the inference program of this machine, as its self-test finds it.

Owns the lines. Works without a node.
"""

import typer

from meshllm.cli import standalone
from meshllm.cli.commands import plain_app
from meshllm.cli.failures import CommandError
from meshllm.cli.options import ConfigFile, Json, StateDir
from meshllm.cli.render import print_facts, print_json
from meshllm.cli.settings import settings
from meshllm.core.engines import EngineFailure

app = plain_app("engine")


@app.callback()
def engine() -> None:
    """Show the inference engine of this machine."""


@app.command("show")
def show(ctx: typer.Context, as_json: Json = False, state_dir: StateDir = None, config: ConfigFile = None) -> None:
    """Run the engine's self-test and show what it finds."""
    found = standalone.engine(settings(ctx, state_dir=state_dir, config=config))
    if as_json:
        print_json(found)
    elif not isinstance(found, EngineFailure):
        facts = [("engine", found.kind), ("version", found.version), ("GPU", "yes" if found.uses_gpu else "no")]
        print_facts([*facts, *([("program", found.program)] if found.program else [])])
    if isinstance(found, EngineFailure):
        raise CommandError(f"no engine can run here: {found.message}")
