"""SmolLM2 shared by real engines whose real servers are killed or stopped, while it loads and while it answers: F8."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.e2e.daemons import Daemon, until
from tests.engine_real.test_split import MODEL, RUNS_S, nodes, shared
from tests.rpc_engine import RpcEngine

pytestmark = [pytest.mark.engine, pytest.mark.rpc, pytest.mark.slow, pytest.mark.timeout(600)]

LIMIT = ("--max-vram", "255MiB")
SHORT = {"MESH_LLM_ENGINE_STALL_S": "5", "MESH_LLM_LOAD_TIMEOUT_S": "10"}
FAULTS = [signal.SIGKILL, signal.SIGSTOP]
QUESTION = "Write a long story about the sea."


def servers(node: Daemon) -> list[psutil.Process]:
    """Return a node's servers for splits of others."""
    return [child for child in node.engines() if is_server(child)]


def is_server(process: psutil.Process) -> bool:
    """Tell whether a process is a server for splits, and there."""
    try:
        return process.name() == "ggml-rpc-server"
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("is_loading", [True, False])
def test_a_server_that_fails_is_replaced_and_no_answer_is_cut_in_silence(
    tmp_path: Path, rpc_engine: RpcEngine, smollm2: str, fault: signal.Signals, is_loading: bool
) -> None:
    """Its worker starts another one; who asked has the whole answer, or an error event."""
    with nodes(tmp_path, rpc_engine, smollm2, LIMIT, LIMIT, **SHORT) as (host, worker), ThreadPoolExecutor(1) as pool:
        if is_loading:
            split = until(lambda: state(host) == "loading" and servers(worker) and document(host), "a load", RUNS_S)
        else:
            split = until(lambda: shared(host), "a split that runs", RUNS_S)
        asked = pool.submit(
            worker.chat, QUESTION, model=MODEL, stream=True, max_tokens=150, timeout_s=RUNS_S, temperature=0
        )
        if not is_loading:
            until(lambda: host.get("/api/status")["models"][0]["in_flight"], "a stream", RUNS_S)
        (server,) = servers(worker)
        server.send_signal(fault)
        reply = asked.result(timeout=RUNS_S)
        second = until(lambda: (found := shared(host)) and found["epoch"] > split["epoch"] and found, "another", RUNS_S)

        assert not server.is_running()
        assert reply.status == 200, reply.body
        assert reply.events[-1] == "[DONE]" or "error" in reply.events[-1], reply.body[-300:]
        assert [share["is_host"] for share in second["shares"]] == [False, True]
        assert worker.chat(QUESTION, model=MODEL, timeout_s=RUNS_S).status == 200
        assert len(servers(worker)) == 1


def document(host: Daemon) -> dict[str, object]:
    """Return the split as its host sees it."""
    found: dict[str, object] = host.get(f"/api/explain?model={MODEL}")["split"]
    return found


def state(host: Daemon) -> object:
    """Return how far the split is; None while there is none."""
    split = host.get(f"/api/explain?model={MODEL}")["split"]
    return split["state"] if split else None
