"""A daemon starts, says why it cannot, ends politely, and leaves nothing behind."""

import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.e2e.daemons import WAIT_S, Daemon, free_port, is_alive, until

pytestmark = pytest.mark.e2e
Maker = Callable[..., Daemon]
MANY = 240
"""Files that take longer to look at than a door takes to open."""
SLOW = 'fake:{"token_s": 0.05}'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_serves_and_ends_politely_after_the_running_request(daemon: Maker, number: signal.Signals) -> None:
    """SIGTERM, Ctrl-C and a closed terminal drain: the running answer is written to its end, and the exit code is 0."""
    with daemon("--model", "tiny", engine=SLOW) as node:
        node.until_model("tiny", phase="ready")
        with node.streaming("count", max_tokens=40) as answer:
            first = answer.readline()
            node.signal(number)
            rest = answer.read()

        assert first.startswith(b"data: ")
        assert rest.rstrip().endswith(b"data: [DONE]")
        assert node.ended() == 0
        assert not node.engines()


def test_new_requests_are_refused_while_it_drains(daemon: Maker) -> None:
    """A request that cannot be finished is not begun."""
    with daemon("--model", "tiny", engine=SLOW) as node:
        node.until_model("tiny", phase="ready")
        with node.streaming("count", max_tokens=40) as answer:
            answer.readline()
            node.signal(signal.SIGTERM)
            reply = until(lambda: (got := node.chat()).status != 200 and got, "a refusal")
            answer.read()

        assert (reply.status, reply.error["code"]) == (503, "leaving")
        assert node.ended() == 0


def test_a_second_signal_does_not_wait(daemon: Maker) -> None:
    """Ctrl-C twice means now."""
    with daemon("--model", "tiny", engine=SLOW) as node:
        node.until_model("tiny", phase="ready")
        with node.streaming("count", max_tokens=2000) as answer:
            answer.readline()
            node.signal(signal.SIGINT)
            until(lambda: node.get("/api/status")["leaving"], "the node to leave")
            node.signal(signal.SIGINT)

            assert node.ended(5) == 0


@pytest.mark.parametrize("models", [(), ("tiny",)])
def test_stopping_is_said_before_left(daemon: Maker, models: tuple[str, ...]) -> None:
    """Also when nothing has to finish; the last line of a log is the end."""
    with daemon(models=models) as node:
        node.signal(signal.SIGTERM)

        assert node.ended() == 0
        lines = node.log.splitlines()

    assert [line for line in lines if line.startswith("stopping: ")]
    assert "left reason=SIGTERM" in lines[-1]


def test_a_terminal_that_closes_says_so_twice_and_hurries_nothing(daemon: Maker) -> None:
    """The kernel and the shell both send SIGHUP; the second must not cut the answer off."""
    with daemon("--model", "tiny", engine=SLOW) as node:
        node.until_model("tiny", phase="ready")
        with node.streaming("count", max_tokens=40) as answer:
            answer.readline()
            node.signal(signal.SIGHUP)
            until(lambda: node.get("/api/status")["leaving"], "the node to leave")
            node.signal(signal.SIGHUP)
            rest = answer.read()

        assert rest.rstrip().endswith(b"data: [DONE]")
        assert node.ended() == 0


def test_a_node_under_nohup_survives_its_terminal(daemon: Maker) -> None:
    """What its parent told it to ignore stays ignored."""
    with daemon("--model", "tiny", prefix=("nohup",)) as node:
        node.until_model("tiny", phase="ready")

        node.signal(signal.SIGHUP)

        assert node.chat().status == 200
        assert not node.get("/api/status")["leaving"]


def test_sigkill_leaves_no_engine_behind(daemon: Maker) -> None:
    """Engines die with their daemon within two seconds, whatever killed it."""
    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")
        engines = node.engines()
        assert engines

        node.signal(signal.SIGKILL)

        until(lambda: not any(is_alive(engine) for engine in engines), "the engines to die", WAIT_S)


def test_a_second_start_on_one_state_folder_exits_4_and_names_the_holder(daemon: Maker) -> None:
    """Two daemons on one identity would fight."""
    with daemon() as node:
        second = node.run("--port", str(free_port()), "--engine", "fake")

    assert second.returncode == 4
    assert f"process {node.process.pid} " in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_exits_3_and_names_the_holder(daemon: Maker) -> None:
    """Whoever reads it knows what to stop."""
    node = daemon()
    node.home.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = node.run("--port", str(port), "--engine", "fake")

    assert ended.returncode == 3
    assert f"127.0.0.1:{port} is already in use by process " in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (None, "does not exist"),
        ("not for running", "is not executable"),
        ("#!/bin/sh\necho hello\n", "is no llama-server"),
        ("#!/bin/sh\nkill -ILL $$\n", "take a portable build"),
        ("#!/no/such/interpreter\n", "cannot run here"),
    ],
)
def test_an_engine_that_was_named_and_cannot_run_is_wrong_usage(
    daemon: Maker, tmp_path: Path, program: str | None, words: str
) -> None:
    """Somebody chose it: serving nothing would hide that, and so would serving with another."""
    node, engine = daemon(), tmp_path / "llama-server"
    if program is not None:
        engine.write_text(program)
        engine.chmod(0o644 if "not for" in program else 0o755)

    ended = node.run("--port", str(free_port()), "--engine", str(engine))

    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith(f"mesh-llm: the engine {engine} ")
    assert words in ended.stderr


def test_a_model_that_nobody_knows_ends_the_start_with_near_names(daemon: Maker) -> None:
    """A typing error is told at once, not served by nothing."""
    node = daemon("--offline")

    ended = node.run("--model", "tyni", "--offline", "--port", str(free_port()), "--engine", "fake")

    assert ended.returncode == 1
    assert "tyni" in ended.stderr


def test_a_restart_finds_everything_again(daemon: Maker) -> None:
    """The id of the node is for life; a note of a dead daemon misleads nobody."""
    node = daemon("--model", "tiny")
    with node:
        first = node.get("/api/status")["node"]["id"]
        node.signal(signal.SIGKILL)
        node.ended()

    with node:
        assert node.get("/api/status")["node"]["id"] == first


def test_an_idle_daemon_is_small_and_quiet(daemon: Maker) -> None:
    """Under 80 MB resident: it runs beside everything else on people's machines."""
    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")
        node.chat()

        resident = psutil.Process(node.process.pid).memory_info().rss

    assert resident < 80 * 10**6


def test_orders_and_requests_right_after_the_start_wait_for_the_first_look(daemon: Maker) -> None:
    """A folder of many files takes a while; what lies in it is not called unknown meanwhile. The rest is, then."""
    names = tuple(f"m{number}" for number in range(MANY))
    with daemon(models=("tiny", *names)) as node:
        with ThreadPoolExecutor(4) as together:
            loaded = together.submit(node.request, "POST", "/v1/models/reload", {"model_id": "tiny"})
            answered = together.submit(node.chat, "hello", model="tiny")
            refused = together.submit(node.request, "POST", "/v1/models/unload", {"model_id": "nobody"})
            detail = together.submit(node.request, "GET", "/v1/models/tiny")
        late = node.request("POST", "/v1/models/reload", {"model_id": "nobody"})

        assert (loaded.result().status, loaded.result().json["status"]) == (200, "loaded")
        assert answered.result().status == 200
        assert detail.result().status in {200, 503}
        assert (refused.result().status, late.status) == (404, 404)
        assert "nobody" in late.json["error"]
