"""Versions, discovery and health with real daemons: registered on one node, asked for on another."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemons import BUSY_MACHINE_S, WAIT_S, Daemon, until
from tests.e2e.test_mesh import node_id, token_of, until_listed
from tests.inventory import gguf_builder

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
SEEN_S = 2.0
"""Promised for a rescan; a busy machine gets more."""
CHECKED_S = 10.0


def a_file(node: Daemon, name: str, what: str) -> Path:
    """Put a model with content of its own into a node's folder."""
    return gguf_builder.write(node.models / f"{name}.gguf", gguf_builder.llama(general__name=what))


def register(node: Daemon, version: str, path: str, **fields: object) -> tuple[int, dict[str, object]]:
    """Register a version of `foo`; return status and answer."""
    reply = node.request("POST", "/v1/models/register", {"id": "foo", "version": version, "path": path, **fields})
    return reply.status, reply.json


def details(node: Daemon, name: str) -> dict[str, object]:
    """Return a model in detail."""
    return dict(node.get(f"/v1/models/{name}"))


@pytest.mark.rows("REG-6", "REG-8", "REG-9", "ADR-12")
def test_a_version_registered_on_one_node_answers_on_another(daemon: Make) -> None:
    """`foo@1.1.0`, the newest as plain `foo`, and the stable one once there is one; after a restart, too."""
    first = daemon("--model", "v1", "--model", "v2", models=())
    a_file(first, "v1", "one")
    a_file(first, "v2", "two")
    with first:
        for name in ("v1", "v2"):
            first.until_model(name, phase="ready")
        assert register(first, "1.0.0", "v1.gguf")[0] == 201
        assert register(first, "1.1.0", "v2.gguf")[0] == 201
        with daemon("--join", token_of(first), models=()) as second:
            until_listed(second, "v2")
            until(lambda: second.chat(model="foo@1.1.0").status == 200, "the version to be known")

            names = ("foo@1.1.0", "foo@1.0.0", "foo")
            asked = {name: second.chat(model=name).headers["x-mesh-model"] for name in names}
            versions = second.get("/v1/models/foo/versions")["versions"]
            assert register(first, "1.0.0", "v1.gguf", alias="stable")[0] == 201
            until(lambda: second.chat(model="foo").headers["x-mesh-model"] == "v1", "the stable version")

            assert asked == {"foo@1.1.0": "v2", "foo@1.0.0": "v1", "foo": "v2"}
            assert [(one["version"], one["nodes"]) for one in versions] == [
                ("1.1.0", [node_id(first)]), ("1.0.0", [node_id(first)]),
            ]  # fmt: skip
            shown = second.run("show", "foo@1.1.0")
            assert shown.returncode == 0, shown.stderr
            for words in ("v2", "version 1.1.0", "stable", "on other nodes"):
                assert words in shown.stdout

            a_file(second, "v3", "three")
            status, refused = register(second, "1.1.0", "v3.gguf")
            assert (status, refused["error"]["code"]) == (409, "version_conflict")  # type: ignore[index]


@pytest.mark.rows("REG-4", "REG-5", "LST-10")
def test_a_file_that_is_copied_in_is_discovered_without_a_restart(daemon: Make) -> None:
    """Within two seconds of a rescan, in the log too; `jq` over the list finds it."""
    with daemon("--model", "tiny", models=("tiny",)) as node:
        node.until_model("tiny", phase="ready")
        a_file(node, "new-model", "new")

        began_s = time.monotonic()
        assert node.request("POST", "/v1/models/rescan", {}).status == 202
        until(lambda: node.model("new-model"), "the new model")
        took_s = time.monotonic() - began_s

        assert took_s < SEEN_S + BUSY_MACHINE_S
        assert "Model discovered: new-model" in node.log
        if (jq := shutil.which("jq")) is not None:
            found = subprocess.run(
                [jq, '.data[] | select(.id=="new-model")'], input=node.request("GET", "/v1/models").body,
                capture_output=True, check=True, timeout=WAIT_S,
            )  # fmt: skip
            assert json.loads(found.stdout)["id"] == "new-model"


@pytest.mark.rows("HLT-5", "REG-17")
def test_a_file_that_is_overwritten_in_place_takes_its_model_out_of_service(daemon: Make) -> None:
    """On both nodes: told as unhealthy, never routed to, well again after another load."""
    first = daemon("--model", "tiny", models=())
    path = a_file(first, "tiny", "one")
    with first:
        first.until_model("tiny", phase="ready")
        until(lambda: details(first, "tiny")["digest"], "the digest")
        with daemon("--join", token_of(first), models=()) as second:
            until_listed(second, "tiny")
            well = second.get("/v1/models/tiny/health")

            path.write_bytes(gguf_builder.build(gguf_builder.llama(general__name="two")))
            until(lambda: second.get("/health/model/tiny")["health_status"] == "unhealthy", "the damage to be told")
            began_s = time.monotonic()
            checked = first.request("POST", "/health/check", {"model_id": "tiny"}).json["results"][0]
            took_s = time.monotonic() - began_s
            answers = [node.chat() for node in (first, second)]
            detail = details(second, "tiny")
            loaded = first.run("unload", "tiny"), first.run("load", "tiny")
            until(lambda: second.chat().status == 200, "it to be well again")

        assert (well["health_status"], well["nodes"][0]["node_id"]) == ("healthy", node_id(first))
        assert took_s < CHECKED_S + BUSY_MACHINE_S
        assert (checked["health_status"], checked["status"]) == ("unhealthy", "loaded")
        assert checked["checks"]["file_integrity"] == "failed"
        assert {answer.status for answer in answers} == {503}
        assert {answer.error["code"] for answer in answers} == {"model_failed"}
        assert (detail["status"], detail["health_status"]) == ("loaded", "unhealthy")
        assert [one.returncode for one in loaded] == [0, 0], loaded
