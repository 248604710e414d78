"""Servers that people already run, adopted by real daemons: listed, shared with the mesh, lost and found again."""

import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from meshllm.core.limits import REMOTE_PROBE_INTERVAL_S
from tests.e2e.daemons import BUSY_MACHINE_S, Daemon, free_port, until
from tests.e2e.test_mesh import listed, node_id, token_of, until_gone, until_listed
from tests.proxy.certificates import an_issued_certificate

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
SEEN_S = REMOTE_PROBE_INTERVAL_S + BUSY_MACHINE_S


@contextmanager
def a_server(port: int = 0, **ways: object) -> Iterator[int]:
    """Run a server in a process of its own; hand over its port."""
    command = [sys.executable, "-m", "meshllm.testing.fake_openai_server", json.dumps({"port": port, **ways})]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@contextmanager
def asked(node: Daemon, model: str) -> Iterator[None]:
    """Have a request under way whose answer nobody waits for."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port)
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    try:
        yield
    finally:
        connection.close()


def a_config(folder: Path, *servers: tuple[str, int, str]) -> str:
    """Write a configuration that adopts servers (name, port, key); return its path."""
    folder = folder / f"adopt-{len(list(folder.iterdir()))}"
    folder.mkdir()
    tables = []
    for name, port, key in servers:
        table = f'[[remotes]]\nname = "{name}"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
        if key:
            (folder / name).write_text(key)
            table += f'api_key_file = "{name}"\n'
        tables.append(table)
    (folder / "config.toml").write_text("\n".join(tables))
    return str(folder / "config.toml")


@pytest.mark.rows("CFG-16", "MSH-17")
def test_a_server_at_one_node_answers_a_request_that_enters_at_another(daemon: Make, tmp_path: Path) -> None:
    """Beside a model of its own, whose engine this node runs."""
    with (
        a_server(models=["llama3:8b"], key="sk-box") as port,
        daemon("--model", "tiny", "--config", a_config(tmp_path, ("box", port, "sk-box"))) as first,
    ):
        until(lambda: listed(first) == {"tiny", "llama3:8b"}, "both models being listed")
        with daemon("--join", token_of(first), models=()) as second:
            until_listed(second, "llama3:8b")

            here, there = first.chat(model="llama3:8b"), second.chat(model="llama3:8b")
            stream = second.chat(model="llama3:8b", stream=True, max_tokens=5)

            assert [here.status, there.status, second.chat(model="tiny").status] == [200, 200, 200]
            assert there.headers["x-mesh-node"] == node_id(first)
            assert there.json["model"] == "llama3:8b"
            assert there.json["seen"]["authorization"] == "Bearer sk-box"
            assert stream.events[-1] == "[DONE]"
            assert stream.text == "0 1 2 3 4 "
            status = first.run("status")
            assert f"box at http://127.0.0.1:{port}: 1 models" in status.stdout
            assert "sk-box" not in status.stdout + first.log


@pytest.mark.rows("CFG-16")
def test_a_server_that_goes_away_and_returns_is_unlisted_and_listed_again(daemon: Make, tmp_path: Path) -> None:
    """With the reason in between; nobody has to restart the node."""
    port = free_port()
    with daemon("--config", a_config(tmp_path, ("box", port, "")), models=()) as node:
        with a_server(port=port):
            until(lambda: "remote-model" in listed(node), "the model being listed", SEEN_S)
            assert node.chat(model="remote-model").status == 200

        began_s = time.monotonic()
        refused = node.chat(model="remote-model")
        took_s = time.monotonic() - began_s
        shown = node.model("remote-model")

        assert (refused.status, refused.error["code"]) == (503, "model_failed")
        assert took_s < REMOTE_PROBE_INTERVAL_S
        assert "Connection refused" in refused.error["message"]
        assert shown["failure"]["fault"] == "unreachable"
        assert listed(node) == set()
        with a_server(port=port):
            until(lambda: node.chat(model="remote-model").status == 200, "an answer", SEEN_S)


def test_a_server_behind_a_certificate_of_ones_own_needs_its_authority_named(daemon: Make, tmp_path: Path) -> None:
    """Status, log and refusals say so, with the setting; then it is used."""
    authority, _ = an_issued_certificate(tmp_path)
    config = tmp_path / "config.toml"
    with a_server(tls=[str(tmp_path / "issued.pem"), str(tmp_path / "key.pem")]) as port:
        config.write_text(f'[[remotes]]\nname = "box"\nbase_url = "https://localhost:{port}/v1"\n')
        node = daemon("--config", str(config), models=())
        node.environment = {**node.environment, "SSL_CERT_FILE": ""}
        with node:
            until(lambda: "is not trusted" in node.run("status").stdout, "the certificate being refused", SEEN_S)
            shown, log = node.run("status").stdout, node.log
        node.environment["SSL_CERT_FILE"] = str(authority)
        with node:
            until(lambda: "remote-model" in listed(node), "the model being listed", SEEN_S)
            answer = node.chat(model="remote-model")

    told = "unable to get local issuer certificate; SSL_CERT_FILE can name a file with those to trust"
    assert told in " ".join(shown.split())
    assert told in log
    assert answer.status == 200


@pytest.mark.rows("T24")
def test_a_slow_server_does_not_delay_another(daemon: Make, tmp_path: Path) -> None:
    """And each is asked for its own model."""
    with (
        a_server(models=["slow"], trouble="hang") as slow,
        a_server(models=["fast"]) as fast,
        daemon("--config", a_config(tmp_path, ("a", slow, ""), ("b", fast, "")), models=()) as node,
    ):
        until(lambda: listed(node) == {"slow", "fast"}, "both models being listed")
        with ExitStack() as stuck:
            for _ in range(8):
                stuck.enter_context(asked(node, "slow"))
            began_s = time.monotonic()
            answers = [node.chat(model="fast") for _ in range(5)]
            took_s = time.monotonic() - began_s

        assert [answer.json["seen"]["asked_for"] for answer in answers] == ["fast"] * 5
        assert took_s < 2.0


@pytest.mark.rows("LIF-9", "T30")
def test_an_adopted_model_is_not_unloaded_and_still_answers(daemon: Make, tmp_path: Path) -> None:
    """It is not this node's to unload."""
    with (
        a_server() as port,
        daemon("--config", a_config(tmp_path, ("box", port, "")), models=()) as node,
    ):
        until_listed(node, "remote-model")
        for path in ("/v1/models/unload", "/v1/models/reload"):
            answer = node.request("POST", path, {"model_id": "remote-model"})
            assert (answer.status, answer.json["status"]) == (409, "no_loader_config")
        dropped = node.run("drop", "remote-model")

        assert dropped.returncode == 1
        assert "does not run" in dropped.stderr
        assert node.chat(model="remote-model").status == 200


def test_leaving_lets_an_answer_of_a_server_finish(daemon: Make, tmp_path: Path) -> None:
    """As for an engine of its own."""
    with (
        a_server(token_s=0.1) as port,
        daemon("--config", a_config(tmp_path, ("box", port, "")), models=()) as node,
    ):
        until_listed(node, "remote-model")
        with node.streaming("hello", model="remote-model", max_tokens=10) as answer:
            first = answer.readline()
            node.signal(signal.SIGTERM)
            rest = answer.read()

        assert first.startswith(b"data: ")
        assert rest.endswith(b"data: [DONE]\n\n")
        assert node.ended() == 0


@pytest.mark.rows("CFG-16")
def test_other_nodes_say_why_a_server_does_not_answer(daemon: Make, tmp_path: Path) -> None:
    """503 with the reason while it is away, not 404; `--model` may name a model of it."""
    port = free_port()
    with (
        daemon("--model", "remote-model", "--config", a_config(tmp_path, ("box", port, "")), models=()) as first,
        ExitStack() as open_servers,
    ):
        open_servers.enter_context(a_server(port=port))
        until_listed(first, "remote-model", SEEN_S)
        assert first.chat(model=None).json["model"] == "remote-model"
        with daemon("--join", token_of(first), models=()) as second:
            until_listed(second, "remote-model")
            open_servers.close()
            assert first.chat(model="remote-model").status == 503

            until_gone(second, "remote-model", SEEN_S)
            refused = second.chat(model="remote-model")

            assert (refused.status, refused.error["code"]) == (503, "model_failed")
            assert "Connection refused" in refused.error["message"]
