"""Real daemons share SmolLM2, which none of them may hold alone: the same words as from one that holds all of it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemons import Daemon, until
from tests.e2e.test_mesh import token_of
from tests.rpc_engine import RpcEngine

pytestmark = [pytest.mark.engine, pytest.mark.rpc, pytest.mark.timeout(600)]

MODEL = "smollm2"
RUNS_S = 240.0
ASKED = ("What is the capital of France?", "Count from one to ten.", "Write one sentence about the sea.")


def said(node: Daemon) -> list[str]:
    """Return what a node answers to each question at temperature 0."""
    texts = []
    for question in ASKED:
        body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 32}
        reply = node.request("POST", "/v1/chat/completions", body, timeout_s=RUNS_S)
        assert reply.status == 200, reply.body
        texts.append(reply.json["choices"][0]["message"]["content"])
    return texts


@contextmanager
def nodes(
    folder: Path, rpc_engine: RpcEngine, smollm2: str, *limits: tuple[str, ...], **environment: str
) -> Iterator[list[Daemon]]:  # fmt: skip
    """Start as many nodes as there are limits; the first has the file."""
    started: list[Daemon] = []
    with ExitStack() as running:
        for number, limit in enumerate(limits):
            join = ("--join", token_of(started[0])) if started else ("--model", MODEL)
            name = f"n{number}"
            own = ("--threads", "1", "--ctx-size", "4096", "--parallel", "1", "--no-mdns", "--name", name)
            cache = folder / name / "cache"
            node = Daemon(
                folder / name, (*join, *own, *limit), environment={"MESH_LLM_CACHE_DIR": str(cache), **environment}
            )
            rpc_engine.lend(cache)
            if not started:
                node.models.mkdir(parents=True)
                (node.models / f"{MODEL}.gguf").symlink_to(smollm2)
            started.append(running.enter_context(node))
        yield started


def shared(node: Daemon) -> dict[str, Any] | None:
    """Return the split that runs, as a node sees it; None while there is none."""
    split = node.get(f"/api/explain?model={MODEL}")["split"]
    return split if split and split["runs"] else None


@pytest.mark.parametrize("count", [2, 3])
def test_what_is_shared_says_the_same(tmp_path: Path, rpc_engine: RpcEngine, smollm2: str, count: int) -> None:
    """Over as many nodes as their memory calls for, asked at one that holds a part; through the encrypted plane."""
    alone = ("--engine", rpc_engine.build.server)
    with nodes(tmp_path / "alone", rpc_engine, smollm2, alone) as (whole,):
        until(lambda: whole.get("/v1/models")["data"], "the model", RUNS_S)
        expected = said(whole)

    limit = ("--max-vram", "255MiB" if count == 2 else "240MiB")
    with nodes(tmp_path / "shared", rpc_engine, smollm2, *[limit] * count) as members:
        split = until(lambda: shared(members[0]), "a split that runs", RUNS_S)

        assert len(split["shares"]) == count
        assert sum(share["layers"] for share in split["shares"]) == 30
        until(lambda: shared(members[-1]), "the worker to know of it", RUNS_S)
        assert said(members[-1]) == expected
