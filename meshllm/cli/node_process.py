"""The process of a node: what `serve` becomes once it knows what is wanted.

Owns the change of program, and a node's end as an exit code. Doesn't know flags, nor the daemon's inside: it is handed
a configuration, and hands it on with somebody who listens.

A node lives for weeks. Typer and the commands, which only read its flags, would take 1.7 MB of memory all the while.
"""

import copyreg
import os
import pickle
import shlex
import sys
import tempfile
from types import MappingProxyType
from typing import Any, NoReturn

from meshllm.cli import standalone
from meshllm.cli.failures import CommandError
from meshllm.cli.render import Bars, say
from meshllm.cli.startup import Startup
from meshllm.cli.streams import prepare
from meshllm.config import Config


def become_node(config: Config) -> NoReturn:
    """Go on as the process of a node, under the same number. Raises CommandError.

    The configuration goes along in a file without a name: keys in it are for nobody else to read.
    """
    try:
        with tempfile.TemporaryFile() as told:
            pickle.dump(config, told)
            told.seek(0)
            os.set_inheritable(told.fileno(), True)
            sys.stdout.flush()
            sys.stderr.flush()
            os.execv(sys.executable, [sys.executable, *_arguments(told.fileno())])  # noqa: S606 - no shell is wanted
    except OSError as error:
        raise CommandError(f"the node cannot be told what to do: {error.strerror or error}") from None


def _arguments(descriptor: int) -> list[str]:
    """Return how the interpreter is started; what was asked for stays to be seen in `ps`."""
    safe = ["-P"] if sys.flags.safe_path else []
    warnings = [f"-W{option}" for option in sys.warnoptions]
    return [*safe, *warnings, "-m", "meshllm.cli.node_process", str(descriptor), *sys.argv[1:]]


def unchanging(values: dict[Any, Any]) -> "MappingProxyType[Any, Any]":
    """Return a mapping that nobody changes, which pickle does not know how to make."""
    return MappingProxyType(values)


copyreg.pickle(MappingProxyType, lambda mapping: (unchanging, (dict(mapping),)))


def main() -> NoReturn:
    """Run the node that `become_node` was given, and exit."""
    prepare()
    with os.fdopen(int(sys.argv[1]), "rb") as told:
        config: Config = pickle.load(told)  # noqa: S301 - this program's own words
    try:
        code = run_node(config)
        sys.stdout.flush()
    except CommandError as error:
        if error.message:
            print(f"mesh-llm: {error.message}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)


def run_node(config: Config) -> int:
    """Run a node until it is asked to leave; return an exit code. Raises CommandError."""
    from meshllm.daemon.frugal import be_frugal

    be_frugal()
    from meshllm.daemon.errors import StartError
    from meshllm.daemon.node import run
    from meshllm.daemon.web_trust import find_trust

    find_trust()
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


if __name__ == "__main__":
    main()
