"""The table of commands says what the commands say, and nothing is imported before its time."""

import importlib
import subprocess
import sys

import pytest

from meshllm.cli.commands import BY_NAME, COMMANDS
from tests.cli.conftest import Shell

NOT_FOR_HELP = ("rich", "aiohttp", "asyncio", "msgspec", "meshllm.daemon", "meshllm.core", "meshllm.cli.serve")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_summary_is_the_docstring_of_the_command(command: object) -> None:
    """`--help` reads the table, `COMMAND --help` the docstring."""
    module = importlib.import_module(f"meshllm.cli.{command.module}")  # type: ignore[attr-defined]
    function = module.app.registered_callback.callback if hasattr(module, "app") else module.command

    assert function.__doc__ == command.summary  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", BY_NAME)
def test_every_name_has_help(shell: Shell, name: str) -> None:
    """Aliases too."""
    assert shell(name, "--help") == 0
    assert BY_NAME[name].summary.split(":", maxsplit=1)[0] in shell.out.replace("\n ", "")


def test_help_names_every_command_and_exit_code(shell: Shell) -> None:
    """One page to find everything from."""
    assert shell("--help") == 0

    for command in COMMANDS:
        assert command.summary in shell.out
    assert "3 the port is in use" in shell.out.replace("\n  ", " ")


def test_unknown_command_is_a_usage_error_with_a_hint(shell: Shell) -> None:
    """A slip of the finger is not a failure of the node."""
    assert shell("lst") == 2
    assert "did you mean list" in shell.err


def test_help_imports_no_command_and_nothing_slow() -> None:
    """It has to be there before people wonder: what it imports is what it costs."""
    code = (
        "import sys; from meshllm.cli.main import run; code = run(['--help']); "
        f"print([name for name in {NOT_FOR_HELP!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert done.stderr.strip() == "[]"
