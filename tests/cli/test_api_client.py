"""Finding the local node, and its errors as sentences."""

import json
import os
from pathlib import Path

import pytest

from meshllm.cli.api_client import ApiClient, NoNodeError, connect
from meshllm.cli.failures import CommandError
from meshllm.config import Config
from tests.cli.scripted import ScriptedNode, a_scripted_node

GONE_PID = 2**22 + 1
"""More than the kernel's largest process id."""


def note(folder: Path, content: object) -> Config:
    """Leave a note in a state folder, as a daemon does."""
    (folder / "api.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return Config(state_dir=folder, port=1234)


def test_note_of_the_running_node_is_followed(tmp_path: Path) -> None:
    """Commands need no port for a node on another one."""
    config = note(tmp_path, {"address": "127.0.0.1:9999", "pid": os.getpid()})

    client = connect(config, is_port_given=False)
    assert (client.host, client.port) == ("127.0.0.1", 9999)


def test_port_that_was_named_wins(tmp_path: Path) -> None:
    """Somebody meant another node."""
    config = note(tmp_path, {"address": "127.0.0.1:9999", "pid": os.getpid()})

    assert connect(config, is_port_given=True).port == 1234


@pytest.mark.parametrize(
    "content",
    [
        {"address": "127.0.0.1:9999", "pid": GONE_PID}, {"address": 1}, {"address": "x"}, {"address": ":"},
        {"address": "127.0.0.1:http"}, [], "not json",
    ],
)  # fmt: skip
def test_stale_or_damaged_note_is_not_followed(tmp_path: Path, content: object) -> None:
    """A killed daemon leaves its note behind."""
    assert connect(note(tmp_path, content), is_port_given=False).port == 1234


@pytest.mark.parametrize(("address", "host"), [("0.0.0.0:1", "127.0.0.1"), ("[::]:1", "::1"), ("[::1]:1", "::1")])
def test_address_to_listen_on_becomes_one_to_talk_to(tmp_path: Path, address: str, host: str) -> None:
    """Nobody can talk to 0.0.0.0 everywhere."""
    config = note(tmp_path, {"address": address, "pid": os.getpid()})

    assert connect(config, is_port_given=False).host == host


def test_key_is_shown_to_the_node(node: ScriptedNode) -> None:
    """As a bearer token."""
    ApiClient("127.0.0.1", node.port, "secret").get("/healthz")

    assert node.keys == ["Bearer secret"]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, {"error": {"message": "no such model"}}, "no such model"),
        (500, {"model_id": "m", "status": "internal_error", "error": "it is broken"}, "it is broken"),
        (401, {"error": {"message": "x"}}, "the node wants an API key: set MESH_LLM_API_KEY"),
        (401, {"error": {"message": "takes its admin key", "code": "missing_admin_key"}}, "takes its admin key"),
        (502, "<html>", "the node answered with status 502"),
    ],
)
def test_error_becomes_its_sentence(node: ScriptedNode, status: int, body: object, message: str) -> None:
    """Whatever shape it comes in."""
    node.answers["GET /x"] = (status, body)

    with pytest.raises(CommandError, match=message):
        ApiClient("127.0.0.1", node.port).get("/x")


def test_something_else_on_the_port_is_noticed(node: ScriptedNode) -> None:
    """A web server's page is no status."""
    node.answers["GET /x"] = (200, "<html>hello</html>")

    with pytest.raises(CommandError, match="does not answer like a mesh-llm node"):
        ApiClient("127.0.0.1", node.port).get("/x")


def test_nobody_there_is_its_own_error() -> None:
    """Some commands can do without a node."""
    with a_scripted_node() as gone:
        client = ApiClient("127.0.0.1", gone.port)

    with pytest.raises(NoNodeError):
        client.get("/healthz")


def test_the_admin_key_is_shown_where_there_is_one(node: ScriptedNode) -> None:
    """It opens what the other one does, too."""
    config = Config(port=node.port, api_key="of-all", admin_key="of-admins")

    connect(config, is_port_given=True).get("/healthz")

    assert node.keys == ["Bearer of-admins"]
