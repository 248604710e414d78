"""One prompt, or a conversation."""

import io
import json
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest

from meshllm.cli.api_client import ApiClient
from meshllm.cli.run import Chat
from tests.cli.conftest import Shell
from tests.cli.scripted import ScriptedNode

PATH = "POST /v1/chat/completions"


def _sent(node: ScriptedNode) -> Any:
    """Return the body of the first request."""
    return node.bodies(PATH)[0]


def stream(*pieces: str, end: str = "data: [DONE]\n\n") -> str:
    """Return a stream of chat events."""
    events = [{"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    return "".join(f": comment\n\ndata: {json.dumps(event)}\n\n" for event in events) + end


def test_prompt_is_answered_on_standard_output(shell: Shell, node: ScriptedNode) -> None:
    """Piece by piece, and a line end."""
    node.answers[PATH] = (200, stream("Hel", "lo\n", "you\x1b[2J"))

    assert shell("run", "tiny", "Hi", "--system", "Be kind", "--max-tokens", "9", "--port", node.port) == 0
    assert shell.out == "Hello\nyou[2J\n"
    assert node.bodies(PATH) == [{
        "model": "tiny", "stream": True, "max_tokens": 9,
        "messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}],
    }]  # fmt: skip


def test_standard_input_is_part_of_the_prompt(
    shell: Shell, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cat file | mesh-llm run tiny "Summarise:"`."""
    node.answers[PATH] = (200, stream("ok"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("a long text\n"))

    assert shell("run", "tiny", "Summarise:", "--port", node.port) == 0
    assert _sent(node)["messages"][0]["content"] == "Summarise:\na long text"


@pytest.mark.rows("CLI-5")
def test_without_a_model_the_default_answers(shell: Shell, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLI-5."""
    node.answers[PATH] = (200, stream("ok"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi"))

    assert shell("chat", "--port", node.port) == 0
    assert _sent(node)["model"] == "default"


def test_nothing_to_ask_is_said(shell: Shell, node: ScriptedNode) -> None:
    """An empty pipe is no question."""
    assert shell("run", "tiny", "--port", node.port) == 1
    assert "nothing to ask" in shell.err


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {"error": {"message": "no such model"}}), "no such model"),
        ((200, stream("Hel", end='data: {"error":{"message":"host lost"}}\n\n')), "host lost"),
        ((200, stream("Hel", end="")), "broke off"),
    ],
)
def test_failed_answer_is_a_failed_command(
    shell: Shell, node: ScriptedNode, answer: tuple[int, object], message: str
) -> None:
    """Also in the middle of it."""
    node.answers[PATH] = answer

    assert shell("run", "tiny", "Hi", "--port", node.port) == 1
    assert message in shell.err


def test_conversation_remembers_until_it_is_cleared(node: ScriptedNode, capsys: pytest.CaptureFixture[str]) -> None:
    """The model has no memory of its own."""
    answers: Iterator[str] = iter(["one", "two", "three"])
    node.answers[PATH] = lambda: (200, stream(next(answers)))
    chat = Chat(ApiClient("127.0.0.1", node.port), "tiny", None, None)

    chat.ask("1")
    chat.ask("2")
    chat.clear()
    chat.ask("3")

    bodies = cast("list[Any]", node.bodies(PATH))
    said = [[message["content"] for message in body["messages"]] for body in bodies]
    assert said == [["1"], ["1", "one", "2"], ["3"]]
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


class Terminal(io.StringIO):
    """Standard input as somebody types it."""

    def isatty(self) -> bool:
        """Claim to be one."""
        return True


@pytest.mark.rows("CLI-5")
def test_chat_on_a_terminal_goes_on_until_goodbye(
    shell: Shell, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed answer does not end it."""
    answers: Iterator[tuple[int, object]] = iter([(200, stream("one")), (503, {"error": {"message": "busy"}})])
    node.answers[PATH] = lambda: next(answers)
    monkeypatch.setattr(sys, "stdin", Terminal("1\n/what\n\n2\n/clear\n/bye\nnever asked\n"))

    assert shell("run", "tiny", "--port", node.port) == 0
    assert len(node.bodies(PATH)) == 2
    assert "one\n" in shell.out
    assert "busy" in shell.err


def test_chat_ends_with_the_input(shell: Shell, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D."""
    monkeypatch.setattr(sys, "stdin", Terminal(""))

    assert shell("run", "tiny", "--port", node.port) == 0
    assert node.bodies(PATH) == []


@pytest.mark.rows("CLI-5")
@pytest.mark.parametrize(
    ("line", "model"),
    [
        (["chat", "--model", "tiny", "Hi"], "tiny"),
        (["chat", "default", "Hi"], "default"),
        (["chat", "-m", "tiny", "default", "Hi"], "tiny"),
    ],
)
def test_chat_takes_the_model_as_an_option(shell: Shell, node: ScriptedNode, line: list[str], model: str) -> None:
    """Then the first word may be the prompt."""
    node.answers[PATH] = (200, stream("ok"))

    assert shell(*line, "--port", node.port) == 0
    assert _sent(node)["model"] == model
    assert _sent(node)["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.rows("CLI-5")
def test_chat_without_a_model_asks_the_default(
    shell: Shell, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node knows which one that is."""
    node.answers[PATH] = (200, stream("ok"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi"))

    assert shell("chat", "--port", node.port) == 0
    assert _sent(node)["model"] == "default"


def test_two_models_are_one_too_many(shell: Shell, node: ScriptedNode) -> None:
    """Exit 2, and nothing is asked."""
    assert shell("chat", "--model", "a", "b", "Hi", "--port", node.port) == 2
    assert node.bodies(PATH) == []
