"""`multi-model`: the words of another program start a node."""

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.cli.test_serve import FakeDaemon

MODELS = '{"a-label": {"Plain": {"model_id": "team/a"}}, "b": {"Plain": {"model_id": "b"}, "in_situ_quant": "Q4K"}}'


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    """Return a stand-in for the daemon."""
    fake = FakeDaemon()
    monkeypatch.setitem(sys.modules, "meshllm.daemon.node", fake)
    return fake


@pytest.mark.rows("CLI-2", "CLI-4")
@pytest.mark.parametrize(
    "line",
    [
        "--port 1234 multi-model --config c.json --default-model-id team/a",
        "multi-model --config c.json --port 1234 --default-model-id team/a",
        "--config c.json --default-model-id team/a multi-model --port 1234",
    ],
)
def test_models_of_the_file_are_served(
    shell: Shell, daemon: FakeDaemon, home: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """Wherever the options stand."""
    monkeypatch.chdir(home)
    (home / "c.json").write_text(MODELS)

    assert shell(*line.split()) == 0
    config = daemon.configs[0]
    assert config.models == ("team/a", "b:Q4_K_M")
    assert (config.port, config.default_model) == (1234, "team/a")


@pytest.mark.rows("CLI-2")
def test_file_has_to_be_named(shell: Shell, daemon: FakeDaemon) -> None:
    """Exit 2."""
    assert shell("multi-model") == 2
    assert "--config FILE" in shell.err
    assert not daemon.configs


@pytest.mark.rows("CLI-3")
def test_older_spelling_works_and_says_so(shell: Shell, daemon: FakeDaemon, home: Path) -> None:
    """In one line, on standard error; it is not in the help."""
    (home / "c.json").write_text(MODELS)

    assert shell("--multi-model", "--multi-model-config", home / "c.json", "--default-model-id", "b") == 0
    assert daemon.configs[0].models == ("team/a", "b:Q4_K_M")
    assert shell.err.count("deprecated") == 1
    assert shell("--multi-model") == 2
    assert shell("--help") == 0
    assert "--multi-model" not in shell.out


@pytest.mark.rows("CFG-14")
def test_default_that_is_no_model_of_the_file_is_refused(shell: Shell, daemon: FakeDaemon, home: Path) -> None:
    """Naming both."""
    (home / "c.json").write_text(MODELS)

    assert shell("multi-model", "--config", home / "c.json", "--default-model-id", "nope") == 2
    assert "'nope' is none of the models" in shell.err
    assert "team/a" in shell.err
