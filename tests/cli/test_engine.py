"""`engine show`: the self-test in words."""

import json

import pytest

from meshllm.cli import standalone
from meshllm.core.engines import EngineBuild, EngineFault
from tests.cli.conftest import Shell
from tests.core.builders import a_failure


def test_engine_show_tells_the_build_or_why_there_is_none(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the self-test."""
    monkeypatch.setattr(standalone, "engine", lambda _: EngineBuild(kind="fake", version="1", uses_gpu=False))
    good = shell("engine", "show")
    shown = shell.out
    monkeypatch.setattr(standalone, "engine", lambda _: a_failure(EngineFault.CANNOT_START, "it is gone"))
    bad = shell("engine", "show", "--json")

    assert (good, bad) == (0, 1)
    assert shown.split() == ["engine", "fake", "version", "1", "GPU", "no"]
    assert json.loads(shell.out)["fault"] == "cannot_start"
    assert "it is gone" in shell.err
