"""The reference and a real daemon: every route that it has answers, and workflows run as they are written."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.described import answer_mismatches
from tests.e2e.daemons import WAIT_S, Daemon
from tests.house.tree import ROOT
from tests.inventory import gguf_builder

pytestmark = pytest.mark.e2e
Maker = Callable[..., Daemon]
ASK: Any = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
GUIDE: list[tuple[str, str, Any]] = [
    ("GET", "/v1/models", None), ("GET", "/v1/models/tiny", None),
    ("POST", "/v1/models/register", {"id": "tiny", "version": "1.1.0", "path": "tiny.gguf"}),
    ("POST", "/v1/models/default", {"model_id": "tiny"}),
    ("GET", "/v1/models/tiny/versions", None), ("GET", "/v1/models/tiny/health", None),
    ("POST", "/v1/chat/completions", {"model": "tiny", **ASK}),
    ("POST", "/v1/completions", {"model": "tiny", "prompt": "hello", "max_tokens": 2}),
    ("POST", "/v1/embeddings", {"model": "vectors", "input": "hello"}),
    ("GET", "/routing/config", None), ("POST", "/routing/config", {"strategy": "cache_aware"}),
    ("GET", "/routing/stats", None),
    ("GET", "/quotas/tiny", None), ("POST", "/quotas/tiny", {"hourly_token_limit": 100_000}),
    ("GET", "/quotas/tiny/report", None),
    ("GET", "/cache/allocation", None), ("POST", "/cache/allocation", {"allocation_strategy": "fair_share"}),
    ("GET", "/cache/stats", None),
    ("GET", "/health", None), ("GET", "/health/model/tiny", None), ("POST", "/health/check", {"model_id": "tiny"}),
    ("GET", "/metrics", None), ("GET", "/metrics/routing", None), ("GET", "/metrics/cache", None),
    ("GET", "/metrics/quotas", None),
]  # fmt: skip
"""Every route that the user guide's API reference and its health section list, in their order."""
needs_tools = pytest.mark.skipif(not (shutil.which("jq") and shutil.which("curl")), reason="jq or curl is missing")


@pytest.mark.rows("T27", "OPS-7", "API-10")
def test_every_route_of_the_guide_answers_as_the_reference_says(daemon: Maker) -> None:
    """On a node that has just started, with files on its disk and nothing else said to it."""
    with daemon("--model", "tiny", "--no-mdns", models=("tiny",)) as node:
        write_embedder(node.models / "vectors.gguf")
        node.until_model("tiny", phase="ready")
        node.until_model("vectors")

        for method, path, body in GUIDE:
            reply = node.request(method, path, body)

            assert reply.status < 300, (method, path, reply.body)
            if reply.headers["content-type"] == "application/json":
                assert unlike(method, path, reply.status, reply.json) == [], (method, path)


@pytest.mark.rows("T27")
def test_a_node_without_models_has_every_route_of_its_reference(daemon: Maker) -> None:
    """What is 404 there says that the model is unknown, or the token or node; never that there is no such path."""
    with daemon("--assign", "off", "--no-mdns", "--offline", models=()) as node:
        paths = node.get("/openapi.json")["paths"]
        asked = [
            (method, path) for path, item in paths.items() for method in ("get", "post", "delete") if method in item
        ]
        found = {(method, path): answered(node, method.upper(), path) for method, path in asked}

    assert len(found) > 60
    assert [route for route, code in found.items() if code in {"not_found", "method_not_allowed"}] == []


def answered(node: Daemon, method: str, path: str) -> str:
    """Return the code of the error that a route answers without a body; empty where it is none."""
    if path in {"/api/events", "/mesh/drop"}:
        return ""  # the one has no end; the other would be the node's
    reply = node.request(method, re.sub(r"{\w+}", "nothing", path), b"{}" if method == "POST" else None)
    return "" if reply.status < 400 or "error" not in reply.json else code_of(reply.json["error"])


def code_of(error: Any) -> str:
    """Return the word for programs; the lifecycle's errors are sentences."""
    return str(error["code"]) if isinstance(error, dict) else ""


def unlike(method: str, path: str, status: int, document: Any) -> list[str]:
    """Return what of an answer the reference doesn't say; engines add fields of their own to answers of inference."""
    found = answer_mismatches(method, path, status, document)
    is_inference = path.rpartition("/")[2] in {"completions", "embeddings"}
    return [one for one in found if not (is_inference and one.endswith("is described nowhere"))]


def write_embedder(file: Path) -> None:
    """Write the file of a model that makes vectors."""
    gguf_builder.write(file, gguf_builder.llama(**{"general.name": "vectors", "llama.pooling_type": 3}))


def run(node: Daemon, name: str, *arguments: str, **environment: str) -> Iterator[Any]:
    """Run a workflow against a node and return the documents that it prints."""
    done = subprocess.run(
        [ROOT / "scripts" / "workflows" / name, *arguments], capture_output=True, text=True, timeout=WAIT_S * 2,
        env={**os.environ, "MESH_LLM_URL": f"http://127.0.0.1:{node.port}", **environment}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (json.loads(line) for line in done.stdout.splitlines())


@needs_tools
@pytest.mark.rows("OPS-7")
def test_a_model_is_added_as_the_first_workflow_says(daemon: Maker, tmp_path: Path) -> None:
    """A folder for it, its line in the log, its entry, its health, its answer."""
    log = tmp_path / "server.log"
    with daemon("--model", "tiny", "--no-mdns", "--log-file", str(log), models=("tiny",)) as node:
        environment = {"MODELS_DIR": str(node.models), "LOG_FILE": str(log)}
        listed, health, answer = run(node, "add_a_model", str(node.models / "tiny.gguf"), "new-model", **environment)

    assert (listed["id"], health["model_id"], answer["model"]) == ("new-model", "new-model", "new-model")
    assert answer["text"].startswith("0 1 2")


@needs_tools
@pytest.mark.rows("OPS-7")
def test_requests_are_routed_as_the_second_workflow_says(daemon: Maker) -> None:
    """A hundred of them, each counted."""
    with daemon("--model", "tiny", "--model", "other", "--no-mdns") as node:
        node.until_model("other", phase="ready")
        models, config, strategies = run(node, "route_requests")
        total = node.get("/routing/stats")["total_routes"]

    assert models == ["default", "other", "tiny"]
    assert config["strategy"] == "cache_aware"
    assert "cache_aware" in strategies
    assert total == 100


@needs_tools
@pytest.mark.rows("OPS-7")
def test_two_models_are_compared_as_the_third_workflow_says(daemon: Maker) -> None:
    """70 to 30, the figures of both, and an end of it."""
    with daemon("--model", "tiny", "--model", "other", "--no-mdns") as node:
        node.until_model("tiny", phase="ready")
        node.until_model("other", phase="ready")
        begun, shares, rates, ended = run(node, "compare_models", "tiny", "other", "100")

    assert (begun["ab_test_enabled"], begun["ab_test_split"], ended["ab_test_enabled"]) == (True, 0.7, False)
    assert shares["a"] + shares["b"] == 100
    assert abs(shares["a"] - 70) <= 1 + shares["spill"]
    assert {rate["model"] for rate in rates} == {"tiny", "other"}
