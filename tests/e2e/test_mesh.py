"""A mesh of real daemons on one machine: joining, answering for one another, losing one another."""

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.daemons import BUSY_MACHINE_S, WAIT_S, Daemon, until

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
GONE_AFTER_KILL_S = 8.0
GONE_AFTER_LEAVE_S = 1.0
JOINED_S = 2.0
ENGINES_DIE_S = 2.0
WINDOWS_BYTES = 16 * 1024 * 1024
"""Of one stream: sockets, relay and credit at both nodes, and what Python keeps of freed memory."""


def token_of(node: Daemon, *options: str) -> str:
    """Return a new token of a node's mesh."""
    made = node.run("token", *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def listed(node: Daemon) -> set[str]:
    """Return the ids of the models that a node lists as ready."""
    models = node.get("/v1/models")["data"]
    return {model["id"] for model in models if model.get("status") == "loaded"}


def until_listed(node: Daemon, model: str, within_s: float = WAIT_S) -> None:
    """Wait until a node lists a model as ready."""
    until(lambda: model in listed(node), f"{model} to be listed", within_s)


def until_gone(node: Daemon, model: str, within_s: float) -> None:
    """Wait until a node lists a model no more."""
    until(lambda: model not in listed(node), f"{model} to be gone", within_s)


def node_id(node: Daemon) -> str:
    """Return a node's id."""
    return str(node.get("/api/status")["node"]["id"])


@pytest.mark.rows("MSH-2", "PRX-1", "PRX-10")
def test_a_node_that_joins_answers_for_the_others_model_within_two_seconds(daemon: Make) -> None:
    """From the token to a warm answer: what a person waits for."""
    with daemon("--model", "tiny") as first:
        until_listed(first, "tiny")
        token = token_of(first)

        with daemon("--join", token, models=()) as second:
            began_s = time.monotonic()  # its API has just opened
            answer = second.chat("hello")
            took_s = time.monotonic() - began_s

            assert answer.status == 200
            assert answer.headers["x-mesh-node"] == node_id(first)
            assert listed(second) == {"tiny"}
            assert took_s < JOINED_S + BUSY_MACHINE_S


@pytest.mark.rows("PRX-4")
def test_a_stream_through_a_tunnel_is_the_same_text(daemon: Make) -> None:
    """Event by event, with its end."""
    with daemon("--model", "tiny") as first, daemon("--join", token_of(first), models=()) as second:
        until_listed(second, "tiny")

        here = first.chat("hello", stream=True, max_tokens=20)
        there = second.chat("hello", stream=True, max_tokens=20)

        assert there.events[-1] == "[DONE]"
        assert there.text == here.text


@pytest.mark.rows("CLI-13", "LST-1", "ADR-9", "MSH-1", "MSH-4")
def test_a_client_beside_a_node_uses_every_model_and_serves_none(daemon: Make) -> None:
    """A fresh identity with each start, and no engine."""
    with (
        daemon("--model", "tiny", models=("tiny",)) as first,
        daemon("--model", "other", "--join", token_of(first), models=("other",)) as second,
        daemon("--client", "--join", token_of(first, "--client-only"), models=()) as client,
    ):
        for model in ("tiny", "other"):
            until_listed(client, model)
            answer = client.chat(model=model)
            assert (answer.status, answer.json["model"]) == (200, model)

        for node in (first, second):
            until_listed(node, "tiny")
            until_listed(node, "other")
        lists = [[model["id"] for model in node.get("/v1/models")["data"]] for node in (first, second, client)]
        assert lists == [["default", "other", "tiny"]] * 3
        assert client.engines() == []
        assert {node_id(first), node_id(second)} < {member["id"] for member in client.get("/api/nodes")["nodes"]}


@pytest.mark.rows("HLT-8")
def test_a_killed_daemon_is_gone_soon_and_so_are_its_engines(daemon: Make) -> None:
    """No goodbye: the others find out."""
    with daemon("--model", "tiny") as first, daemon("--join", token_of(first), models=()) as second:
        until_listed(second, "tiny")
        engines = first.engines()

        first.signal(signal.SIGKILL)

        until(lambda: not any(engine.is_running() and engine.status() != "zombie" for engine in engines),
              "the engines to die", ENGINES_DIE_S + BUSY_MACHINE_S)  # fmt: skip
        until_gone(second, "tiny", GONE_AFTER_KILL_S + BUSY_MACHINE_S)
        assert second.chat("hello").status == 404  # nobody that lives has its file


@pytest.mark.rows("MSH-15")
def test_a_daemon_that_leaves_is_gone_at_once(daemon: Make) -> None:
    """SIGTERM says goodbye, and takes only its own models along."""
    with (
        daemon("--model", "tiny", models=("tiny",)) as first,
        daemon("--model", "other", "--join", token_of(first), models=("other",)) as second,
    ):
        until_listed(second, "tiny")
        until_listed(second, "other")

        first.signal(signal.SIGTERM)

        until_gone(second, "tiny", GONE_AFTER_LEAVE_S + BUSY_MACHINE_S)
        assert first.ended() == 0
        assert second.chat(model="other").status == 200


@pytest.mark.rows("CLI-11", "HLT-7", "MSH-12", "PRX-8")
def test_a_request_moves_to_another_replica_when_its_host_is_gone(daemon: Make) -> None:
    """The client sees one answer, whoever gave it."""
    with (
        daemon("--model", "tiny") as first,
        daemon("--model", "tiny", "--join", token_of(first)) as second,
        daemon("--join", token_of(first), models=()) as third,
    ):
        until(lambda: len(third.get("/v1/models/tiny").get("nodes", ())) == 2, "two replicas")

        first.signal(signal.SIGKILL)
        answers = [third.chat("hello") for _ in range(6)]

        assert [answer.status for answer in answers] == [200] * 6
        assert {answer.headers["x-mesh-node"] for answer in answers} >= {node_id(second)}
        assert second.log.count("model ready model=tiny") == 1


def test_a_request_waits_for_an_engine_that_starts_again_elsewhere(daemon: Make) -> None:
    """A crash at the far end makes a known model slow for a moment, not unknown."""
    with daemon("--model", "tiny") as first, daemon("--join", token_of(first), models=()) as second:
        until_listed(second, "tiny")

        second.chat("hello", x_fake="die")
        until(lambda: "tiny" not in listed(second) or first.model("tiny")["restarts"], "the crash to be known", WAIT_S)
        answer = second.chat("hello")

        assert answer.status == 200


def test_a_stream_whose_host_dies_ends_with_one_error_event(daemon: Make) -> None:
    """Never silently: no `[DONE]`, and the body ends properly."""
    slow = 'fake:{"token_s": 0.05}'
    with daemon("--model", "tiny", engine=slow) as first, daemon("--join", token_of(first), models=()) as second:
        until_listed(second, "tiny")

        with second.streaming("hello", max_tokens=400) as answer:
            answer.readline()
            first.signal(signal.SIGKILL)
            events = [line for line in answer.read().split(b"\n") if line.startswith(b"data: ")]

        assert b"[DONE]" not in events[-1]
        assert json.loads(events[-1][6:])["error"]["code"] == "host_lost"


@pytest.mark.rows("HLT-8")
def test_a_node_finds_its_mesh_again_without_its_token(daemon: Make) -> None:
    """The token is for joining; afterwards the roster and the certificate are enough."""
    with daemon("--model", "tiny") as first:
        second = daemon("--join", token_of(first), models=())
        with second:
            until_listed(second, "tiny")
            known = node_id(second)
            second.signal(signal.SIGTERM)
            second.ended()
        second.arguments = tuple(
            word for word in second.arguments if not word.startswith("meshllm1-") and word != "--join"
        )

        with second:
            until_listed(second, "tiny")
            assert node_id(second) == known


def test_a_guest_can_neither_admit_nor_revoke(daemon: Make) -> None:
    """Rights are the certificate's, whatever the guest's own daemon would like."""
    with daemon("--model", "tiny") as first, daemon("--join", token_of(first, "--guest"), models=()) as guest:
        until_listed(guest, "tiny")

        refused = guest.run("token")

        assert refused.returncode == 1
        assert "meshllm1-" not in refused.stdout


def test_a_revoked_token_admits_nobody_any_more(daemon: Make) -> None:
    """Whoever joined stays; whoever comes later is told why."""
    with daemon("--model", "tiny") as first:
        token = token_of(first)
        with daemon("--join", token, models=()) as second:
            until_listed(second, "tiny")
            known = first.get("/api/tokens")["tokens"]
            for entry in known:
                assert first.run("token", "revoke", entry["id"]).returncode == 0

            late = daemon("--join", token, "--require-join", models=())
            with late:
                assert late.ended(30) == 6
            assert "the peer does not take the token: it was revoked" in late.log
            assert second.chat("hello").status == 200


def test_a_revoked_node_is_out_at_once_and_stays_out(daemon: Make) -> None:
    """Its models go with it, and its certificate is worth nothing."""
    with daemon("--model", "tiny") as first:
        other = daemon("--model", "other", "--join", token_of(first), models=("other",))
        with other:
            until_listed(first, "other")

            assert first.run("node", "revoke", node_id(other)).returncode == 0

            until_gone(first, "other", WAIT_S)
            until_gone(other, "tiny", 2 * WAIT_S)


def test_a_node_that_must_join_and_knows_no_mesh_founds_none(daemon: Make) -> None:
    """Exit code 6 at once, and a token that comes later is taken."""
    node = daemon("--require-join", models=())

    ended = node.run("--require-join", "--port", "1", "--engine", "fake")

    assert ended.returncode == 6
    assert ended.stderr.startswith("mesh-llm: --require-join: this node knows of no mesh")
    assert not (node.state / "mesh.json").exists()


def test_tokens_are_neither_in_logs_nor_in_the_process_list(daemon: Make, tmp_path: Path) -> None:
    """A file or the environment carries them."""
    with daemon("--model", "tiny") as first:
        token = token_of(first)
        file = tmp_path / "token"
        file.write_text(token + "\n")

        with daemon("--join-file", str(file), models=()) as second:
            until_listed(second, "tiny")

            assert "meshllm1-" not in first.log + second.log  # neither this one nor one of their own
            assert "`mesh-llm token` prints" in first.log
            assert token not in "".join(Path(f"/proc/{second.process.pid}/cmdline").read_text().split("\0"))


@pytest.mark.parametrize(
    ("token", "says"),
    [("hello", "token"), ("meshllm1-aaaa", "damaged"), ("meshllm1-" + "a" * 2_000, "long")],
    ids=["not-a-token", "damaged", "too-long"],
)
def test_a_token_that_cannot_be_used_ends_the_start_and_says_why(daemon: Make, token: str, says: str) -> None:
    """Exit code 5, and one sentence."""
    node = daemon("--join", token, models=())

    with pytest.raises(AssertionError), node:
        pass

    assert node.process.returncode == 5
    assert says in node.log
    assert "Traceback" not in node.log


def test_a_client_that_does_not_read_costs_its_own_window_and_nothing_else(daemon: Make) -> None:
    """Neither daemon's memory grows with what nobody takes, and others are answered as before."""
    with daemon("--model", "tiny") as first, daemon("--join", token_of(first), models=()) as second:
        until_listed(second, "tiny")
        assert second.chat("hello").status == 200
        before = [psutil.Process(node.process.pid).memory_info().rss for node in (first, second)]
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 400_000}

        with socket.create_connection(("127.0.0.1", second.port)) as idle:
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            content = json.dumps(body).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            idle.sendall(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(content), content))
            until(lambda: first.model("tiny")["in_flight"] == 1, "the stream to begin")
            answers = [second.chat("hello").status for _ in range(20)]

            after = [psutil.Process(node.process.pid).memory_info().rss for node in (first, second)]

        assert answers == [200] * 20
        assert [grown - was < WINDOWS_BYTES for was, grown in zip(before, after, strict=True)] == [True, True]


@pytest.mark.rows("HLT-6")
def test_a_models_health_is_measured_by_its_host_and_shown_everywhere(daemon: Make) -> None:
    """On demand, within ten seconds; all nodes show what the host found, with the moment."""
    with daemon("--model", "tiny") as first, daemon("--join", token_of(first), models=()) as second:
        until_listed(second, "tiny")
        second.chat(stream=True)

        began_s = time.monotonic()
        answer = second.request("POST", "/health/check", {"model_id": "tiny"})
        took_s = time.monotonic() - began_s
        everything = second.request("POST", "/health/check", {}).json["results"]

        assert (answer.status, took_s < 10.0 + BUSY_MACHINE_S) == (200, True)
        [result] = answer.json["results"]
        [host] = result["nodes"]
        assert (result["health_status"], host["node_id"]) == ("healthy", node_id(first))
        assert (host["checks"]["file_integrity"], host["checks"]["memory"]) == ("ok", "ok")
        until(lambda: _response_time_s(second, "tiny"), "the host's measurement being shown")
        assert host["last_check"] is not None
        assert [one["model_id"] for one in everything] == ["tiny"]


def _response_time_s(node: Daemon, model: str) -> float | None:
    """Have a model looked at; return what its host measured of its first tokens."""
    result = node.request("POST", "/health/check", {"model_id": model}).json["results"][0]
    measured: float | None = result["nodes"][0]["checks"]["response_time_s"]
    return measured
