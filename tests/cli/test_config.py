"""`config`: a file is checked, settings are shown, no secret is."""

import json
from pathlib import Path

import pytest

from meshllm.config_schema import json_schema
from tests.cli.conftest import Shell

FILE = """
api_key = "very-secret"
join = ["meshllm1-very-secret"]
[[models]]
name = "a"
slots = 2
[[remotes]]
base_url = "http://x:1"
api_key_env = "X_KEY"
"""


@pytest.fixture
def file(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file with secrets."""
    monkeypatch.setenv("X_KEY", "very-secret")
    (home / "c.toml").write_text(FILE)
    return home / "c.toml"


@pytest.mark.rows("CFG-23")
def test_good_file_is_told_from_a_bad_one(shell: Shell, file: Path) -> None:
    """By exit code; the place of the mistake on standard error."""
    assert shell("config", "check", file) == 0
    assert "1 model, 1 server elsewhere" in shell.out

    file.write_text("prot = 1")
    assert shell("config", "check", file) == 2
    assert shell.out == ""
    assert "c.toml:1: prot: unknown setting; did you mean port?" in shell.err


@pytest.mark.parametrize("command", [["check", "?"], ["check", "?", "--json"], ["show", "--config", "?"],
                                     ["show", "--config", "?", "--json"]])  # fmt: skip
def test_no_secret_is_shown(shell: Shell, file: Path, command: list[str]) -> None:
    """Output of commands is pasted into issues."""
    assert shell("config", *[file if word == "?" else word for word in command]) == 0
    assert shell.out
    assert "very-secret" not in shell.out + shell.err


def test_settings_are_shown_as_they_are_in_force(shell: Shell, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From all sources together."""
    monkeypatch.setenv("MESH_LLM_PARALLEL", "3")

    assert shell("--port", "99", "config", "show", "--config", file, "--json") == 0
    found = json.loads(shell.out)

    assert (found["port"], found["parallel"], found["max_vram"]) == (99, 3, "90%")
    assert found["policies"][0]["slots"] == 2
    assert found["remotes"] == [{"name": "x:1", "base_url": "http://x:1", "models": [], "has_key": True}]
    assert found["api_key"] == "(set)"


def test_schema_is_printed_for_editors(shell: Shell) -> None:
    """The one that is published."""
    assert shell("config", "schema") == 0
    assert json.loads(shell.out) == json.loads(json.dumps(json_schema()))
