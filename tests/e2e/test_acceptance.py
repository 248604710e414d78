"""Rows of docs/acceptance.md that only whole daemons can show, and that no other test here is about."""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.daemons import BUSY_MACHINE_S, WAIT_S, Daemon, until

pytestmark = pytest.mark.e2e
Maker = Callable[..., Daemon]
GONE_S = 20.0
KNOWN_S = 1.0
ROOM_FOR_ONE = "100MB"
"""Of `--max-vram`: a generated model takes 79 MB with its overhead."""


def loaded(node: Daemon) -> set[str]:
    """Return the models that a node lists as loaded."""
    return {model["id"] for model in node.get("/v1/models")["data"] if model.get("status") == "loaded"}


def until_sees(node: Daemon, model: str, *, is_loaded: bool, within_s: float) -> None:
    """Wait until a node lists a model as loaded, or no more."""
    until(lambda: (model in loaded(node)) == is_loaded, f"{model} to be loaded: {is_loaded}", within_s)


def a_mesh(stack: ExitStack, daemon: Maker, *models: str) -> list[Daemon]:
    """Start one node for each model, each of which it alone serves; return them when all see all."""
    first = stack.enter_context(daemon("--model", models[0], "--no-mdns", models=models[:1]))
    token = first.run("token").stdout.strip()
    others = [
        stack.enter_context(daemon("--model", model, "--join", token, "--no-mdns", models=(model,)))
        for model in models[1:]
    ]
    for node in (first, *others):
        for model in models:
            until_sees(node, model, is_loaded=True, within_s=WAIT_S)
    return [first, *others]


@pytest.mark.rows("CLI-10", "LIF-18", "PRX-6")
def test_the_second_model_waits_for_room_and_says_so(daemon: Maker) -> None:
    """It is listed as unloaded, asked for it tells what is missing, and it starts as soon as there is room."""
    with daemon("--model", "tiny", "--model", "other", "--max-vram", ROOM_FOR_ONE, "--no-mdns") as node:
        node.until_model("tiny", phase="ready")
        waiting = node.get("/v1/models/other")
        refused = node.chat(model="other")

        assert (waiting["status"], waiting["phase"]) == ("unloaded", "queued")
        assert re.match(r"capacity: needs [\d.]+ MB, [\d.]+ MB are free", waiting["waiting"])
        assert (refused.status, refused.error["code"]) == (503, "no_capacity")
        assert re.search(r"needs [\d.]+ MB", refused.error["message"])
        assert refused.headers["retry-after"]

        node.request("POST", "/v1/models/unload", {"model_id": "tiny"})
        node.until_model("other", phase="ready")


@pytest.mark.skipif(not (shutil.which("jq") and shutil.which("curl")), reason="jq or curl is not installed")
@pytest.mark.rows("LST-10")
def test_a_script_finds_a_model_that_was_just_put_there(daemon: Maker) -> None:
    """As people write it: curl, and jq that selects by id."""
    script = "curl -s http://127.0.0.1:%d/v1/models | jq -c '.data[] | select(.id==\"new-model\")'"
    with daemon("--model", "tiny", "--no-mdns", models=("tiny",)) as node:
        (node.models / "new-model.gguf").write_bytes((node.models / "tiny.gguf").read_bytes())

        found = until(
            lambda: (
                subprocess.run(
                    ["/bin/sh", "-c", script % node.port], capture_output=True, text=True, timeout=WAIT_S, check=True
                ).stdout
            ),
            "the model to be listed",
        )

    assert json.loads(found)["status"] == "unloaded"


@pytest.mark.rows("REG-15")
def test_two_hundred_models_are_listed_and_each_can_be_asked_for(daemon: Maker) -> None:
    """Nothing counts models; only memory does."""
    names = tuple(f"m-{number:03}" for number in range(200))
    with daemon("--model", "m-000", "--no-mdns", models=names) as node:
        node.until_model("m-000", phase="ready")
        until(lambda: len(node.get("/v1/models")["data"]) == 201, "all to be listed")

        last = node.chat(model="m-199")

        assert (last.status, last.json["model"]) == (200, "m-199")


@pytest.mark.rows("T25")
def test_thirty_four_requests_on_two_slots_are_all_answered(daemon: Maker) -> None:
    """A queue that refuses is no queue."""
    with (
        daemon("--model", "tiny", "--parallel", "2", "--no-mdns", engine='fake:{"token_s": 0.01}') as node,
        ThreadPoolExecutor(34) as clients,
    ):
        node.until_model("tiny", phase="ready")

        answers = list(clients.map(lambda number: node.chat(f"{number}", timeout_s=60).status, range(34)))

    assert answers == [200] * 34


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.rows("T22", "HLT-8")
def test_five_nodes_killed_at_once_are_all_gone_within_twenty_seconds(daemon: Maker) -> None:
    """They are found out side by side, not one after another."""
    with ExitStack() as stack:
        left, *killed = a_mesh(stack, daemon, "m-a", "m-b", "m-c", "m-d", "m-e", "m-f")

        for node in killed:
            node.signal(signal.SIGKILL)

        until(lambda: loaded(left) == {"m-a"}, "five nodes to be gone", GONE_S + BUSY_MACHINE_S)
        assert left.chat(model="m-a").status == 200


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.rows("MSH-14", "LIF-13")
def test_five_nodes_know_of_a_change_within_a_second(daemon: Maker) -> None:
    """Unloaded here is unloaded in everybody's list, and loaded again as well."""
    with ExitStack() as stack:
        nodes = a_mesh(stack, daemon, "m-a", "m-b", "m-c", "m-d", "m-e")
        changing = nodes[0]

        assert changing.request("POST", "/v1/models/unload", {"model_id": "m-a", "hold": True}).status == 200
        for node in nodes:
            until_sees(node, "m-a", is_loaded=False, within_s=KNOWN_S + BUSY_MACHINE_S)
        assert changing.request("POST", "/v1/models/reload", {"model_id": "m-a"}).status == 200
        for node in nodes:
            until_sees(node, "m-a", is_loaded=True, within_s=KNOWN_S + BUSY_MACHINE_S)


def surface(node: Daemon) -> dict[str, Any]:
    """Return the shapes that a client, a log reader and a scraper see of a node with `tiny` as its default."""
    entry = next(one for one in node.get("/v1/models")["data"] if one["id"] == "tiny")
    asked = {name: node.chat(model=name) for name in (None, "default", "tiny")}
    metrics = node.request("GET", "/metrics").body.decode()
    return {
        "entry": sorted(entry), "default": node.get("/v1/models")["default_model"],
        "answers": {name: (reply.status, reply.json["model"], sorted(reply.json)) for name, reply in asked.items()},
        "headers": sorted(name for name in asked["tiny"].headers if name.startswith("x-")),
        "unknown": node.chat(model="nobody").error["code"],
        "metrics": sorted(family.name for family in text_string_to_metric_families(metrics)),
    }  # fmt: skip


@pytest.mark.rows("CFG-17", "CFG-18", "GEN-1")
def test_one_model_and_many_look_the_same_to_a_client(daemon: Maker) -> None:
    """Whoever begins with one model changes nothing when a second one comes."""
    with daemon("--model", "tiny", "--no-mdns", models=("tiny",)) as one:
        one.until_model("tiny", phase="ready")
        alone = surface(one)
    with daemon("--model", "tiny", "--model", "other", "--no-mdns") as many:
        many.until_model("tiny", phase="ready")
        many.until_model("other", phase="ready")

        assert surface(many) == alone
