"""Real daemons share a model over networks that are slow, and that break."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemons import Daemon, until
from tests.e2e.test_split import LIMIT, WIDE
from tests.inventory import gguf_builder
from tests.lab.netlab import Lab, missing
from tests.lab.test_failures import Mesh
from tests.rpc_engine import RpcEngine

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing()), reason=f"no network laboratory: {missing()}"),
]

RUNS_S = 240.0
ASKED = [{"role": "user", "content": "Write one sentence about the sea."}]
QUESTION = {"messages": ASKED, "temperature": 0, "max_tokens": 24}
FAKE = "fake:" + json.dumps({"rpc": "fake 1", "token_s": 0.2})


@dataclass
class Sharing(Mesh):
    """Nodes of which the first has a model that it cannot hold alone."""

    model: str = "wide"

    def add(self, name: str, *arguments: str, file: Path | None = None, **environment: str) -> Daemon:
        """Start a node; the first one has the model, as a file or as a link to one."""
        prefix = tuple(self.lab.inside(name, []))
        join = ("--join", self.run("a", "token").strip()) if self.nodes else ("--model", self.model)
        own = ("--no-mdns", "--threads", "1", "--name", name)
        node = Daemon(self.home / name, (*join, *own, *arguments), port=9337, prefix=prefix, environment=environment)
        if not self.nodes and file is None:
            gguf_builder.write(node.models / f"{self.model}.gguf", gguf_builder.llama(**WIDE))
        elif not self.nodes:
            node.models.mkdir(parents=True)
            (node.models / f"{self.model}.gguf").symlink_to(file)
        self.nodes[name] = self.stack.enter_context(node)
        return node

    def shared(self, epoch: int = 1) -> dict[str, Any] | None:
        """Return the split that runs in this epoch or a later one, as the host sees it."""
        status, found = self.ask("a", "GET", f"/api/explain?model={self.model}")
        split = found.get("split") if status == 200 else None
        return split if split and split["runs"] and split["epoch"] >= epoch else None

    def said(self, name: str) -> str:
        """Return what the model answers at a node, at temperature 0."""
        status, found = self.ask(name, "POST", "/v1/chat/completions", {"model": self.model, **QUESTION})
        assert status == 200, found
        text: str = found["choices"][0]["message"]["content"]
        return text


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[..., Sharing]]:
    """Return a maker of meshes in laboratories."""
    with ExitStack() as stack:

        def make(*nodes: str, model: str = "wide") -> Sharing:
            found = stack.enter_context(Lab(f"lab{os.getpid()}", nodes))
            return Sharing(found, tmp_path, stack, model=model)

        yield make


@pytest.mark.engine
@pytest.mark.rpc
def test_over_five_milliseconds_it_says_what_one_machine_says(
    lab: Callable[..., Sharing], rpc_engine: RpcEngine, smollm2: str
) -> None:
    """The real model, through the encrypted plane, between machines with a round trip of five milliseconds."""
    found = lab("a", "b", model="smollm2")
    caches = {name: found.home / name / "cache" for name in "ab"}
    for cache in caches.values():
        rpc_engine.lend(cache)
    found.lab.impair("*", "*", delay=2.5)
    limit = ("--max-vram", "255MiB", "--ctx-size", "4096")
    found.add("a", *limit, file=Path(smollm2), MESH_LLM_CACHE_DIR=str(caches["a"]))
    found.add("b", *limit, MESH_LLM_CACHE_DIR=str(caches["b"]))
    split = until(found.shared, "a split that runs", RUNS_S)
    over_the_net = found.said("b")

    assert [share["node"] for share in split["shares"]] == ["b", "a"]
    assert split["shares"][0]["rtt_s"] > 0.004
    assert over_the_net == alone(found, rpc_engine, smollm2)


def alone(found: Sharing, rpc_engine: RpcEngine, smollm2: str) -> str:
    """Return what the same engine says that holds the whole model."""
    node = Daemon(
        found.home / "alone",
        ("--model", "smollm2", "--threads", "1", "--ctx-size", "4096", "--parallel", "1", "--no-mdns", "--engine",
         rpc_engine.build.server),
    )  # fmt: skip
    node.models.mkdir(parents=True)
    (node.models / "smollm2.gguf").symlink_to(smollm2)
    with node:
        until(lambda: node.get("/v1/models")["data"], "the model", RUNS_S)
        reply = node.request("POST", "/v1/chat/completions", {"model": "smollm2", **QUESTION}, timeout_s=RUNS_S)
        text: str = reply.json["choices"][0]["message"]["content"]
        return text


def test_a_worker_that_is_cut_off_is_replaced_and_no_stream_ends_in_silence(lab: Callable[..., Sharing]) -> None:
    """Another node lends; the one that was cut off takes its loan back, and comes back without disturbing anybody."""
    found = lab("a", "b", "c")
    for name in "abc":
        found.add(name, *LIMIT, "--engine", FAKE)
    first = until(found.shared, "a split that runs", RUNS_S)
    worker = first["shares"][0]["node"]
    rest = [name for name in "abc" if name != worker]

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(stream, found, "a")
        until(lambda: found.ask("a", "GET", "/api/status")[1]["models"][0]["in_flight"], "a stream", RUNS_S)
        found.lab.cut([worker], rest)
        said = answer.result(timeout=RUNS_S)
    second = until(lambda: found.shared(first["epoch"] + 1), "the next split", RUNS_S)
    found.lab.heal()
    until(lambda: found.chat(worker, "wide") == 200, "an answer at the node that was cut off", RUNS_S)

    assert "data: [DONE]" in said or '"error"' in said
    assert {share["node"] for share in second["shares"]} == set(rest)
    assert found.shared(second["epoch"]) is not None


def stream(found: Sharing, name: str) -> str:
    """Return all that a streamed chat says at a node, to its end."""
    body = {"model": "wide", "stream": True, "max_tokens": 60, "messages": [{"role": "user", "content": "hello"}]}
    url = "http://127.0.0.1:9337/v1/chat/completions"
    asking = [
        "curl",
        "-sN",
        "-m",
        str(int(RUNS_S)),
        url,
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps(body),
    ]
    done = subprocess.run(found.lab.inside(name, asking), capture_output=True, text=True, timeout=RUNS_S, check=False)
    return done.stdout
