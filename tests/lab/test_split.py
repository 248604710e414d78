"""Real daemons share a model over networks that are slow, and that break."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.daemons import Daemon, until
from tests.e2e.test_split import LIMIT, WIDE, servers
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

    def add(
        self, name: str, *arguments: str, file: Path | None = None, has_file: bool = False, **environment: str
    ) -> Daemon:  # fmt: skip
        """Start a node; the first one has the model, as a file or as a link to one, and others that are to have it."""
        prefix = tuple(self.lab.inside(name, []))
        join = ("--join", self.run("a", "token").strip()) if self.nodes else ("--model", self.model)
        own = ("--no-mdns", "--threads", "1", "--name", name)
        node = Daemon(self.home / name, (*join, *own, *arguments), port=9337, prefix=prefix, environment=environment)
        if file is None and (has_file or not self.nodes):
            gguf_builder.write(node.models / f"{self.model}.gguf", gguf_builder.llama(**WIDE))
        elif file is not None:
            node.models.mkdir(parents=True)
            (node.models / f"{self.model}.gguf").symlink_to(file)
        self.nodes[name] = self.stack.enter_context(node)
        return node

    def shared(self, epoch: int = 1, name: str = "a") -> dict[str, Any] | None:
        """Return the split that runs in this epoch or a later one, as its host `a` sees it, or another node."""
        split = self.split(name)
        return split if split and split["runs"] and split["epoch"] >= epoch else None

    def split(self, name: str = "a") -> dict[str, Any] | None:
        """Return the split that there is or would be, as a node sees it."""
        status, found = self.ask(name, "GET", f"/api/explain?model={self.model}")
        return found.get("split") if status == 200 else None

    def hosts(self, name: str) -> dict[str, int]:
        """Return the hosts of the model that a node knows of, and their epochs."""
        _, found = self.ask(name, "GET", "/api/nodes")
        return {
            node["name"]: model["split"]["epoch"]
            for node in found["nodes"] if node["state"] in ("alive", "suspect")
            for model in node["models"] if model["id"] == self.model and model["split"]
        }  # fmt: skip

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
@pytest.mark.parametrize(("names", "memory"), [("ab", "255MiB"), ("abc", "240MiB")])
def test_over_five_milliseconds_it_says_what_one_machine_says(
    lab: Callable[..., Sharing], rpc_engine: RpcEngine, smollm2: str, names: str, memory: str
) -> None:
    """The real model, through the encrypted plane, between machines with a round trip of five milliseconds."""
    found = lab(*names, model="smollm2")
    caches = {name: found.home / name / "cache" for name in names}
    for cache in caches.values():
        rpc_engine.lend(cache)
    found.lab.impair("*", "*", delay=2.5)
    limit = ("--max-vram", memory, "--ctx-size", "4096")
    found.add("a", *limit, file=Path(smollm2), MESH_LLM_CACHE_DIR=str(caches["a"]))
    for name in names[1:]:
        found.add(name, *limit, MESH_LLM_CACHE_DIR=str(caches[name]))
    split = until(found.shared, "a split that runs", RUNS_S)
    over_the_net = found.said("b")

    assert {share["node"] for share in split["shares"]} == set(names)
    assert split["shares"][-1]["node"] == "a"
    assert all(share["rtt_s"] > 0.004 for share in split["shares"][:-1])
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
        until(lambda: any(in_flight(found, name) for name in found.nodes), "a stream", RUNS_S)  # whoever hosts it
        found.lab.cut([worker], rest)
        said = answer.result(timeout=RUNS_S)
    second = until(lambda: found.shared(first["epoch"] + 1), "the next split", RUNS_S)
    found.lab.heal()
    until(lambda: found.chat(worker, "wide") == 200, "an answer at the node that was cut off", RUNS_S)

    assert "data: [DONE]" in said or '"error"' in said
    assert {share["node"] for share in second["shares"]} == set(rest)
    assert found.shared(second["epoch"]) is not None


def test_a_worker_that_is_cut_off_in_the_middle_of_a_load_is_replaced(lab: Callable[..., Sharing]) -> None:
    """Who waits has the answer of the next epoch; the one that was cut off has its memory back."""
    found = lab("a", "b", "c")
    gate = found.home / "gate"
    engine = "fake:" + json.dumps({"rpc": "fake 1", "share_gate": str(gate)})
    for name in "abc":
        found.add(name, *LIMIT, "--engine", engine)
    first = until(lambda: loading(found), "a load", RUNS_S)
    worker = first["shares"][0]["node"]
    other = next(name for name in "bc" if name != worker)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(stream, found, other)
        found.lab.cut([worker], ["a", other])
        try:
            second = until(lambda: loading(found, first["epoch"] + 1), "the next load", RUNS_S)
        finally:
            gate.touch()
        said = answer.result(timeout=RUNS_S)
    until(lambda: not servers(found.nodes[worker]), "the end of the server that was cut off", RUNS_S)
    found.lab.heal()
    until(lambda: found.chat(worker, "wide") == 200, "an answer at the node that was cut off", RUNS_S)

    assert "data: [DONE]" in said
    assert {share["node"] for share in second["shares"]} == {"a", other}
    assert len([server for node in found.nodes.values() for server in servers(node)]) == 1


def loading(found: Sharing, epoch: int = 1) -> dict[str, Any] | None:
    """Return the split that loads in this epoch or a later one."""
    split = found.split()
    return split if split and split["state"] == "loading" and split["epoch"] >= epoch else None


def test_both_halves_of_a_mesh_share_it_and_one_goes_on_when_it_heals(lab: Callable[..., Sharing]) -> None:
    """F11: no worker serves two epochs, the other half's are free again, and no stream ends in silence."""
    found = lab("a", "b", "c", "d")
    for name in "abcd":
        found.add(name, *LIMIT, "--engine", FAKE, has_file=name == "c")
    until(found.shared, "a split that runs", RUNS_S)

    with ThreadPoolExecutor(4) as pool:
        said = [pool.submit(stream, found, "b")]
        until(lambda: any(in_flight(found, name) for name in found.nodes), "a stream", RUNS_S)  # whoever hosts it
        found.lab.cut(["a", "b"], ["c", "d"])
        halves = {
            host: until(partial(is_split_of, found, host, both), f"a split of {both}", RUNS_S)
            for host, both in (("a", {"a", "b"}), ("c", {"c", "d"}))
        }
        said += [pool.submit(stream, found, name) for name in ("a", "b", "d")]
        until(lambda: len(all_servers(found)) == 2, "a server in each half", RUNS_S)
        found.lab.heal()
        until(lambda: len(all_servers(found)) == 1 and is_one_view(found), "one split", RUNS_S)
        ends = [one.result(timeout=RUNS_S) for one in said]

    assert halves == {"a": True, "c": True}
    assert all("data: [DONE]" in end or '"error"' in end for end in ends), [end[-200:] for end in ends]
    assert [found.chat(name, "wide") for name in "abcd"] == [200] * 4
    assert len(all_servers(found)) == 1


def in_flight(found: Sharing, name: str) -> int:
    """Return how many requests a node's engines answer."""
    return sum(model["in_flight"] for model in found.ask(name, "GET", "/api/status")[1]["models"])


def is_split_of(found: Sharing, host: str, both: set[str]) -> bool:
    """Tell whether a node hosts the model and answers for just these."""
    split = found.shared(name=host)
    is_host = split is not None and split["shares"][-1]["node"] == host
    return split is not None and is_host and {share["node"] for share in split["shares"]} == both


def all_servers(found: Sharing) -> list[psutil.Process]:
    """Return all that is lent; no node may run two servers for one model."""
    lent = {name: servers(node) for name, node in found.nodes.items()}
    assert all(len(running) <= 1 for running in lent.values()), lent
    return [server for running in lent.values() for server in running]


def is_one_view(found: Sharing) -> bool:
    """Tell whether all nodes know of the same host, and of no other."""
    known = [found.hosts(name) for name in found.nodes]
    return len(known[0]) == 1 and all(one == known[0] for one in known)


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
