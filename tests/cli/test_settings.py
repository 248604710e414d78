"""From two places of a command line to one configuration."""

import pytest

from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.settings import configured, given, has_port


def test_flag_that_says_nothing_is_left_out() -> None:
    """An absent flag must not hide the configuration file's."""
    assert given({"a": None, "b": False, "c": [], "d": 0, "e": ""}) == {"d": 0, "e": ""}


def test_contradiction_is_a_usage_error() -> None:
    """Nobody can be loud and quiet."""
    with pytest.raises(CommandError) as caught:
        configured({"verbose": True, "quiet": True})

    assert caught.value.exit_code == ExitCode.USAGE


def test_chosen_level_is_stronger_than_v_and_q() -> None:
    """It is the more exact word."""
    assert configured({"verbose": True, "log_level": "error"}).log_level == "error"


def test_port_can_be_named_in_two_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either means a node in particular."""
    assert not has_port({})
    assert has_port({"port": 1})
    monkeypatch.setenv("MESH_LLM_PORT", "1")
    assert has_port({})


def test_conflict_with_the_environment_is_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flag wins, and that is printed."""
    monkeypatch.setenv("MESH_LLM_PORT", "1")
    configured({"port": 2})

    assert capsys.readouterr().err == "note: --port on the command line wins over MESH_LLM_PORT=1\n"
