"""`mesh-llm engine show` and `build`: the inference programs of this machine, and making the one that shares models.

Owns the lines and the progress. Doesn't build: the daemon's engine package does. Works without a node.
"""

import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from meshllm.cli import standalone
from meshllm.cli.commands import plain_app
from meshllm.cli.failures import CommandError
from meshllm.cli.options import ConfigFile, Json, StateDir
from meshllm.cli.render import Bars, duration, print_facts, print_json, say, size
from meshllm.cli.settings import settings
from meshllm.config import Config
from meshllm.core.engine_builds import StoredBuild
from meshllm.core.engines import EngineFailure, RpcBuild

app = plain_app("engine")


@app.callback()
def engine() -> None:
    """Show the engine of this machine, or build the one that shares models."""


@app.command("show")
def show(ctx: typer.Context, as_json: Json = False, state_dir: StateDir = None, config: ConfigFile = None) -> None:
    """Run the engine's self-test and show what it finds."""
    loaded = settings(ctx, state_dir=state_dir, config=config)
    found, stored = standalone.engine(loaded), standalone.stored_builds(loaded)
    if as_json:
        print_json({**asdict(found), "builds": [asdict(build) for build in stored]})
    elif not isinstance(found, EngineFailure):
        facts = [("engine", found.kind), ("version", found.version), ("GPU", "yes" if found.uses_gpu else "no")]
        program = [("program", found.program)] if found.program else []
        print_facts([*facts, *program, *_sharing(loaded, found.rpc), *map(_stored, stored)])
    else:
        print_facts([_stored(build) for build in stored])
    if isinstance(found, EngineFailure):
        raise CommandError(f"no engine can run here: {found.message}")


def _sharing(loaded: Config, rpc: RpcBuild | None) -> list[tuple[str, str]]:
    """Return the lines on sharing models with other machines."""
    found = rpc or standalone.sharing(loaded)
    if isinstance(found, str):
        return [("sharing models", f"no: {found}")]
    return [("sharing models", f"yes, RPC {found.version}"), ("", found.server), ("", found.worker)]


def _stored(build: StoredBuild) -> tuple[str, str]:
    """Return the line of a build in the cache."""
    facts = (size(build.size_bytes), "current" if build.is_current else "", "in use" if build.is_used else "")
    return "build", f"{build.name}: {', '.join(fact for fact in facts if fact)}"


Native = Annotated[
    bool, typer.Option("--native", help="For this processor alone: faster, and refused by some virtual machines.")
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Leave GPUs out. [what CUDA, ROCm or Vulkan tools are found]")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, max=1024, metavar="N", help="Compilers at a time.")]
Wheel = Annotated[
    Path | None, typer.Option("--wheel", metavar="FILE", help="Take this wheel of llama-cpp-python; build nothing.")
]


@app.command("build")
def build(
    ctx: typer.Context,
    native: Native = False,
    cpu: Cpu = False,
    jobs: Jobs = None,
    wheel: Wheel = None,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """Build the engine that shares models with other machines, from the source of llama-cpp-python.

    Takes about eight minutes on two cores; with a GPU's tools installed, longer. What is there already is only tested.
    Builds of other versions or flags are removed then, but the last one and those that running nodes use.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: compilers end with us
    loaded = settings(ctx, config=config)
    started_s = time.monotonic()
    with Bars() as bars:
        shown = _Shown(bars)
        found = standalone.build_engine(loaded, shown.progress, native=native, cpu=cpu, jobs=jobs or 0, wheel=wheel)
    if as_json:
        print_json(found)
    else:
        print_facts(_sharing(loaded, found))
        say(f"ready after {duration(time.monotonic() - started_s)}; nodes that start from here on can share models")


class _Shown:
    """The steps of a build: the compiling as a share, the others as lines."""

    def __init__(self, bars: Bars) -> None:
        """Draw on `bars`."""
        self._bars = bars
        self._told = ""

    def progress(self, step: str, done: int, total: int) -> None:
        """Show how far it is."""
        if total:
            self._bars.show("build", step, done / total, f"{done} of {total}")
        elif step != self._told:
            self._bars.done("build")
            say(step)
        self._told = step
