"""A node within a program as a member of a mesh whose other nodes are daemons."""

import asyncio
import http.client
import json
import subprocess
import sys
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


FORGETFUL = """
import asyncio, json, sys, threading
from meshllm import MeshNode

how, settings = sys.argv[1], json.loads(sys.argv[2])

async def begin():
    node = await MeshNode.single("mine", **settings)
    print("up", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    return node

async def fail():
    node = await begin()
    raise SystemExit(3)

async def go_on(begun):
    node = await begin()
    begun.set()
    await asyncio.Event().wait()

if how == "returns":
    asyncio.run(begin())
elif how == "fails":
    asyncio.run(fail())
elif how == "keeps its loop":
    loop = asyncio.new_event_loop()
    node = loop.run_until_complete(begin())
else:
    begun = threading.Event()
    threading.Thread(target=asyncio.run, args=[go_on(begun)], daemon=True).start()
    begun.wait()
"""


@pytest.mark.parametrize("how", ["returns", "fails", "keeps its loop", "has its loop in a thread"])
def test_a_program_that_ends_without_closing_its_node_says_farewell(
    daemon: Callable[..., Daemon], tmp_path: Path, how: str
) -> None:
    """Wherever its loop runs, or no longer does: other members know at once, and need not find out by asking."""
    with daemon("--model", "tiny", "--no-mdns", "--bind-ip", "127.0.0.1", models=("tiny",)) as host:
        settings = {
            "join": [token_of(host)], "no_mdns": True, "bind_ip": "127.0.0.1", "engine": "fake", "threads": 1,
            "offline": True, "models_dirs": [str(daemon(models=("mine",)).models)], "name": "program",
            "state_dir": str(tmp_path / "of-the-program"),
        }  # fmt: skip
        command = [sys.executable, "-c", FORGETFUL, how, json.dumps(settings)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**host.environ, "HOME": str(tmp_path)},
        ) as program:  # fmt: skip
            try:
                assert program.stdout is not None
                assert program.stdout.readline() == "up\n"
                until(lambda: "mine" in model_ids(host), "the program's model being listed")
                # Over a line, that is, with a thread of the program's that waits for more.
                answer = host.chat("hello", model="mine", max_tokens=2)
                _, said = program.communicate("end\n", timeout=WAIT_S)
            finally:
                program.kill()
        until(lambda: state_of(host, "program") != "alive", "the program's node being gone")

        assert (answer.status, state_of(host, "program")) == (200, "left")
        assert program.returncode == (3 if how == "fails" else 0)
        assert [word for word in ("Traceback", "never awaited", "its node has") if word in said] == [], said


def state_of(node: Daemon, name: str) -> str | None:
    """Return how a daemon sees a member by that name."""
    return next((entry["state"] for entry in node.get("/api/status")["members"] if entry["name"] == name), None)
