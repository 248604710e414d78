"""Models that no node holds alone, shared by real daemons: engines and workers are doubles, the way between is real."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.daemons import Daemon, until
from tests.e2e.test_mesh import token_of
from tests.inventory import gguf_builder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SHARED_S = 60.0
LIMIT = ("--max-vram", "230MB")
"""The model takes some 300 MB, nearly all of it context."""
WIDE = {
    "general.name": "wide", "llama.block_count": 24, "llama.embedding_length": 2048, "llama.attention.head_count": 16,
    "llama.attention.head_count_kv": 8,
}  # fmt: skip


@dataclass
class Mesh:
    """Nodes whose engines can share, of which the first has the file."""

    nodes: list[Daemon]

    @property
    def host(self) -> Daemon:
        """Return the node with the file."""
        return self.nodes[0]

    def shared(self) -> dict[str, Any] | None:
        """Return the split that runs, as the host sees it; None while there is none."""
        split = self.host.get("/api/explain?model=wide")["split"]
        return split if split and split["runs"] else None

    def until_shared(self, epoch: int = 1) -> dict[str, Any]:
        """Wait for a split that runs, of this epoch or a later one."""

        def found() -> dict[str, Any] | None:
            split = self.shared()
            return split if split and split["epoch"] >= epoch else None

        return until(found, "a split that runs", SHARED_S)


def servers(node: Daemon) -> list[psutil.Process]:
    """Return a node's servers for splits of others."""
    children = psutil.Process(node.process.pid).children(recursive=True)
    return [child for child in children if "fake_rpc_server" in " ".join(child.cmdline())]


@contextmanager
def a_mesh(
    folder: Path, *arguments: tuple[str, ...], rpc: tuple[str, ...] = (), token_s: float = 0.0
) -> Iterator[Mesh]:
    """Start nodes with these arguments; `rpc` is what each one's engine speaks, `fake 1` where nothing is said."""
    nodes: list[Daemon] = []
    with ExitStack() as started:
        for number, own in enumerate(arguments):
            spoken = rpc[number] if number < len(rpc) else "fake 1"
            fake = "fake:" + json.dumps({"rpc": spoken, "token_s": token_s})
            node = Daemon(
                folder / f"n{number}",
                (*own, *LIMIT, *(("--join", token_of(nodes[0])) if nodes else ()), "--no-mdns", "--engine", fake),
            )
            if not nodes:
                gguf_builder.write(node.models / "wide.gguf", gguf_builder.llama(**WIDE))
            nodes.append(started.enter_context(node))
        yield Mesh(nodes)


SERVES = ("--model", "wide")


def test_a_model_that_fits_nowhere_is_shared_and_answers_everywhere(tmp_path: Path) -> None:
    """Two nodes; both say with whom, and what is lent is on loopback alone."""
    with a_mesh(tmp_path, SERVES, ()) as mesh:
        split = mesh.until_shared()
        entry = mesh.nodes[1]
        until(lambda: entry.chat("hello", model="wide").status == 200, "an answer at the worker", SHARED_S)

        assert [share["is_host"] for share in split["shares"]] == [False, True]
        assert sum(share["layers"] for share in split["shares"]) == 24
        assert entry.get("/api/explain?model=wide")["split"]["epoch"] == split["epoch"]
        (server,) = servers(entry)
        listening = [one.laddr.ip for one in server.net_connections() if one.status == psutil.CONN_LISTEN]
        assert set(listening) == {"127.0.0.1"}
        assert mesh.host.chat("hello", model="wide").status == 200
