"""`mesh-llm run`: one prompt, or a chat, through the local node's API.

Owns the conversation and how an answer is streamed to a terminal. Doesn't load models: the request does, and
waits for it.
"""

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from meshllm.cli.api_client import ApiClient
from meshllm.cli.failures import CommandError, ExitCode
from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Port, StateDir
from meshllm.cli.render import say
from meshllm.cli.rows import items, part, text

DEFAULT = "default"
STDIN_BYTES = 1024 * 1024
HELP = "/clear forgets the conversation, /bye ends it (so does Ctrl-D); Ctrl-C stops an answer"


def command(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Name of the model; without one, the node's default.")
    ] = DEFAULT,
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="What to ask; without it and on a terminal, chat.")
    ] = None,
    named: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="Name of the model; PROMPT may then be first.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="Instructions for the model.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", metavar="N", min=1, help="Longest answer.")] = None,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Ask a model one thing, or chat with it."""
    if named is not None:
        if model != DEFAULT and prompt is not None:
            raise CommandError(
                "--model names the model, and so does the first word: one of them is enough", ExitCode.USAGE
            )
        model, prompt = named, prompt if model == DEFAULT else model
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    chat = Chat(client, model, system, max_tokens)
    piped = "" if sys.stdin.isatty() else sys.stdin.read(STDIN_BYTES)
    asked = "\n".join(words for words in (prompt, piped.strip()) if words)
    if asked:
        chat.ask(asked)
    elif sys.stdin.isatty():
        client.get("/healthz")  # better to hear now than after the first question that no node runs
        _converse(chat)
    else:
        raise CommandError("there is nothing to ask: give a PROMPT, or something on standard input")


class Chat:
    """One conversation."""

    def __init__(self, client: ApiClient, model: str, system: str | None, max_tokens: int | None) -> None:
        """Begin, with instructions if there are any."""
        self._client = client
        self._model = model
        self._max_tokens = max_tokens
        self._begin = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._begin)

    def clear(self) -> None:
        """Forget what was said."""
        self._messages = list(self._begin)

    def ask(self, prompt: str) -> None:
        """Ask, and print the answer as it comes. Raises CommandError; an unanswered question is forgotten."""
        messages = [*self._messages, {"role": "user", "content": prompt}]
        body: dict[str, object] = {"model": self._model, "messages": messages, "stream": True}
        if self._max_tokens is not None:
            body["max_tokens"] = self._max_tokens
        answer = ""
        try:
            with self._client.lines("POST", "/v1/chat/completions", body) as lines:
                for piece in _pieces(lines):
                    answer += piece
                    print(_safe(piece), end="", flush=True)
        finally:
            if answer:
                print(flush=True)
        self._messages = [*messages, {"role": "assistant", "content": answer}]


def _converse(chat: Chat) -> None:
    """Read questions until somebody says goodbye."""
    import readline  # noqa: F401 - gives `input` a line that can be edited

    say(HELP)
    while True:
        try:
            line = input(">>> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line in ("/bye", "/exit", "/quit"):
            return
        if line == "/clear":
            chat.clear()
        elif line.startswith("/"):
            say(HELP)
        elif line:
            try:
                chat.ask(line)
            except KeyboardInterrupt:
                say("stopped")
            except CommandError as error:
                say(error.message)


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    """Yield the text of a stream of chat events. Raises CommandError when the stream says so or ends too early."""
    is_ended = False
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError:
            continue
        if not isinstance(event, dict):
            continue
        if "error" in event:
            raise CommandError(text(part(event, "error"), "message") or "the answer broke off")
        for choice in items(event, "choices"):
            is_ended = is_ended or choice.get("finish_reason") is not None
            if content := text(part(choice, "delta"), "content"):
                yield content
    if not is_ended:
        raise CommandError("the answer broke off")


def _safe(piece: str) -> str:
    """Return text without characters that steer a terminal; lines and tabs stay."""
    return "".join(char for char in piece if char.isprintable() or char in "\n\t" or ord(char) > 0x9F)
