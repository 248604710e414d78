"""A home folder of the test's own, so that no command sees this machine's configuration or node."""

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import typer

from meshllm.cli import node_process, standalone
from meshllm.cli.main import run
from meshllm.config import Config
from meshllm.core.catalog import ModelProblem
from tests.cli.scripted import ScriptedNode, a_scripted_node
from tests.core.builders import a_machine, a_spec


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move into an empty home."""
    for name in list(os.environ):
        if name.startswith(("MESH_LLM_", "XDG_", "NOPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return tmp_path


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `serve` go on in this process: another program would not be the tests any more."""

    def go_on(config: Config) -> NoReturn:
        raise typer.Exit(node_process.run_node(config))

    monkeypatch.setattr("meshllm.cli.serve.become_node", go_on)


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    """Return a scripted node that serves `tiny`."""
    with a_scripted_node() as scripted:
        yield scripted


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put two models and one broken file on the disk of a machine with 16 GiB."""
    problem = ModelProblem(path="/models/bad.gguf", code="truncated", message="ends too early")
    monkeypatch.setattr(
        "meshllm.daemon.standalone.models", lambda _: ((a_spec("alone-Q4"), a_spec("tiny")), (problem,))
    )
    monkeypatch.setattr(standalone, "resources", lambda _: a_machine())


class Shell:
    """Runs commands and keeps what they printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Read what is printed from pytest."""
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        """Return a command line's exit code."""
        self._capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return something to run commands with."""
    return Shell(capsys)
