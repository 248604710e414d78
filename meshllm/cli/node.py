"""The two ways to an answer: from the running node, or without one.

Owns how a command finds out which, and the tables they share. Doesn't know HTTP: `api_client` does.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import typer

from meshllm.cli.api_client import ApiClient, NoNodeError, connect
from meshllm.cli.failures import CommandError
from meshllm.cli.render import Bars, download_detail
from meshllm.cli.rows import items, number, part, text
from meshllm.cli.settings import all_flags, configured, has_port
from meshllm.config import Config

PROGRESS_AFTER_S = 2.0
"""What takes less shows no progress."""
PROGRESS_INTERVAL_S = 0.5


def open_node(ctx: typer.Context, **own: object) -> ApiClient:
    """Return a client of the local node. Raises CommandError."""
    flags = all_flags(ctx, **own)
    return connect(configured(flags), is_port_given=has_port(flags))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The configuration, and the node's status document when a node runs."""

    config: Config
    client: ApiClient
    status: Mapping[str, object] | None


def look(ctx: typer.Context, **own: object) -> Surroundings:
    """Ask the local node for its status, for commands that can do without. Raises CommandError."""
    flags = all_flags(ctx, **own)
    config = configured(flags)
    client = connect(config, is_port_given=has_port(flags))
    try:
        return Surroundings(config, client, client.get("/api/status"))
    except NoNodeError:
        if has_port(flags):
            raise  # somebody named a node: an answer from elsewhere would mislead
        return Surroundings(config, client, None)


def order(client: ApiClient, path: str, body: Mapping[str, object], model: str) -> dict[str, object]:
    """Send an order that may take long, and show meanwhile how far the model is. Raises CommandError."""
    answers: list[dict[str, object] | CommandError] = []

    def send() -> None:
        try:
            answers.append(client.post(path, body, is_long=True))
        except CommandError as error:
            answers.append(error)

    # A daemon thread, so that Ctrl-C ends the command; the node carries the order on.
    sender = threading.Thread(target=send, name=f"order {path}", daemon=True)
    sender.start()
    sender.join(PROGRESS_AFTER_S)
    with Bars() as bars:
        while sender.is_alive():
            _show_progress(client, model, bars)
            sender.join(PROGRESS_INTERVAL_S)
    answer = answers[0] if answers else CommandError("the order was not answered")
    if isinstance(answer, CommandError):
        raise answer
    return answer


def scope_of(scope: str | None, node: str | None) -> dict[str, str]:
    """Return what an order says of whom it is for; nothing leaves that to the node. Raises CommandError."""
    if scope is not None and node is not None and scope != node:
        raise CommandError("either --scope or --node")
    found = node if scope is None else scope
    return {} if found is None else {"scope": found}


def _show_progress(client: ApiClient, model: str, bars: Bars) -> None:
    """Show how far the models are that are on their way; the one that was asked for may go by another name."""
    try:
        status = client.get("/api/status")
    except CommandError:
        return  # the order itself says what is wrong
    moving = [entry for entry in items(status, "models") if part(entry, "progress")]
    named = [entry for entry in moving if text(entry, "id") == model]
    for entry in named or moving:
        progress = part(entry, "progress")
        share, total = progress.get("share"), number(progress, "total_bytes")
        detail = download_detail(number(progress, "done_bytes"), total) if total else ""
        label = f"{text(progress, 'stage')} {text(entry, 'id')}"
        bars.show(label, label, float(share) if isinstance(share, int | float) else 0.0, detail)
