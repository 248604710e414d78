"""Shared models whose members are killed or stopped, in the middle of a load and of a token: F8 and F11 for real.

Daemons, the servers that they lend and the engines are processes of their own; the engines are doubles whose load ends
when a test says so. Whatever happens, a request has its answer or one error, and memory that was lent comes back.
"""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.daemons import Daemon, Reply, until
from tests.e2e.test_mesh import node_id
from tests.e2e.test_split import SERVES, SHARED_S, Mesh, a_mesh, servers

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

SHORT = {"MESH_LLM_ENGINE_STALL_S": "5", "MESH_LLM_LOAD_TIMEOUT_S": "10"}
"""How long an engine may stand still here; elsewhere it is longer."""
FOUND_DEAD_S = 60.0
"""A stopped daemon is dead to the others after 16 s, on a machine that does nothing else."""


def kill_daemon(worker: Daemon) -> None:
    """Kill a worker's daemon; its server goes with it."""
    worker.process.kill()
    worker.process.wait()


def kill_server(worker: Daemon) -> None:
    """Kill the server that a worker lends."""
    for server in servers(worker):
        server.kill()


def stop_daemon(worker: Daemon) -> None:
    """Stop a worker's daemon: its port answers nothing and refuses nothing."""
    worker.signal(signal.SIGSTOP)


def stop_server(worker: Daemon) -> None:
    """Stop the server that a worker lends: its daemon is well, and nothing comes back."""
    for server in servers(worker):
        server.send_signal(signal.SIGSTOP)


FAULTS = [kill_daemon, kill_server, stop_daemon, stop_server]
Fault = Callable[[Daemon], None]


def is_whole(reply: Reply) -> bool:
    """Tell whether an answer is complete, or says that it is not."""
    if reply.status != 200:
        return bool(reply.error["code"])
    return reply.events[-1] == "[DONE]" or "error" in reply.events[-1]


def loading(mesh: Mesh, epoch: int = 1) -> dict[str, Any] | None:
    """Return the split that loads, in this epoch or a later one, while its workers take something."""
    split = mesh.host.get("/api/explain?model=wide")["split"]
    if not split or split["state"] != "loading" or split["epoch"] < epoch:
        return None
    lent = all_servers(mesh)
    return split if lent and all(is_used(server) for server in lent) else None


def all_servers(mesh: Mesh) -> list[psutil.Process]:
    """Return the servers that are lent by nodes whose daemons run."""
    return [server for node in mesh.nodes if node.process.poll() is None for server in servers(node)]


def until_acquainted(mesh: Mesh) -> None:
    """Wait until the host knows of every other node what it could lend, and how far away it is."""

    def known() -> bool:
        others = [one for one in mesh.host.get("/api/nodes")["nodes"] if not one["is_me"]]
        able = [one for one in others if one["engine_build"] and one["rtt_ms"] is not None]
        return len(able) == len(mesh.nodes) - 1

    until(known, "the host to know everybody", SHARED_S)


def is_used(server: psutil.Process) -> bool:
    """Tell whether a host is connected to a server."""
    try:
        return any(one.status == psutil.CONN_ESTABLISHED for one in server.net_connections())
    except psutil.NoSuchProcess:
        return False


def worker_of(mesh: Mesh, split: dict[str, Any]) -> Daemon:
    """Return the node that lends."""
    lending = split["shares"][0]["candidate"]
    return next(node for node in mesh.nodes if node_id(node) == lending)


def until_given_back(node: Daemon) -> None:
    """Wait until a node lends nothing, by its processes and by its own words."""
    until(lambda: not servers(node), "the end of the server", SHARED_S)
    until(lambda: lends(node) == [], "the end of what is promised", SHARED_S)


def lends(node: Daemon) -> list[dict[str, Any]]:
    """Return what a node says that it lends."""
    found: list[dict[str, Any]] = next(one["lends"] for one in node.get("/api/nodes")["nodes"] if one["is_me"])
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_that_fails_in_the_middle_of_a_load_is_replaced(tmp_path: Path, fault: Fault) -> None:
    """Who waits for the model goes on waiting, and has its answer from the next epoch."""
    gate = tmp_path / "gate"
    with a_mesh(tmp_path, SERVES, (), (), switches={"share_gate": str(gate)}, environment=SHORT) as mesh:
        until_acquainted(mesh)
        first = until(lambda: loading(mesh), "a load", SHARED_S)
        worker = worker_of(mesh, first)
        other = next(node for node in mesh.nodes[1:] if node is not worker)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(other.chat, "hello", model="wide", stream=True, timeout_s=SHARED_S * 2)
            fault(worker)
            try:
                until(lambda: loading(mesh, first["epoch"] + 1), "the next load", FOUND_DEAD_S)
                gate.touch()
                reply = asked.result(timeout=SHARED_S * 2)
            finally:
                gate.touch()
                worker.signal(signal.SIGCONT)

        assert (reply.status, reply.events[-1]) == (200, "[DONE]")
        mesh.until_shared(first["epoch"] + 1)
        until(lambda: len(all_servers(mesh)) == 1, "one server", SHARED_S)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_that_fails_in_the_middle_of_a_token_ends_no_stream_in_silence(tmp_path: Path, fault: Fault) -> None:
    """The stream goes on in the next epoch or says why not; a worker that comes back disturbs nobody."""
    with a_mesh(tmp_path, SERVES, (), (), token_s=0.2, environment=SHORT) as mesh:
        until_acquainted(mesh)
        first = mesh.until_shared()
        worker = worker_of(mesh, first)
        other = next(node for node in mesh.nodes[1:] if node is not worker)
        lent = servers(worker)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(other.chat, "hello", model="wide", stream=True, max_tokens=60, timeout_s=SHARED_S * 2)
            until(lambda: mesh.host.get("/api/status")["models"][0]["in_flight"], "a stream", SHARED_S)
            fault(worker)
            try:
                second = until(lambda: mesh.until_shared(first["epoch"] + 1), "the next split", FOUND_DEAD_S)
                reply = asked.result(timeout=SHARED_S * 2)
            finally:
                worker.signal(signal.SIGCONT)

        assert is_whole(reply), reply.body[-300:]
        until(lambda: not any(one.is_running() for one in lent), "the end of the first server", SHARED_S)
        assert other.chat("again", model="wide").status == 200
        last = mesh.until_shared(second["epoch"])
        assert len(all_servers(mesh)) == 1
        assert len(last["shares"]) == 2


def test_a_host_that_is_killed_in_the_middle_of_a_load_leaves_nothing_lent(tmp_path: Path) -> None:
    """Its worker has its memory back, and says so."""
    with a_mesh(tmp_path, SERVES, (), switches={"share_gate": str(tmp_path / "gate")}) as mesh:
        until(lambda: loading(mesh), "a load", SHARED_S)
        worker = mesh.nodes[1]
        promised = lends(worker)
        mesh.host.process.kill()
        mesh.host.process.wait()

        until_given_back(worker)
        assert [one["model"] for one in promised] == ["wide"]


@pytest.mark.parametrize("is_loading", [True, False])
def test_a_host_that_is_stopped_loses_what_it_was_lent_and_finds_its_way_back(tmp_path: Path, is_loading: bool) -> None:
    """Its worker does not wait for it; when it goes on it plans anew, under a later epoch."""
    gate = tmp_path / "gate"
    with a_mesh(tmp_path, SERVES, (), switches={"share_gate": str(gate)} if is_loading else {}) as mesh:
        first = until(lambda: loading(mesh), "a load", SHARED_S) if is_loading else mesh.until_shared()
        mesh.host.signal(signal.SIGSTOP)
        try:
            until_given_back(mesh.nodes[1])
        finally:
            mesh.host.signal(signal.SIGCONT)
        gate.touch()

        mesh.until_shared(first["epoch"] + 1)
        assert mesh.nodes[1].chat("hello", model="wide").status == 200
