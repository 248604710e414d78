"""`mesh-llm token`: make tokens by which others join, list them, take them back.

Owns its options and the words for durations. Decides nothing: the node does. The token alone goes to standard output,
so that it can be piped on; what it opens is said beside it.
"""

import re
from typing import Annotated
from urllib.parse import quote

import typer

from meshllm.cli.commands import plain_app
from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Json, Port, StateDir
from meshllm.cli.render import duration, print_json, print_table, say
from meshllm.cli.rows import items, number, text
from meshllm.cli.settings import all_flags
from meshllm.core.limits import TOKEN_TTL_LEAST_S, TOKEN_TTL_MOST_S

app = plain_app("token")
_DURATION = re.compile(r"(\d{1,9})\s*(s|m|min|h|d|w)?", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}

Ttl = Annotated[str | None, typer.Option("--ttl", metavar="TIME", help="How long it admits: 90s, 30m, 12h, 7d. [24h]")]
Uses = Annotated[int | None, typer.Option("--uses", min=1, metavar="N", help="How many nodes it admits. [any number]")]


@app.callback(invoke_without_command=True)
def tokens(
    ctx: typer.Context,
    guest: Annotated[bool, typer.Option("--guest", help="For others: may use and serve models, no more.")] = False,
    client_only: Annotated[bool, typer.Option("--client-only", help="For others: may use models, no more.")] = False,
    rights: Annotated[
        str | None,
        typer.Option("--rights", metavar="LIST", help="Any of infer, host, rpc, admin, with commas between."),
    ] = None,
    ttl: Ttl = None,
    uses: Uses = None,
    as_json: Json = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Print a token by which another machine joins the mesh."""
    if ctx.invoked_subcommand is not None:
        if guest or client_only or rights or ttl or uses or as_json:
            raise CommandError(f"options of `token` have no place before `{ctx.invoked_subcommand}`", ExitCode.USAGE)
        ctx.obj = all_flags(ctx, port=port, state_dir=state_dir, config=config)
        return
    if sum((guest, client_only, rights is not None)) > 1:
        raise CommandError("--guest, --client-only and --rights contradict each other", ExitCode.USAGE)
    wish: object = "guest" if guest else "client" if client_only else "own"
    if rights is not None:
        wish = [word.strip() for word in rights.split(",") if word.strip()]
    body = {"rights": wish, "ttl_s": None if ttl is None else seconds_of(ttl), "uses": uses}
    answer = open_node(ctx, port=port, state_dir=state_dir, config=config).post("/api/tokens", body)
    if as_json:
        print_json(answer)
        return
    print(text(answer, "token"))
    limit = f", at most {uses} {'time' if uses == 1 else 'times'}" if uses else ""
    say(f"this token {text(answer, 'meaning')}; it admits for {duration(answer.get('ttl_s'))}{limit}")
    say("on the other machine: mesh-llm --join TOKEN, or with the token in a file: mesh-llm --join-file FILE")


@app.command("list")
def list_tokens(
    ctx: typer.Context, as_json: Json = False, port: Port = None, state_dir: StateDir = None, config: ConfigFile = None
) -> None:
    """Show the tokens by which others can join; never the tokens themselves."""
    document = open_node(ctx, port=port, state_dir=state_dir, config=config).get("/api/tokens")
    listed = list(items(document, "tokens"))
    if as_json:
        print_json(listed)
        return
    rows = [
        (
            text(token, "id"), ",".join(str(right) for right in _list(token.get("rights"))),
            duration(token.get("expires_in_s")),
            "any" if token.get("uses_left") is None else number(token, "uses_left"), text(token, "made_by")[:8],
        )
        for token in listed
    ]  # fmt: skip
    print_table(("ID", "RIGHTS", "EXPIRES IN", "USES LEFT", "MADE BY"), rows)


@app.command("revoke")
def revoke(
    ctx: typer.Context,
    token: Annotated[str, typer.Argument(metavar="ID", help="Its id or the beginning of it, from `token list`.")],
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Let nobody join by a token any more; those who have stay."""
    if token.startswith("meshllm1-"):
        raise CommandError("a token is revoked by its id; `mesh-llm token list` shows it", ExitCode.USAGE)
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    answer = client.delete(f"/api/tokens/{quote(token, safe='')}")
    say(f"nobody can join by {answer.get('revoked', token)} any more; those who have stay")


@app.command("rotate")
def rotate(ctx: typer.Context, port: Port = None, state_dir: StateDir = None, config: ConfigFile = None) -> None:
    """Let nobody join by any token made so far; those who have stay."""
    answer = open_node(ctx, port=port, state_dir=state_dir, config=config).post("/api/tokens/rotate", {})
    count = number(answer, "revoked")
    say(f"{count} {'token' if count == 1 else 'tokens'} revoked; `mesh-llm token` makes a new one")


def seconds_of(words: str) -> int:
    """Return the seconds of `90s`, `30m`, `12h`, `7d` or `3600`. Raises CommandError."""
    match = _DURATION.fullmatch(words.strip().lower())
    if match is None:
        raise CommandError(f"--ttl: expected a duration as 90s, 30m, 12h or 7d, not {words[:40]!r}", ExitCode.USAGE)
    seconds = int(match[1]) * _SECONDS[match[2] or ""]
    if not TOKEN_TTL_LEAST_S <= seconds <= TOKEN_TTL_MOST_S:
        least, most = duration(TOKEN_TTL_LEAST_S), duration(TOKEN_TTL_MOST_S)
        raise CommandError(f"--ttl: expected {least} to {most}, not {words.strip()}", ExitCode.USAGE)
    return seconds


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
