"""`token`: made, listed, taken back."""

import json

import pytest

from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.tokens import seconds_of
from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode

MADE = {
    "token": "meshllm1-made",
    "rights": ["infer"],
    "meaning": "lets a machine send requests",
    "ttl_s": 86400,
    "uses": None,
}
LISTED = {
    "id": "0123456789abcdef", "rights": ["infer", "host"], "meaning": "x", "expires_unix_s": 1.0,
    "expires_in_s": 7200.0, "uses_left": None, "made_by": "a" * 52,
}  # fmt: skip


@pytest.fixture
def making(node: ScriptedNode) -> ScriptedNode:
    """Return a node that makes tokens."""
    node.answers["POST /api/tokens"] = (201, MADE)
    return node


def test_token_alone_goes_to_standard_output(shell: Shell, making: ScriptedNode) -> None:
    """It is piped on; what it opens is said beside it."""
    assert shell("token", "--port", making.port) == 0

    assert shell.out == "meshllm1-made\n"
    assert "this token lets a machine send requests; it admits for 24 h 0 min" in shell.err
    assert making.bodies("POST /api/tokens") == [{"rights": "own", "ttl_s": None, "uses": None}]


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (["--guest"], {"rights": "guest", "ttl_s": None, "uses": None}),
        (["--client-only", "--ttl", "7d", "--uses", "3"], {"rights": "client", "ttl_s": 604800, "uses": 3}),
        (["--rights", "infer, rpc"], {"rights": ["infer", "rpc"], "ttl_s": None, "uses": None}),
    ],
)
def test_options_say_whom_it_admits(shell: Shell, making: ScriptedNode, options: list[str], body: object) -> None:
    """And for how long, and how often."""
    assert shell("token", *options, "--port", making.port) == 0

    assert making.bodies("POST /api/tokens") == [body]


@pytest.mark.parametrize(
    "line",
    [
        ["--guest", "--client-only"], ["--guest", "--rights", "infer"], ["--ttl", "soon"], ["--uses", "0"],
        ["--guest", "list"], ["revoke", "meshllm1-abcdef"], ["revoke"], ["nonsense"],
    ],
)  # fmt: skip
def test_contradiction_is_wrong_usage(shell: Shell, making: ScriptedNode, line: list[str]) -> None:
    """And nothing is made."""
    assert shell("token", *line, "--port", making.port) == 2
    assert making.asked == []


def test_json_of_a_token_is_the_answer(shell: Shell, making: ScriptedNode) -> None:
    """For programs that hand tokens out."""
    shell("token", "--json", "--port", making.port)

    assert json.loads(shell.out) == MADE


def test_tokens_are_listed(shell: Shell, node: ScriptedNode) -> None:
    """Also with the port before the subcommand."""
    node.answers["GET /api/tokens"] = (200, {"tokens": [LISTED, {**LISTED, "id": "ff", "uses_left": 2}]})

    assert shell("token", "--port", node.port, "list") == 0
    rows = [line.split() for line in shell.out.splitlines()[1:]]
    assert rows[0] == ["0123456789abcdef", "infer,host", "2", "h", "0", "min", "any", "aaaaaaaa"]
    assert rows[1][-2:] == ["2", "aaaaaaaa"]
    assert shell("token", "list", "--json", "--port", node.port) == 0
    assert json.loads(shell.out)[0] == LISTED


def test_tokens_are_taken_back_one_or_all(shell: Shell, node: ScriptedNode) -> None:
    """Those who have joined stay."""
    node.answers["DELETE /api/tokens/0123"] = (200, {"revoked": "0123456789abcdef"})
    node.answers["POST /api/tokens/rotate"] = (200, {"revoked": 2})

    assert shell("token", "revoke", "0123", "--port", node.port) == 0
    assert "nobody can join by 0123456789abcdef any more" in shell.err
    assert shell("token", "rotate", "--port", node.port) == 0
    assert "2 tokens revoked" in shell.err


@pytest.mark.parametrize(
    ("words", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("30 min", 1800), ("12H", 43200), ("1w", 604800)]
)
def test_duration_is_read(words: str, seconds: int) -> None:
    """As people write it."""
    assert seconds_of(words) == seconds


@pytest.mark.parametrize("words", ["", "d", "1.5h", "-1h", "1y", "9" * 12, "٣h"])
def test_wrong_duration_is_wrong_usage(words: str) -> None:
    """With an example."""
    with pytest.raises(CommandError, match="12h"):
        seconds_of(words)


@pytest.mark.parametrize("words", ["1s", "0", "59s", "366d"])
def test_duration_that_no_token_has_names_the_flag(words: str) -> None:
    """Said before a node is asked, in the words of the command line."""
    with pytest.raises(CommandError, match=rf"^--ttl: expected .* to .*, not {words}$") as caught:
        seconds_of(words)

    assert caught.value.exit_code == ExitCode.USAGE
