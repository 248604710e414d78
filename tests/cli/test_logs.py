"""`logs`: lines of the node or of an engine."""

import json

from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode


def test_logs_are_plain_lines(shell: Shell, node: ScriptedNode) -> None:
    """Without what steers a terminal."""
    node.answers["GET /api/logs"] = (200, "one\n\x1b[31mred\n")

    assert shell("logs", "tiny", "-n", "5", "--port", node.port) == 0
    assert node.asked[-1][0] == "GET /api/logs?tail=5&model=tiny"
    assert shell.out == "one\n\N{REPLACEMENT CHARACTER}[31mred\n"


def test_lines_as_json(shell: Shell, node: ScriptedNode) -> None:
    """One list, or one string a line while following."""
    node.answers["GET /api/logs"] = (200, "one\ntwo\n")

    assert shell("logs", "--json", "--port", node.port) == 0
    assert json.loads(shell.out) == ["one", "two"]
    assert shell("logs", "-f", "--json", "--port", node.port) == 0
    assert [json.loads(line) for line in shell.out.splitlines()] == ["one", "two"]
