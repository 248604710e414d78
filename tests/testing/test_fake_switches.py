"""How the engine double is told to behave."""

import json
from pathlib import Path

import pytest

from meshllm.testing.fake_switches import ENVIRONMENT, Switches, load_trouble, read_switches


def test_what_the_process_is_told_overrules_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch by switch."""
    monkeypatch.setenv(ENVIRONMENT, json.dumps({"token_s": 1.0, "model": "other"}))

    switches = read_switches({"token_s": 2.0, "rpc": "fake 1"})

    assert switches == Switches(token_s=2.0, model="other", rpc="fake 1")


def test_so_many_loads_have_the_trouble(tmp_path: Path) -> None:
    """Counted across processes, in a file."""
    switches = Switches(load="exit", load_troubles=2, counter=str(tmp_path / "count"))

    assert [load_trouble(switches) for _ in range(4)] == ["exit", "exit", "", ""]
