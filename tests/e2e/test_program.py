"""A node within a program as a member of a mesh whose other nodes are daemons."""

import asyncio
import http.client
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from meshllm import MeshNode
from tests.e2e.daemons import WAIT_S, Daemon, until
from tests.e2e.test_mesh import token_of

pytestmark = pytest.mark.e2e


def listed(node: MeshNode) -> list[str]:
    """Return the models that a program's node lists, asked as another client of the program would."""
    host, _, port = node.address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
    connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {node.api_key}"})
    document = json.loads(connection.getresponse().read())
    connection.close()
    return [entry["id"] for entry in document["data"]]


async def test_a_program_asks_models_of_the_mesh_and_lends_its_own(
    daemon: Callable[..., Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It joins by a token, is a member like any other, and says goodbye when it is closed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with daemon("--model", "tiny", "--no-mdns", "--bind-ip", "127.0.0.1", models=("tiny",)) as host:
        host.until_model("tiny", phase="ready")
        files = daemon(models=("mine",)).models
        settings = {
            "join": [token_of(host)], "no_mdns": True, "bind_ip": "127.0.0.1", "engine": "fake", "threads": 1,
            "offline": True, "models_dirs": [str(files)], "drain_s": 1.0,
        }  # fmt: skip

        async with await MeshNode.single("mine", **settings) as node:
            await asyncio.to_thread(until, lambda: "tiny" in listed(node), "the host's model to be listed")
            answer = await node.chat("hello", "tiny", max_tokens=2)
            await asyncio.to_thread(until, lambda: "mine" in model_ids(host), "the program's model to be listed")
            other_way = await asyncio.to_thread(host.chat, "hello", model="mine", max_tokens=2)
        await asyncio.to_thread(until, lambda: "mine" not in model_ids(host), "the program's model to be gone")

    assert (answer.model, answer.text) == ("tiny", "0 1 ")
    assert other_way.json["model"] == "mine"


def model_ids(node: Daemon) -> list[str]:
    """Return the models that a daemon lists."""
    return [entry["id"] for entry in node.get("/v1/models")["data"]]
