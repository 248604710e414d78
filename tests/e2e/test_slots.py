"""Conversations on the disk with real daemons: read back after an unload or a restart, and gone where not wanted."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemons import Daemon, until

pytestmark = pytest.mark.e2e
Make = Callable[..., Daemon]
LONG = " ".join(f"word{number}" for number in range(200))


def a_config(tmp_path: Path) -> str:
    """Return a configuration that saves conversations."""
    config = tmp_path / "slots.toml"
    config.write_text("[cache]\ndisk_cache_size_gb = 1\n", encoding="utf-8")
    return str(config)


def knowing(node: Daemon) -> Daemon:
    """Return a node whose engine double remembers prompts."""
    node.environment = {**node.environment, "MESH_FAKE_ENGINE": json.dumps({"cached_tokens": -1})}
    return node


def ask(node: Daemon) -> int:
    """Send the same long prompt; return how many of its tokens were cached."""
    reply = node.chat(LONG)
    assert reply.status == 200, reply.body
    cached: int = reply.json["usage"]["prompt_tokens_details"]["cached_tokens"]
    return cached


def again(node: Daemon) -> None:
    """Unload the model and load it again."""
    assert node.run("unload", "tiny").returncode == 0
    assert node.run("load", "tiny").returncode == 0
    node.until_model("tiny", phase="ready")


@pytest.mark.rows("CAC-1")
def test_a_conversation_outlives_its_engine_and_its_daemon(daemon: Make, tmp_path: Path) -> None:
    """Each file is read once, and written again when the engine ends, also where nobody used it meanwhile."""
    node = knowing(daemon("--model", "tiny", "--config", a_config(tmp_path)))
    files = node.state / "slots"
    with node:
        node.until_model("tiny", phase="ready")
        first = ask(node)
        again(node)
        read = list(files.iterdir())
        again(node)
        second = ask(node)
        node.signal(signal.SIGTERM)
        assert node.ended() == 0
    saved = [file.name for file in files.iterdir()]
    with node:
        node.until_model("tiny", phase="ready")
        third = ask(node)

    assert (first, read, len(saved)) == (0, [], 1)
    assert min(second, third) > 150


def test_nothing_is_saved_unless_somebody_asks_for_it(daemon: Make, tmp_path: Path) -> None:
    """And what was saved goes as soon as nobody does; a file that is no slot hinders nothing."""
    with knowing(daemon("--model", "tiny")) as node:
        node.until_model("tiny", phase="ready")
        files = node.state / "slots"
        ask(node)
        again(node)
        unsaved, has_folder = ask(node), files.exists()

        assert node.request("POST", "/cache/allocation", {"disk_cache_size_gb": 1}).status == 200
        again(node)  # the engine that ran was not told where to save
        ask(node)
        assert node.run("unload", "tiny").returncode == 0
        until(lambda: list(files.iterdir()), "the conversation to be saved")
        (saved,) = files.iterdir()
        saved.write_bytes(b"rubbish")
        assert node.run("load", "tiny").returncode == 0
        broken = ask(node)
        assert node.run("unload", "tiny").returncode == 0
        until(lambda: list(files.iterdir()), "the conversation to be saved again")
        assert node.request("POST", "/cache/allocation", {"disk_cache_size_gb": 0}).status == 200
        until(lambda: not list(files.iterdir()), "what was saved to be gone")

    assert (unsaved, has_folder, broken) == (0, False, 0)
