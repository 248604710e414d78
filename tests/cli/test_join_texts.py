"""Tokens come from wherever somebody put them, and never have to be seen in `ps`."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.join_texts import ask_for_token, join_texts, show_meshes
from meshllm.config import Config
from meshllm.core.limits import JOIN_FILE_BYTES


def texts(config: Config, typed: str = "", *, is_member: bool = False) -> tuple[str, ...]:
    """Return the tokens of a configuration when somebody types this."""
    return join_texts(config, is_member=is_member, show_lan=lambda: None, ask=lambda: typed)


def complaint(config: Config) -> CommandError:
    """Return why there are no tokens."""
    with pytest.raises(CommandError) as caught:
        texts(config)
    return caught.value


def test_every_source_counts_and_repetition_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One dead and one alive is enough to join; the same one twice is one."""
    (tmp_path / "tokens").write_bytes(b'\xef\xbb\xbf# of the office\r\n\r\nmeshllm1-fo\r\nur\r\n"meshllm1-five"\r\n')
    monkeypatch.setattr(sys, "stdin", io.StringIO("two\n"))

    config = Config(join=("one", "-", "LAN", "one"), join_file=tmp_path / "tokens")

    assert texts(config, "three") == ("one", "two", "three", "meshllm1-four", '"meshllm1-five"')
    assert texts(Config()) == ()


def test_source_without_a_token_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit code of a bad token."""
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "huge").write_bytes(b"x" * (JOIN_FILE_BYTES + 1))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))

    for config, words in [
        (Config(join=("-",)), "no token in standard input"),
        (Config(join_file=tmp_path / "empty"), "no token in"),
        (Config(join_file=tmp_path / "huge"), "larger than 64 KiB"),
    ]:
        error = complaint(config)
        assert words in error.message
        assert error.exit_code == ExitCode.BAD_TOKEN


@pytest.mark.parametrize("name", ["missing", "."])
def test_file_that_cannot_be_read_is_wrong_usage(tmp_path: Path, name: str) -> None:
    """The path was typed wrong."""
    assert complaint(Config(join_file=tmp_path / name)).exit_code == ExitCode.USAGE


def test_too_many_tokens_are_refused() -> None:
    """Each is dialled."""
    assert "16 are the most" in complaint(Config(join=tuple(f"t{number}" for number in range(17)))).message
    assert len(texts(replace(Config(), join=("same",) * 100))) == 1


def test_member_needs_no_token_to_find_its_mesh() -> None:
    """The command that joined is often the one that starts the node again, with nobody at the keyboard."""
    assert texts(Config(join=("lan",)), is_member=True) == ()


def test_nobody_is_asked_where_nobody_sits() -> None:
    """A service must not wait for a keyboard."""
    with pytest.raises(CommandError, match="mesh-llm token") as caught:
        ask_for_token()

    assert caught.value.exit_code == ExitCode.BAD_TOKEN


def test_meshes_in_reach_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Names come from strangers, so they cannot steer the terminal."""
    show_meshes([("0123456789ab", "ho\x1bme", 2), ("ab" * 6, "", 1)])
    show_meshes([])

    assert capsys.readouterr().err.splitlines() == [
        "meshes on the local network:",
        "  ho\N{REPLACEMENT CHARACTER}me  (2 nodes, today's tag 01234567)",
        "  without a name  (1 node, today's tag abababab)",
        "no mesh is seen on the local network; a token still works, as it carries addresses",
    ]
