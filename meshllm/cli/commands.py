"""The table of commands, and a group that imports a command only when it is invoked.

Owns names, aliases and one-line helps, so that `mesh-llm --help` imports no command. A test compares the lines
with the commands' own docstrings. Doesn't know what a command does.
"""

import difflib
import importlib
from dataclasses import dataclass

import typer
from typer.core import TyperGroup
from typer.main import get_command


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its module is `meshllm.cli.<module>`, with a function `command`, or an `app` of subcommands."""

    name: str
    module: str
    summary: str
    aliases: tuple[str, ...] = ()


COMMANDS = (
    Command("serve", "serve", "Start a node; the same as `mesh-llm` without a command."),
    Command("multi-model", "multi_model", "Start a node with the models of --config FILE: JSON, TOML or YAML."),
    Command("from-config", "from_config", "Start a node as -f FILE says."),
    Command("run", "run", "Ask a model one thing, or chat with it.", ("chat",)),
    Command("status", "status", "Show the node: machine, engine, mesh, models."),
    Command("ps", "ps", "Show the models in memory."),
    Command("list", "list", "Show the models on disk.", ("ls",)),
    Command("show", "show", "Show one model: what its file says and the memory that it takes."),
    Command("pull", "pull", "Download a model."),
    Command("rm", "rm", "Delete a model's files."),
    Command("load", "load", "Bring a model into memory."),
    Command("unload", "unload", "Take a model out of memory; a request brings it back.", ("stop",)),
    Command("pin", "pin", "Keep a model in memory once it is there: neither others' room nor idleness unloads it."),
    Command("drop", "drop", "Stop serving a model; the node ends when it was the only one."),
    Command("default", "default", "Show or choose the model that answers where none is named."),
    Command("plan", "plan", "Show where a request for a model would go now, and why."),
    Command("routing", "routing", "Show or change how requests are routed to models and hosts."),
    Command("quota", "quota", "Show or change what models may be used for: tokens and requests an hour and a day."),
    Command("nodes", "nodes", "Show the nodes of the mesh: state, round trip, lines, models."),
    Command("node", "node_orders", "Expel a node from the mesh."),
    Command("token", "tokens", "Print a token by which another machine joins the mesh."),
    Command("logs", "logs", "Show the node's log, or a model's."),
    Command("doctor", "doctor", "Say what is wrong here, or with a model, and what to do about it."),
    Command("config", "config", "Check a configuration file, show what is in force, or print its schema."),
    Command(
        "engine",
        "engine",
        "Show the engine of this machine, or build the one that shares models.",
    ),
)
"""Every command, in the order of `--help`."""
BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}


def plain_app(name: str = "mesh-llm", group: type[TyperGroup] | None = None) -> typer.Typer:
    """Return a typer app as all of them are here: plain help, which needs no rich and so is quick."""
    return typer.Typer(
        name=name,
        cls=group,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"max_content_width": 110, "help_option_names": ["--help", "-h"]},
    )


class LazyGroup(TyperGroup):
    """The commands of the table."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the names that `--help` shows."""
        del ctx
        return [command.name for command in COMMANDS]

    def get_command(self, ctx: typer.Context, cmd_name: str):  # type: ignore[no-untyped-def, override]  # noqa: ANN201 - typer's own class, not public
        """Import a command's module and return what typer makes of it."""
        del ctx
        entry = BY_NAME.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"meshllm.cli.{entry.module}")
        app: typer.Typer | None = getattr(module, "app", None)
        if app is None:
            app = plain_app()
            app.command(entry.name)(module.command)
        return get_command(app)

    def resolve_command(self, ctx: typer.Context, args: list[str]):  # type: ignore[no-untyped-def, override]  # noqa: ANN201 - as above
        """Find the command that the arguments name, or say what is near."""
        name = args[0]
        if name not in BY_NAME and not name.startswith("-"):
            near = difflib.get_close_matches(name, BY_NAME, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"there is no command {name!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: typer.Context, formatter) -> None:  # type: ignore[no-untyped-def, override]  # noqa: ANN001 - as above
        """Write the table."""
        del ctx
        rows = [(", ".join((command.name, *command.aliases)), command.summary) for command in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
