"""Models that no node holds alone, shared by real daemons: engines and workers are doubles, the way between is real."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import pytest

from tests.e2e.daemons import Daemon, until
from tests.e2e.test_mesh import node_id, token_of
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
    return [child for child in node.engines() if is_server(child)]


def is_server(process: psutil.Process) -> bool:
    """Tell whether a process is a server for splits, and there."""
    try:
        return "fake_rpc_server" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


@contextmanager
def a_mesh(
    folder: Path,
    *arguments: tuple[str, ...],
    rpc: tuple[str, ...] = (),
    token_s: float = 0.0,
    limit: tuple[str, ...] = LIMIT,
    switches: Mapping[str, object] = MappingProxyType({}),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Mesh]:
    """Start nodes with these arguments; `rpc` is what each one's engine speaks, `fake 1` where nothing is said."""
    nodes: list[Daemon] = []
    with ExitStack() as started:
        for number, own in enumerate(arguments):
            spoken = rpc[number] if number < len(rpc) else "fake 1"
            fake = "fake:" + json.dumps({"rpc": spoken, "token_s": token_s, **switches})
            node = Daemon(
                folder / f"n{number}",
                (*own, *limit, *(("--join", token_of(nodes[0])) if nodes else ()), "--no-mdns", "--engine", fake),
                environment=dict(environment),
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


def test_three_share_what_two_cannot_hold(tmp_path: Path) -> None:
    """The fewest that suffice; a client sees it like everybody."""
    small = ("--max-vram", "200MB")
    with a_mesh(tmp_path, (*SERVES, *small), small, small, limit=()) as mesh:
        split = mesh.until_shared()

        assert [share["is_host"] for share in split["shares"]] == [False, False, True]
        assert sum(share["layers"] for share in split["shares"]) == 24
        assert all(share["layers"] > 0 for share in split["shares"])
        assert mesh.nodes[2].chat("hello", model="wide").status == 200


def test_a_worker_that_is_killed_is_replaced_and_the_stream_goes_on_or_says_so(tmp_path: Path) -> None:
    """Another one lends; nobody hears a sentence that ends in silence."""
    with a_mesh(tmp_path, SERVES, (), (), token_s=0.2) as mesh:
        first = mesh.until_shared()
        lost = next(node for node in mesh.nodes[1:] if servers(node))
        left = next(node for node in mesh.nodes[1:] if node is not lost)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(left.chat, "hello", model="wide", stream=True, max_tokens=60)
            until(lambda: mesh.host.get("/api/status")["models"][0]["in_flight"], "a stream", SHARED_S)
            lost.process.kill()
            lost.process.wait()
            reply = answer.result(timeout=SHARED_S * 2)

        second = mesh.until_shared(first["epoch"] + 1)
        assert node_id(left) in {share["candidate"] for share in second["shares"]}
        assert reply.events[-1] == "[DONE]" or "error" in reply.events[-1]
        assert left.chat("again", model="wide").status == 200


def test_a_server_that_is_killed_ends_the_epoch_and_the_next_one_runs(tmp_path: Path) -> None:
    """At the same worker."""
    with a_mesh(tmp_path, SERVES, ()) as mesh:
        first = mesh.until_shared()
        (server,) = servers(mesh.nodes[1])
        server.kill()

        mesh.until_shared(first["epoch"] + 1)
        until(lambda: mesh.nodes[1].chat("hello", model="wide").status == 200, "an answer", SHARED_S)


def test_a_host_that_is_killed_leaves_no_server_behind(tmp_path: Path) -> None:
    """Its worker has its memory back, and lends nothing."""
    with a_mesh(tmp_path, SERVES, ()) as mesh:
        mesh.until_shared()
        worker = mesh.nodes[1]
        mesh.host.process.kill()
        mesh.host.process.wait()

        until(lambda: not servers(worker), "the end of the server", SHARED_S)


def test_an_unload_gives_the_memory_back(tmp_path: Path) -> None:
    """At every member."""
    with a_mesh(tmp_path, SERVES, ()) as mesh:
        mesh.until_shared()
        assert mesh.host.run("unload", "wide").returncode == 0

        until(lambda: not servers(mesh.nodes[1]), "the end of the server", SHARED_S)
        assert mesh.shared() is None


@pytest.mark.parametrize(
    ("own", "rpc", "lack"),
    [
        ((), ("fake 1", "fake 2"), "other_build"),
        ((*LIMIT, "--no-rpc"), (), "no_right"),
        (("--max-vram", "60MB"), (), "no_memory"),
    ],
)
def test_what_is_in_the_way_of_a_split_is_said_at_every_node(
    tmp_path: Path, own: tuple[str, ...], rpc: tuple[str, ...], lack: str
) -> None:
    """And nothing is tried: no server, no engine."""
    with a_mesh(tmp_path, (*SERVES, *LIMIT), own or LIMIT, rpc=rpc, limit=()) as mesh:
        worker = node_id(mesh.nodes[1])

        def lacks(node: Daemon) -> list[str]:
            split = node.get("/api/explain?model=wide")["split"] or {"nodes": []}
            return [one["lack"] for one in split["nodes"] if one["candidate"] == worker]

        until(lambda: lacks(mesh.host) == [lack], f"{lack} at the host", SHARED_S)
        until(lambda: mesh.nodes[1].get("/api/explain?model=wide")["split"], "a word at the worker", SHARED_S)
        assert servers(mesh.nodes[1]) == []
        refused = mesh.nodes[1].chat("hello", model="wide")
        assert (refused.status, refused.error["code"]) == (503, "no_capacity")  # and not after a while in vain


def test_with_room_on_one_nothing_is_shared_whatever_joins_or_leaves(tmp_path: Path) -> None:
    """It fits: one engine, no worker."""
    with a_mesh(tmp_path, SERVES, (), (), limit=()) as mesh:
        until(lambda: mesh.nodes[1].chat("hello", model="wide").status == 200, "an answer", SHARED_S)
        mesh.nodes[2].process.kill()
        mesh.nodes[2].process.wait()

        assert mesh.host.get("/api/explain?model=wide")["split"] is None
        assert mesh.nodes[1].chat("hello", model="wide").status == 200
        assert servers(mesh.nodes[1]) == []


@pytest.mark.rows("CLI-15")
def test_what_is_to_be_shared_is_shared_though_it_fits(tmp_path: Path) -> None:
    """Somebody said `--split`."""
    with a_mesh(tmp_path, (*SERVES, "--split"), (), limit=()) as mesh:
        split = mesh.until_shared()

        assert len(split["shares"]) == 2
        assert mesh.nodes[1].chat("hello", model="wide").status == 200
