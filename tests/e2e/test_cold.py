"""Requests for models that nobody serves at the moment: real daemons, from the request to one load and the answer."""

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.e2e.daemons import Daemon, Reply, until
from tests.e2e.test_mesh import node_id, token_of, until_listed
from tests.inventory import gguf_builder

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
COUNTING = json.dumps({"load": "exit", "load_troubles": 0, "counter": "COUNTER", "load_s": 0.5})
ENGINE = "fake:" + COUNTING.replace("COUNTER", "{home}/starts")
ANSWER_S = 60.0


def starts(*nodes: Daemon) -> int:
    """Return how often engines were started by nodes, all models together."""
    counters = [node.home / "starts" for node in nodes]
    return sum(int(counter.read_text()) for counter in counters if counter.exists())


def entry_of(node: Daemon, model: str) -> dict[str, object]:
    """Return what a node lists of a model; empty where it does not know it."""
    return next((one for one in node.get("/v1/models")["data"] if one["id"] == model), {})


def until_known(node: Daemon, model: str, status: str = "unloaded") -> None:
    """Wait until a node lists a model with a status."""
    until(lambda: entry_of(node, model).get("status") == status, f"{model} to be listed as {status}")


def ask_at_once(count: int, *nodes: Daemon, model: str = "tiny") -> list[Reply]:
    """Send so many requests to each node at the same time and return the answers."""
    with ThreadPoolExecutor(count * len(nodes)) as pool:
        asked = [pool.submit(node.chat, model=model, timeout_s=ANSWER_S) for _ in range(count) for node in nodes]
        return [one.result() for one in asked]


@pytest.mark.rows("LIF-6", "T3")
def test_fifty_requests_at_two_entry_nodes_are_one_load_and_fifty_answers(daemon: Make) -> None:
    """The model lies on a third node's disk, and nobody serves it."""
    with (
        daemon("--model", "other", engine=ENGINE) as host,
        daemon("--join", token_of(host), models=()) as first,
        daemon("--join", token_of(host), models=()) as second,
    ):
        until_listed(host, "other")
        for entry in (first, second):
            until_known(entry, "tiny")
        before = starts(host)

        answers = ask_at_once(25, first, second)

        assert [answer.status for answer in answers] == [200] * 50
        assert {answer.headers["x-mesh-node"] for answer in answers} == {node_id(host)}
        assert {answer.headers["x-mesh-model"] for answer in answers} == {"tiny"}
        assert starts(host) == before + 1


@pytest.mark.rows("LIF-6", "LIF-7", "T29")
def test_a_model_that_was_unloaded_is_loaded_again_by_a_request_at_another_node(daemon: Make) -> None:
    """Once, and by any of its names."""
    with daemon("--model", "tiny", engine=ENGINE) as host, daemon("--join", token_of(host), models=()) as entry:
        until_listed(entry, "tiny")
        assert host.run("unload", "tiny").returncode == 0
        until_known(entry, "tiny")
        before = starts(host)

        answer = entry.chat(model="TINY", timeout_s=ANSWER_S)

        assert (answer.status, answer.headers["x-mesh-model"]) == (200, "tiny")
        assert starts(host) == before + 1


@pytest.mark.rows("LIF-7", "T4")
def test_the_default_is_loaded_again_when_everything_was_unloaded(daemon: Make) -> None:
    """It is a name and survives."""
    with daemon("--model", "tiny", "--model", "other") as node:
        for model in ("tiny", "other"):
            until_listed(node, model)
            assert node.run("unload", model).returncode == 0

        answer = node.chat(model="default", timeout_s=ANSWER_S)

        assert (answer.status, answer.headers["x-mesh-model"]) == (200, "tiny")
        assert entry_of(node, "other")["status"] == "unloaded"


@pytest.mark.rows("LIF-6", "LST-7")
def test_a_stream_for_a_cold_model_hears_comments_until_it_is_answered(daemon: Make) -> None:
    """And the list at the entry node shows how far it is."""
    slow = ENGINE.replace('"load_s": 0.5', '"load_s": 12')
    with (
        daemon("--model", "other", engine=slow) as host,
        daemon("--join", token_of(host), models=()) as entry,
    ):
        until_known(entry, "tiny")

        with entry.streaming("hello", max_tokens=4) as answer:
            head = answer.readline()
            until_known(entry, "tiny", "reloading")
            body = answer.read()

        assert head.startswith(b": waiting: the model 'tiny' is ")
        assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.rows("PRX-6")
def test_a_model_that_has_room_nowhere_is_refused_in_bytes(daemon: Make) -> None:
    """At once, whichever node is asked."""
    host = daemon("--model", "tiny")
    huge = gguf_builder.write(host.models / "huge.gguf")
    os.truncate(huge, 2 * psutil.virtual_memory().total)  # of holes: it takes no room on the disk
    with host, daemon("--join", token_of(host), models=()) as entry:
        until_listed(entry, "tiny")
        until_known(entry, "huge")

        refused = entry.chat(model="huge", timeout_s=ANSWER_S)

        assert (refused.status, refused.error["code"]) == (503, "no_capacity")
        assert " GB" in refused.error["message"] or " TB" in refused.error["message"]
        assert "retry-after" in refused.headers
        assert entry.chat(model="tiny").status == 200


def test_auto_takes_what_answers_and_an_unknown_name_is_told_at_once(daemon: Make) -> None:
    """Cold models are known, whatever is written small or large; what nobody has is not."""
    with daemon("--model", "tiny") as host, daemon("--join", token_of(host), models=()) as entry:
        until_listed(entry, "tiny")
        until_known(entry, "other")

        auto, unknown = entry.chat(model="auto"), entry.chat(model="othre")  # codespell:ignore

        assert (auto.status, auto.headers["x-mesh-model"]) == (200, "tiny")
        assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
        assert "did you mean other" in unknown.error["message"]


@pytest.mark.rows("LIF-6")
def test_a_request_whose_engine_is_killed_elsewhere_waits_for_the_next_one(daemon: Make) -> None:
    """Before its first byte: the client sees one slow answer."""
    slow = 'fake:{"first_token_s": 1.0}'
    with daemon("--model", "tiny", engine=slow) as host, daemon("--join", token_of(host), models=()) as entry:
        until_listed(entry, "tiny")
        pid = host.until_model("tiny", phase="ready")["pid"]
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(entry.chat, timeout_s=ANSWER_S)
            until(lambda: host.model("tiny")["in_flight"] == 1, "the request at the engine")
            os.kill(pid, signal.SIGKILL)
            answer = asked.result()

        assert (answer.status, answer.headers["x-mesh-node"]) == (200, node_id(host))
        assert int(answer.headers["x-mesh-attempts"]) > 1
