"""`mesh-llm doctor`: is everything there that a node needs, and which limits it keeps.

Owns the lines. The checks themselves are the daemon's. Works without a node.
"""

from dataclasses import asdict

import typer

from meshllm.cli import standalone
from meshllm.cli.failures import CommandError
from meshllm.cli.options import ConfigFile, Json, ModelsDirs, Port, StateDir
from meshllm.cli.render import print_facts, print_json, print_table
from meshllm.cli.settings import settings
from meshllm.core.limits import all_limits

WORDS = {True: "ok", False: "BAD", None: "note"}


def command(
    ctx: typer.Context,
    as_json: Json = False,
    models_dirs: ModelsDirs = None,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Check this machine and show every limit."""
    checks = standalone.checks(settings(ctx, models_dirs=models_dirs, port=port, state_dir=state_dir, config=config))
    if as_json:
        print_json({"checks": [asdict(check) for check in checks], "limits": all_limits()})
    else:
        print_table(
            ("CHECK", "", "RESULT"),
            [
                (each.name, WORDS[each.is_ok], f"{each.message}{f' ({each.advice})' if each.advice else ''}")
                for each in checks
            ],
        )
        print("\nLimits: bytes, seconds, counts")
        print_facts(list(all_limits().items()))
    bad = [check.name for check in checks if check.is_ok is False]
    if bad:
        raise CommandError(f"not well: {', '.join(bad)}")
