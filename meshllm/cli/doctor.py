"""`mesh-llm doctor`: what is wrong here and what to do about it; what can be tuned; the list for production.

Owns its options and the lines. Decides nothing: the checks are the core's. Works without a node.
"""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from meshllm.cli.examination import Examination
from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.options import ConfigFile, Json, ModelsDirs, Port, StateDir
from meshllm.cli.render import print_facts, print_json, print_table
from meshllm.cli.settings import all_flags
from meshllm.core.doctor.findings import Finding, failed
from meshllm.core.doctor.tuning import Tunable
from meshllm.core.limits import all_limits


def command(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A model that is missed, or does not get into memory.")
    ] = None,
    is_production: Annotated[bool, typer.Option("--production", help="Check the list for production.")] = False,
    is_tune: Annotated[bool, typer.Option("--tune", help="Show what can be tuned, with its value.")] = False,
    has_limits: Annotated[bool, typer.Option("--limits", help="Show every written limit.")] = False,
    as_json: Json = False,
    models_dirs: ModelsDirs = None,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Say what is wrong here, or with a model, and what to do about it."""
    if sum((model is not None, is_production, is_tune, has_limits)) > 1:
        raise CommandError("one of MODEL, --production, --tune and --limits", ExitCode.USAGE)
    if has_limits:
        _print_limits(as_json=as_json)
        return
    flags = all_flags(ctx, models_dirs=models_dirs, port=port, state_dir=state_dir, config=config)
    examined = Examination(flags)
    if is_tune:
        _print_tunables(examined.tunables(), as_json=as_json)
        return
    found = examined.production() if is_production else examined.model(model) if model else examined.everything()
    _print_findings(found, as_json=as_json)
    if bad := failed(found):
        raise CommandError(f"not well: {', '.join(bad)}")


def _print_findings(found: list[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json({"checks": [asdict(one) for one in found]})
        return
    for model in dict.fromkeys(one.model for one in found):
        if model != found[0].model:
            print()
        rows = [(one.name, one.result, one.line) for one in found if one.model == model]
        print_table((f"CHECK OF {model}" if model else "CHECK", "", "RESULT"), rows)


def _print_tunables(found: tuple[Tunable, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"tunables": [asdict(one) for one in found]})
        return
    print_table(
        ("WHAT", "NOW", "BY", "TURN IT"),
        [(one.name, _value(one.value), one.how, one.meaning) for one in found],
    )


def _value(value: object) -> str:
    """Return a value as whoever changes it would write it."""
    return "-" if value == "" else value if isinstance(value, str) else json.dumps(value)


def _print_limits(*, as_json: bool) -> None:
    if as_json:
        print_json({"limits": all_limits()})
        return
    print("Limits: bytes, seconds, counts")
    print_facts(list(all_limits().items()))
