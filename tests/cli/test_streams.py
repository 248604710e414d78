"""Standard streams that are full, closed or left by their reader."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.scripted import ScriptedNode

COMMANDS = ["status", "status --json", "ps", "logs", "--help", "--version"]
FULL = Path("/dev/full")


def ended(node: ScriptedNode, command: str, redirection: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that redirects its streams."""
    node.answers["GET /api/logs"] = (200, "a line\n" * 10_000)
    line = [sys.executable, "-m", "meshllm", *command.split()]
    line += [] if command.startswith("--") else ["--port", str(node.port)]
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirection}', "sh", *line], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", COMMANDS)
def test_full_output_is_one_line_and_exit_1(node: ScriptedNode, command: str) -> None:
    """A script that fills a disk has to hear of it, in words."""
    run = ended(node, command, f"> {FULL}")

    assert run.returncode == 1
    assert run.stderr == "mesh-llm: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_closed_output_is_one_line_and_exit_1(node: ScriptedNode, command: str) -> None:
    """Nothing was shown, so nothing was done."""
    run = ended(node, command, ">&-")

    assert run.returncode == 1
    assert run.stderr == "mesh-llm: cannot write the output: Bad file descriptor\n"


@pytest.mark.parametrize("redirection", ["<&-", "2>&-", "<&- 2>&-"])
def test_other_closed_streams_are_not_needed(node: ScriptedNode, redirection: str) -> None:
    """Services are started so; data never takes the place of complaints, nor the other way round."""
    run = ended(node, "ps", redirection)

    assert run.returncode == 0
    assert "tiny" in run.stdout
    assert run.stderr == ""


def test_question_without_standard_input_is_a_failure_in_words(node: ScriptedNode) -> None:
    """A closed one is as empty as any."""
    run = ended(node, "run tiny", "<&-")

    assert run.returncode == 1
    assert "there is nothing to ask" in run.stderr


def test_characters_that_the_terminal_lacks_are_escaped(node: ScriptedNode) -> None:
    """Names come from everywhere, and terminals differ."""
    node.answers["GET /api/logs"] = (200, "größer \N{SNOWMAN}\n")
    line = [sys.executable, "-m", "meshllm", "logs", "--port", str(node.port)]

    run = subprocess.run(
        line, capture_output=True, timeout=30, check=False, env={**os.environ, "PYTHONIOENCODING": "latin-1"}
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout == "größer \\u2603\n".encode("latin-1")
