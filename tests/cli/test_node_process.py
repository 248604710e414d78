"""What `serve` becomes: another program of the same process, which is told everything in a file without a name."""

import os
import pickle
import sys
import tempfile
from pathlib import Path

import pytest

from meshllm.cli import node_process
from meshllm.cli.failures import CommandError
from meshllm.config import Config
from tests.config_builders import configured


class ReplacedError(Exception):
    """The process is another program now."""


def test_the_configuration_goes_along_and_typer_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are in no argument and in no file with a name."""
    config = Config(port=19999, api_key="secret-of-the-node")
    seen: list[str] = []
    told: list[Config] = []

    def execv(program: str, arguments: list[str]) -> None:
        seen.extend((program, *arguments))
        descriptor = int(arguments[arguments.index("meshllm.cli.node_process") + 1])
        assert os.get_inheritable(descriptor)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            told.append(pickle.load(file))
        raise ReplacedError

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(sys, "argv", ["mesh-llm", "--port", "19999"])

    with pytest.raises(ReplacedError):
        node_process.become_node(config)

    assert told == [config]
    assert seen[-2:] == ["--port", "19999"]
    assert not any("secret" in word for word in seen)


EVERYTHING = """
[server]
api_key = "secret-1"
[mesh]
no_rpc = true
[routing]
strategy = "least_loaded"
[quotas]
timezone = "Europe/Berlin"
[quotas.default]
hourly_token_limit = 5
[keys.ann]
key = "secret-2"
requests_per_minute = 60
[cache]
min_ram_mb = 512
[[models]]
id = "org/name"
min_replicas = 2
[[remotes]]
name = "ollama"
base_url = "http://127.0.0.1:11434/"
models = ["llama3:8b"]
aliases = {"llama3:8b" = "llama3"}
"""


def test_everything_that_a_file_can_say_goes_along(tmp_path: Path) -> None:
    """Tables, mappings that nobody changes, keys."""
    config = configured(tmp_path, EVERYTHING)

    assert pickle.loads(pickle.dumps(config)) == config
    assert dict(config.remotes[0].aliases) == {"llama3:8b": "llama3"}


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing starts without what it was told."""

    def no_room() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_room)

    with pytest.raises(CommandError) as refused:
        node_process.become_node(Config())

    assert "No space left" in refused.value.message
