"""`from-config`: the words of another program start a node."""

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.cli.test_serve import FakeDaemon


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    """Return a stand-in for the daemon."""
    fake = FakeDaemon()
    monkeypatch.setitem(sys.modules, "meshllm.daemon.node", fake)
    return fake


@pytest.mark.rows("CLI-7", "CFG-9", "CFG-15")
def test_models_of_the_file_are_served(shell: Shell, daemon: FakeDaemon, home: Path) -> None:
    """At the file's address; a flag wins over it."""
    file = home / "models.toml"
    file.write_text(
        'command = "serve"\ndefault_model_id = "a"\n[server]\nhost = "127.0.0.2"\nport = 1234\n'
        '[[models]]\nmodel_id = "a"\n[[models]]\nmodel_id = "b"\n'
    )

    assert shell("from-config", "-f", file) == 0
    assert shell("from-config", "--file", file, "--port", "99") == 0
    assert [(config.models, config.host, config.port) for config in daemon.configs] == [
        (("a", "b"), "127.0.0.2", 1234), (("a", "b"), "127.0.0.2", 99),
    ]  # fmt: skip


@pytest.mark.rows("CLI-7")
def test_mistake_in_the_file_is_said_with_its_place(shell: Shell, daemon: FakeDaemon, home: Path) -> None:
    """File, line, key; exit 2."""
    file = home / "models.toml"
    file.write_text('[[models]]\nmodel_id = "a"\n[models.quantization]\nqant = "4"\n')

    assert shell("from-config", "-f", file) == 2
    assert shell.err == (f"mesh-llm: {file}:4: models[0].quantization.qant: unknown key; did you mean quant?\n")
    assert shell("from-config") == 2
    assert not daemon.configs
