"""`rm`, with a node and without one."""

from pathlib import Path

import pytest

from meshllm.cli import standalone
from meshllm.cli.failures import CommandError
from meshllm.config import Config
from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode


def test_rm_lets_the_node_unload_first(shell: Shell, node: ScriptedNode) -> None:
    """It has the file open."""
    node.answers["DELETE /api/models/a%2Fb"] = (200, {"removed": "b", "files": ["/models/b.gguf"]})

    assert shell("rm", "a/b", "--port", node.port) == 0
    assert shell.err == "deleted /models/b.gguf\n"


def test_rm_works_without_a_node(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """And fails as clearly."""

    def remove(_: Config, name: str) -> tuple[Path, ...]:
        if name != "tiny":
            raise CommandError(f"no model {name!r} is on this disk")
        return (Path("/models/tiny.gguf"),)

    monkeypatch.setattr(standalone, "remove", remove)

    assert shell("rm", "tiny") == 0
    assert shell("rm", "nope") == 1
    assert "no model 'nope'" in shell.err
