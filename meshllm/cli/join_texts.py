"""The tokens to join by, from wherever somebody put them: the command line, a file, standard input, the keyboard.

Owns the reading, within bounds, and the list of meshes that `--join lan` shows. Doesn't know what a token says: the
daemon does.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.render import say
from meshllm.config import Config
from meshllm.core.limits import JOIN_FILE_BYTES, JOIN_TOKENS

STANDARD_INPUT = "-"
LAN = "lan"
TOKEN_START = "meshllm"  # noqa: S105 - what every token begins with, of whatever version
HOW_TO_GET_ONE = (
    "`mesh-llm token` on a machine of the mesh prints one; then start with --join TOKEN or --join-file FILE"
)


def join_texts(
    config: Config, *, is_member: bool, show_lan: Callable[[], None], ask: Callable[[], str]
) -> tuple[str, ...]:
    """Return every token once, in the order in which they were given. Raises CommandError.

    `show_lan` lists the meshes in reach, `ask` gets a token from a person: both only while the node `is_member` of
    none, since a member finds its mesh by itself.
    """
    found: list[str] = []
    for text in config.join:
        if text == STANDARD_INPUT:
            found += _from_lines(sys.stdin.read(JOIN_FILE_BYTES + 1), "standard input")
        elif text.lower() == LAN:
            if is_member:
                continue
            show_lan()
            found += _from_lines(ask(), "what was typed")
        else:
            found.append(text)
    if config.join_file is not None:
        found += _from_lines(_content(config.join_file), str(config.join_file))
    tokens = tuple(dict.fromkeys(found))
    if len(tokens) > JOIN_TOKENS:
        raise CommandError(f"{len(tokens)} tokens were given; {JOIN_TOKENS} are the most", ExitCode.USAGE)
    return tokens


def ask_for_token() -> str:
    """Return what a person types or pastes, which is not shown. Raises CommandError where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandError(f"a token is needed to join: {HOW_TO_GET_ONE}", ExitCode.BAD_TOKEN)
    import getpass

    say(f"a token is needed to join: {HOW_TO_GET_ONE}")
    try:
        return getpass.getpass("token (it is not shown): ", stream=sys.stderr)
    except EOFError:
        return ""


def show_meshes(meshes: Sequence[tuple[str, str, int]]) -> None:
    """Say which meshes are in reach: (tag, name, nodes)."""
    if not meshes:
        say("no mesh is seen on the local network; a token still works, as it carries addresses")
        return
    say("meshes on the local network:")
    for tag, name, nodes in meshes:
        say(f"  {name or 'without a name'}  ({nodes} {'node' if nodes == 1 else 'nodes'}, today's tag {tag[:8]})")


def _from_lines(content: str, source: str) -> list[str]:
    """Return the tokens of a text: each begins a line, and what a mail program has wrapped belongs to it.

    Empty lines and comments are skipped. Raises CommandError.
    """
    if len(content) > JOIN_FILE_BYTES:
        raise CommandError(f"{source} is larger than {JOIN_FILE_BYTES // 1024} KiB; a token is not", ExitCode.BAD_TOKEN)
    lines = [line.strip() for line in content.splitlines()]
    tokens: list[str] = []
    for line in (line for line in lines if line and not line.startswith("#")):
        if tokens and not line.lower().lstrip("\"'").startswith(TOKEN_START):
            tokens[-1] += line
        else:
            tokens.append(line)
    if not tokens:
        raise CommandError(f"there is no token in {source}", ExitCode.BAD_TOKEN)
    return tokens


def _content(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(JOIN_FILE_BYTES + 1).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise CommandError(f"--join-file: cannot read {file}: {error.strerror or error}", ExitCode.USAGE) from None
