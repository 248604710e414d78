"""Loading, unloading, dropping and the default across a mesh of real daemons."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.daemons import BUSY_MACHINE_S, Daemon, Reply, is_alive, until
from tests.e2e.test_mesh import listed, node_id, token_of, until_gone, until_listed

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
SEEN_S = 1.0
"""What changes at one node is seen at the others so soon."""
BUSY_S = BUSY_MACHINE_S


@contextmanager
def three(daemon: Make, models: tuple[str, ...] = ("tiny",)) -> Iterator[tuple[Daemon, Daemon, Daemon]]:
    """Run two nodes that serve `tiny`, and a third with nothing."""
    with (
        daemon("--model", "tiny", models=models) as first,
        daemon("--model", "tiny", "--join", token_of(first), models=models) as second,
        daemon("--join", token_of(first), models=()) as third,
    ):
        until(lambda: len(third.get("/v1/models/tiny").get("nodes", ())) == 2, "two replicas")
        yield first, second, third


def lifecycle(node: Daemon, verb: str, model: str = "tiny", **body: object) -> Reply:
    """Send one of the lifecycle requests."""
    return node.request("POST", f"/v1/models/{verb}", {"model_id": model, **body}, timeout_s=60)


def status_of(node: Daemon, model: str = "tiny") -> dict[str, object]:
    """Return what a node says of a model."""
    document: dict[str, object] = lifecycle(node, "status", model).json
    return document


@pytest.mark.rows("LIF-1", "LIF-11", "LIF-13", "T5")
def test_an_unload_for_the_mesh_ends_the_engines_of_all_nodes(daemon: Make) -> None:
    """Asked for at a node that serves nothing; when it answers, the processes are gone."""
    with three(daemon) as (first, second, third):
        engines = [*first.engines(), *second.engines()]
        assert len(engines) >= 2

        answer = lifecycle(third, "unload")

        assert (answer.status, answer.json) == (200, {"model_id": "tiny", "status": "unloaded"})
        assert not any(is_alive(engine) for engine in engines)
        for node in (first, second, third):
            until_gone(node, "tiny", SEEN_S + BUSY_S)
        assert status_of(first)["status"] == "unloaded"
        again = lifecycle(first, "unload")
        assert (again.status, again.json["status"]) == (200, "unloaded")

        assert first.chat("hello").status == 200  # a request brings it back
        until_listed(third, "tiny")


def test_a_pin_is_of_the_node_that_is_named_until_it_is_ended(daemon: Make) -> None:
    """By the command, here and from another node; what cannot be meant is refused and changes nothing."""
    with three(daemon) as (first, second, third):
        there = node_id(second)

        assert first.run("pin", "tiny").returncode == 0
        assert third.run("pin", "tiny", "--node", there[:8]).returncode == 0
        first.until_model("tiny", pinned=True)
        second.until_model("tiny", pinned=True)
        ended = third.run("pin", "tiny", "--off", "--node", there)
        wrong = (("tiny", "--node", "atlantis"), ("none",), ("tiny", "--node", "mesh"))
        nowhere, nothing, everywhere = (first.run("pin", *words) for words in wrong)

        assert (ended.returncode, ended.stderr) == (0, f"tiny is not pinned at {there}\n")
        second.until_model("tiny", pinned=False)
        assert first.model("tiny")["pinned"]
        assert [run.returncode for run in (nowhere, nothing, everywhere)] == [1, 1, 1]
        assert "no node of the mesh is called 'atlantis'" in nowhere.stderr
        assert "this node has no model 'none'" in nothing.stderr
        assert "what stays in memory is chosen for one node" in everywhere.stderr


def test_a_model_held_in_the_mesh_refuses_requests_until_somebody_loads_it(daemon: Make) -> None:
    """At every node that has it, not only where it was said."""
    with three(daemon) as (first, second, third):
        assert third.run("unload", "tiny", "--hold").returncode == 0

        for node in (first, second):
            node.until_model("tiny", held=True)
            reply = node.chat("hello")
            assert (reply.status, reply.error["code"]) == (503, "model_held")

        loaded = second.run("load", "tiny")
        assert loaded.returncode == 0, loaded.stderr
        until(lambda: not first.model("tiny")["held"], "the model to be free again")
        assert first.chat("hello").status == 200


@pytest.mark.rows("T1", "LIF-2", "LIF-11")
def test_reload_of_a_loaded_model_changes_nothing(daemon: Make) -> None:
    """Listed once; unloading and a request bring it back."""
    with daemon("--model", "tiny", models=("tiny",)) as node:
        until_listed(node, "tiny")
        engines = {engine.pid for engine in node.engines()}

        answer = lifecycle(node, "reload")

        assert (answer.status, answer.json) == (200, {"model_id": "tiny", "status": "loaded"})
        assert status_of(node)["status"] == "loaded"
        assert [model["id"] for model in node.get("/v1/models")["data"]].count("tiny") == 1
        assert {engine.pid for engine in node.engines()} == engines
        assert lifecycle(node, "unload").status == 200
        assert node.chat("hello").status == 200


@pytest.mark.rows("T2", "LIF-12")
def test_an_unload_waits_for_a_stream_from_another_node_and_a_forced_one_ends_it(daemon: Make) -> None:
    """With the reason as the stream's last event; whoever asks for a whole answer hears the same."""
    with (
        daemon("--model", "tiny", models=("tiny",), engine='fake:{"token_s": 0.02}') as host,
        daemon("--join", token_of(host), models=()) as entry,
    ):
        until_listed(entry, "tiny")
        with entry.streaming("hello", max_tokens=200) as stream:
            stream.readline()
            answer: list[Reply] = []
            unload = threading.Thread(target=lambda: answer.append(lifecycle(entry, "unload")))
            unload.start()
            rest = stream.read().decode()
            unload.join()
        assert rest.rstrip().endswith("data: [DONE]")
        assert answer[0].json == {"model_id": "tiny", "status": "unloaded"}

        assert lifecycle(host, "reload").status == 200
        until_listed(entry, "tiny")
        with entry.streaming("hello", max_tokens=2000) as stream:
            stream.readline()
            whole: list[Reply] = []
            waits = threading.Thread(target=lambda: whole.append(entry.chat("hello", max_tokens=2000)))
            waits.start()
            until(lambda: host.model("tiny")["in_flight"] == 2, "both requests at the engine")
            assert lifecycle(entry, "unload", force=True).status == 200
            events = [line for line in stream.read().decode().split("\n") if line.startswith("data: ")]
            waits.join()
        assert json.loads(events[-1][6:])["error"]["code"] == "model_unloaded"
        assert (whole[0].status, whole[0].error["code"]) == (503, "model_unloaded")


@pytest.mark.rows("T4", "LIF-7")
def test_the_default_comes_back_after_everything_was_unloaded(daemon: Make) -> None:
    """A name survives what it stands for."""
    with daemon("--model", "tiny", "--model", "other", models=("tiny", "other")) as node:
        until_listed(node, "tiny")
        until_listed(node, "other")
        for model in ("tiny", "other"):
            assert lifecycle(node, "unload", model).status == 200
        assert listed(node) == set()

        reply = node.chat("hello", model="default")

        assert (reply.status, reply.json["model"]) == (200, "tiny")


@pytest.mark.rows("T6", "LIF-8")
def test_reload_of_an_unknown_model_changes_nothing(daemon: Make) -> None:
    """`not_found`, and the list stays as it was."""
    with daemon("--model", "tiny", models=("tiny",)) as node:
        until_listed(node, "tiny")
        before = node.get("/v1/models")["data"]

        answer = lifecycle(node, "reload", "nonsense")

        assert (answer.status, answer.json["status"]) == (404, "not_found")
        assert node.get("/v1/models")["data"] == before


@pytest.mark.rows("T21", "LIF-14", "LIF-15", "CLI-17")
def test_a_drop_is_seen_at_once_and_one_of_nothing_fails(daemon: Make) -> None:
    """Exit code 1 for a model that this node lacks, wherever else it is served."""
    with (
        daemon("--model", "tiny", "--model", "other", models=("tiny", "other")) as first,
        daemon("--join", token_of(first), models=()) as second,
    ):
        until_listed(second, "tiny")
        until_listed(second, "other")
        assert second.request("POST", "/mesh/drop", {"model": "tiny"}).status == 404
        lacking = second.run("drop", "tiny")
        assert (lacking.returncode, "tiny" in lacking.stderr) == (1, True)

        assert first.request("POST", "/mesh/drop", {"model": "tiny"}).json == {"dropped": "tiny"}
        began_s = time.monotonic()
        until_gone(second, "tiny", SEEN_S + BUSY_S)
        assert time.monotonic() - began_s < SEEN_S + BUSY_S
        assert "other" in listed(second)

        everywhere = second.run("drop", "other", "--everywhere")
        assert everywhere.returncode == 0, everywhere.stderr
        until_gone(second, "other", SEEN_S + BUSY_S)
        assert first.process.poll() is None


@pytest.mark.rows("ADR-10")
def test_a_default_set_at_one_node_is_the_default_at_all(daemon: Make) -> None:
    """Also after the node that set it is gone, and after a restart."""
    with (
        daemon("--model", "tiny", "--model", "other", models=("tiny", "other")) as first,
        daemon("--join", token_of(first), models=()) as second,
    ):
        until_listed(second, "other")
        assert second.get("/v1/models/default")["default_model_id"] == "tiny"  # the founder's first model

        answer = second.request("POST", "/v1/models/default", {"model_id": "other"})

        assert answer.json == {"default_model_id": "other", "previous": "tiny", "scope": "mesh"}
        until(lambda: first.get("/v1/models/default")["default_model_id"] == "other", "the default", SEEN_S + BUSY_S)
        assert first.chat("hello", model="default").json["model"] == "other"
        bad = second.request("POST", "/v1/models/default", {"model_id": "nonsense"})
        assert (bad.status, bad.error["code"]) == (404, "model_not_found")
        assert second.get("/v1/models/default")["default_model_id"] == "other"


def test_orders_survive_a_restart_and_reach_those_who_were_away(daemon: Make) -> None:
    """A node that comes back does not bring back what was held meanwhile."""
    with daemon("--model", "tiny", models=("tiny",)) as first:
        second = daemon("--model", "tiny", "--join", token_of(first), models=("tiny",))
        with second:
            until(lambda: len(first.get("/v1/models/tiny").get("nodes", ())) == 2, "two replicas")
            second.process.terminate()
            second.ended()
        assert lifecycle(first, "unload", hold=True).status == 200

        with second:
            until(lambda: second.model("tiny").get("held"), "the order to be heard")
            until(lambda: second.model("tiny")["phase"] == "held", "the model to be out of memory")
            reply = second.chat("hello")
            assert (reply.status, reply.error["code"]) == (503, "model_held")


def test_an_order_to_one_node_needs_its_consent(daemon: Make) -> None:
    """`--no-remote-control` refuses everybody else."""
    with (
        daemon("--model", "tiny", models=("tiny",)) as first,
        daemon("--model", "other", "--no-remote-control", "--join", token_of(first), models=("other",)) as second,
    ):
        until_listed(first, "other")
        name = node_id(second)

        refused = first.run("unload", "other", "--node", name[:12])
        assert (refused.returncode, "lets no other node" in refused.stderr) == (1, True)
        until_listed(first, "other")

        assert second.run("unload", "tiny", "--node", node_id(first)).returncode == 0
        until_gone(second, "tiny", SEEN_S + BUSY_S)
        assert "other" in listed(first)
