"""`mesh-llm pull`: download a model, through the running node or without one.

Owns showing the progress. Doesn't download: the daemon's inventory does.
"""

import json
import time

import typer

from meshllm.cli import standalone
from meshllm.cli.api_client import ApiClient
from meshllm.cli.failures import CommandError
from meshllm.cli.node import PROGRESS_AFTER_S, look
from meshllm.cli.options import ConfigFile, Model, ModelsDirs, Port, StateDir
from meshllm.cli.render import Bars, download_detail, say
from meshllm.cli.rows import number, part, text


def command(
    ctx: typer.Context,
    model: Model,
    models_dirs: ModelsDirs = None,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Download a model."""
    found = look(ctx, port=port, state_dir=state_dir, config=config, models_dirs=models_dirs)
    with Bars() as bars:
        shown = _Shown(bars, model)
        if found.status is not None:
            name = _through_node(found.client, model, shown)
        else:
            name = str(standalone.pull(found.config, model, shown.progress))
    say(f"pulled {name}")


class _Shown:
    """Progress of one download, once it takes long enough."""

    def __init__(self, bars: Bars, model: str) -> None:
        """Draw on `bars`."""
        self._bars = bars
        self._model = model
        self._start_s = time.monotonic()

    def progress(self, done_bytes: int, total_bytes: int, peers: tuple[str, ...] = ()) -> None:
        """Show how far it is, and from which members it comes."""
        if time.monotonic() - self._start_s < PROGRESS_AFTER_S:
            return
        share = min(done_bytes / total_bytes, 1.0) if total_bytes else 0.0
        detail = download_detail(done_bytes, total_bytes) + (f" from {', '.join(peers)}" if peers else "")
        self._bars.show(self._model, f"downloading {self._model}", share, detail)


def _through_node(client: ApiClient, model: str, shown: _Shown) -> str:
    """Let the node fetch it; return the model's name. Raises CommandError."""
    with client.lines("POST", "/api/pull", {"model": model}) as lines:
        for line in lines:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if not isinstance(said, dict):
                continue
            if "error" in said:
                raise CommandError(text(part(said, "error"), "message") or "the download failed")
            if said.get("status") == "success":
                return text(said, "model") or model
            shown.progress(number(said, "done_bytes"), number(said, "total_bytes"), _peers(said))
    raise CommandError("the node broke off before the download was complete")


def _peers(said: dict[str, object]) -> tuple[str, ...]:
    peers = said.get("from")
    return tuple(str(peer) for peer in peers) if isinstance(peers, list) else ()
