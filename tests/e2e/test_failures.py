"""Engines that fail: the client gets the right error in time, `status` the reason, the other model goes on."""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.e2e.daemons import BUSY_MACHINE_S, WAIT_S, Daemon, until

pytestmark = pytest.mark.e2e
Maker = Callable[..., Daemon]


def both_ready(node: Daemon) -> None:
    """Wait until both models answer."""
    node.until_model("tiny", phase="ready")
    node.until_model("other", phase="ready")


@pytest.mark.rows("LIF-19")
def test_engine_killed_in_the_middle_of_a_stream_that_is_not_to_be_resumed_ends_it_with_one_error_event(
    daemon: Maker,
) -> None:
    """Never a silent end: the SDK must raise, and the next request is served by the restarted engine."""
    with daemon("--model", "tiny", "--model", "other", engine='fake:{"token_s": 0.05}') as node:
        both_ready(node)
        with node.streaming("count", max_tokens=200, resume=False) as answer:
            answer.readline()
            os.kill(node.model("tiny")["pid"], signal.SIGKILL)
            events = [line for line in answer.read().split(b"\n") if line.startswith(b"data: ")]

        error = json.loads(events[-1][6:])["error"]
        assert error["code"] == "host_lost"
        assert b"[DONE]" not in b"".join(events)
        assert node.chat(model="other").status == 200
        assert node.chat().status == 200
        assert node.model("tiny")["restarts"] == 1


def test_engine_killed_before_the_first_byte_costs_the_client_only_time(daemon: Maker) -> None:
    """The request is held, the engine restarted, the answer one clean 200."""
    with daemon("--model", "tiny", engine='fake:{"first_token_s": 1.5}') as node:
        pid = node.until_model("tiny", phase="ready")["pid"]
        os.kill(pid, signal.SIGKILL)

        reply = node.chat()

        assert reply.status == 200
        assert node.model("tiny")["pid"] != pid


def is_ready_in_another_process(node: Daemon, pid: int) -> bool:
    """Tell whether the model is served, and not by the process that hung."""
    model = node.model("tiny")
    return bool(model["phase"] == "ready" and model["pid"] != pid)


def test_a_hung_engine_is_noticed_by_progress_killed_and_replaced(daemon: Maker) -> None:
    """A process that lives and does nothing frees nobody's request; pings would not show it."""
    with daemon("--model", "tiny", "--model", "other", engine="fake", stall_s=1.0) as node:
        both_ready(node)
        pid = node.model("tiny")["pid"]
        began_s = time.monotonic()

        with node.streaming("!freeze:3", max_tokens=100, resume=False) as answer:
            events = [line for line in answer.read().split(b"\n") if line.startswith(b"data: ")]

        assert json.loads(events[-1][6:])["error"]["code"] == "host_lost"
        assert time.monotonic() - began_s < BUSY_MACHINE_S
        assert node.chat(model="other").status == 200
        until(lambda: is_ready_in_another_process(node, pid), "another engine for the model")
        assert not psutil.pid_exists(pid)


def test_out_of_memory_while_loading_is_tried_with_half_and_then_explained(daemon: Maker) -> None:
    """The reason of the engine reaches `status` and the client."""
    with daemon("--model", "tiny", engine='fake:{"load": "oom"}') as node:
        failed = node.until_model("tiny", phase="failed")
        reply = node.chat()

        assert failed["failure"]["fault"] == "out_of_memory"
        assert (reply.status, reply.error["code"]) == (503, "model_failed")
        assert "memory" in reply.error["message"]


@pytest.mark.rows("LIF-19")
def test_crash_loop_backs_off(daemon: Maker) -> None:
    """A machine in trouble is not hammered; the request waits for the try that works."""
    switches = {"load": "exit", "load_troubles": 2, "counter": "{home}/starts"}
    with daemon("--model", "tiny", engine=f"fake:{json.dumps(switches)}") as node:
        reply = node.chat()

        assert reply.status == 200
        assert "retry_in_s=1.0" in node.log
        assert "retry_in_s=2.0" in node.log


def test_a_missing_file_is_named(daemon: Maker) -> None:
    """Somebody deleted the file of a model that was in memory, then its engine died."""
    with daemon("--model", "tiny", "--model", "other") as node:
        both_ready(node)
        (node.models / "tiny.gguf").unlink()
        os.kill(node.model("tiny")["pid"], signal.SIGKILL)

        failed = until(
            lambda: (m := node.model("tiny")).get("failure") and m["failure"]["fault"] == "missing_file" and m,
            "the reason",
        )
        assert "tiny.gguf" in failed["failure"]["message"]
        assert node.chat(model="other").status == 200


def test_a_client_that_leaves_frees_the_slot_within_a_second(daemon: Maker) -> None:
    """Nobody computes for a closed window."""
    with daemon("--model", "tiny", "--parallel", "1", engine='fake:{"token_s": 0.05}') as node:
        node.until_model("tiny", phase="ready")
        with node.streaming("count", max_tokens=2000) as answer:
            answer.readline()
            until(lambda: node.model("tiny")["in_flight"] == 1, "the stream to be seen")

        until(lambda: node.model("tiny")["in_flight"] == 0, "the slot", within_s=1.0 + BUSY_MACHINE_S)
        assert node.chat().status == 200


def test_a_forced_unload_is_not_undone_by_the_requests_that_it_cuts(daemon: Maker) -> None:
    """Neither a stream nor an answer that has not begun asks for the model again; the next request may."""
    with daemon("--model", "tiny", engine='fake:{"token_s": 0.05}') as node, ThreadPoolExecutor(1) as pool:
        node.until_model("tiny", phase="ready")
        with node.streaming("count", max_tokens=2000) as answer:
            answer.readline()
            cut = pool.submit(node.chat, "count", max_tokens=2000)
            until(lambda: node.model("tiny")["in_flight"] == 2, "both requests")

            unloaded = node.run("unload", "tiny", "--force")
            events = [line for line in answer.read().split(b"\n") if line.startswith(b"data: ")]

        assert unloaded.returncode == 0
        assert json.loads(events[-1][6:])["error"]["code"] == "model_unloaded"
        reply = cut.result(10)
        assert (reply.status, reply.error["code"]) == (503, "model_unloaded")
        assert (node.model("tiny")["phase"], node.log.count("model ready")) == ("unloaded", 1)
        assert node.chat().status == 200


def test_a_cold_model_is_loaded_by_the_first_of_many_requests(daemon: Maker) -> None:
    """Fifty requests, one load, fifty answers."""
    with daemon("--model", "other", engine='fake:{"load_s": 1.0}') as node:
        node.until_model("other", phase="ready")
        assert node.model("tiny")["phase"] == "unloaded"

        reply = node.chat()

        assert reply.status == 200
        assert reply.json["model"] == "tiny"
        assert node.log.count("model ready model=tiny") == 1


def test_four_hundred_slow_connections_leave_it_serving(daemon: Maker) -> None:
    """Somebody's broken script must not take the endpoint from everybody."""
    import socket  # noqa: PLC0415 - only here

    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")
        slow = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(400)]
        try:
            for one in slow:
                one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")

            assert node.chat().status == 200
            assert node.request("GET", "/v1/models").status == 200
        finally:
            for one in slow:
                one.close()


@pytest.mark.slow
def test_few_descriptors_mean_refusals_and_never_a_hang(daemon: Maker) -> None:
    """512 connections at `ulimit -n 128`: 503 or a close, and it recovers."""
    import socket  # noqa: PLC0415

    with daemon("--model", "tiny", nofile=128) as node:
        node.until_model("tiny", phase="ready")
        outcomes: list[str] = []
        held: list[socket.socket] = []
        for _ in range(512):
            one = socket.create_connection(("127.0.0.1", node.port), timeout=WAIT_S)
            held.append(one)
            one.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for one in held:
            try:
                outcomes.append(one.recv(12).decode() or "closed")
            except ConnectionError:
                outcomes.append("closed")
        for one in held:
            one.close()

        assert set(outcomes) <= {"HTTP/1.1 200", "HTTP/1.1 503", "closed"}
        assert "HTTP/1.1 200" in outcomes
        until(lambda: served(node), "it to serve again", within_s=2.0 + BUSY_MACHINE_S)


def served(node: Daemon) -> bool:
    """Tell whether a request is answered."""
    try:
        return node.chat(timeout_s=WAIT_S).status == 200
    except OSError:
        return False
