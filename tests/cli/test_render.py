"""Tables, JSON, sizes and progress, on a terminal and off it."""

import json
import os
import pty
import subprocess
import sys

import pytest

from meshllm.cli.render import Bars, clean, count_of, duration, print_json, print_table, size
from meshllm.cli.rows import ModelRow, rows_of
from tests.cli.scripted import document


def test_names_cannot_steer_the_terminal() -> None:
    """They come from files and networks."""
    assert clean("a\x1b]0;x\x07\nb\u202e") == "a\N{REPLACEMENT CHARACTER}]0;x" + "\N{REPLACEMENT CHARACTER}" * 2 + (
        "b\N{REPLACEMENT CHARACTER}"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (12_000, "3 h 20 min"), (200_000, "2 days")],
)
def test_duration_is_for_people(seconds: float | None, text: str) -> None:
    """The two largest units say enough."""
    assert duration(seconds) == text


def test_counts_and_sizes_are_for_people() -> None:
    """Nothing is a dash."""
    assert [count_of(number) for number in (0, None, 8192, 135_000_000, 7_615_616_512)] == [
        "-",
        "-",
        "8192",
        "135M",
        "7.6B",
    ]
    assert [size(count) for count in (0, None, 98_000_000)] == ["-", "-", "98.0 MB"]


def test_table_in_a_pipe_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """For `awk` and `grep`."""
    print_table(("NAME", "SIZE"), [("longer name", 1), ("b", "")])

    assert capsys.readouterr().out == "NAME         SIZE\nlonger name  1\nb\n"


def test_records_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Own types, whole."""
    rows = rows_of(document("serving"))
    print_json(rows)

    assert [ModelRow(**row) for row in json.loads(capsys.readouterr().out)] == rows


def test_progress_off_a_terminal_is_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    """A log stays readable."""
    with Bars() as bars:
        for percent in range(101):
            bars.show("k", "loading", percent / 100)
        bars.done("k")

    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 11
    assert lines[0] == "loading 0%"


def on_a_terminal(code: str, **environ: str) -> str:
    """Return what a piece of code shows on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", **environ}
    try:
        with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment) as process:
            os.close(theirs)
            shown = b""
            while piece := _read(ours):
                shown += piece
            process.wait(timeout=30)
    finally:
        os.close(ours)
    return shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 10_000)
    except OSError:  # Linux says so that the other end is closed
        return b""


def test_table_on_a_terminal_has_bold_headings_and_no_markup() -> None:
    """A model may be called `[red]x`."""
    shown = on_a_terminal("from meshllm.cli.render import print_table; print_table(('NAME',), [('[red]x',)])")

    assert "\x1b[1mNAME" in shown
    assert "[red]x" in shown


@pytest.mark.parametrize(("environ", "is_coloured"), [({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)])
def test_bar_on_a_terminal_has_colours_unless_told_not_to(environ: dict[str, str], is_coloured: bool) -> None:
    """NO_COLOR."""
    shown = on_a_terminal(
        "from meshllm.cli.render import Bars; bars = Bars(); bars.show('k', 'loading', 0.4, '4 of 10'); bars.close()",
        **environ,
    )

    assert "loading" in shown
    assert ("\x1b[38;" in shown) is is_coloured
