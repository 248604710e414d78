"""Real daemons, of which one is lost in the middle of a sentence: the client reads the sentence to its end."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse

import anthropic
import psutil
import pytest

from tests.e2e.daemons import BUSY_MACHINE_S, Daemon, until
from tests.e2e.test_mesh import node_id, token_of

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
SLOW = 'fake:{"token_s": 0.05}'
TOKENS = 60
COUNTED = "".join(f"{number} " for number in range(TOKENS))
SILENT_S = 12.0
"""Ten seconds without a sign of life, and the way to the next host."""


@dataclass
class Told:
    """A stream, read line by line."""

    answer: HTTPResponse
    text: str = ""
    last: str = ""
    is_resumed: bool = False

    def read(self, tokens: int | None = None) -> "Told":
        """Read until so many tokens are there, or to the end."""
        for line in self.answer:
            self.is_resumed = self.is_resumed or line.startswith(b": resumed on ")
            if not line.startswith(b"data: "):
                continue
            self.last = line[6:].decode().strip()
            if self.last.startswith("{") and "choices" in (document := json.loads(self.last)):
                self.text += "".join(choice["delta"].get("content") or "" for choice in document["choices"])
            if tokens is not None and len(self.text.split()) >= tokens:
                break
        return self


@contextmanager
def a_mesh(daemon: Make, engine: str = SLOW, **more: object) -> Iterator[tuple[Daemon, dict[str, Daemon]]]:
    """Start a client and two hosts of one model; yield the client, and the hosts by id."""
    with ExitStack() as stack:
        first = stack.enter_context(daemon("--model", "tiny", models=("tiny",), engine=engine, **more))
        first.until_model("tiny", phase="ready")
        joined = ("--model", "tiny", "--join", token_of(first))
        second = stack.enter_context(daemon(*joined, models=("tiny",), engine=engine, **more))
        second.until_model("tiny", phase="ready")
        client = stack.enter_context(daemon("--client", "--join", token_of(first), models=()))
        until(lambda: hosts_of(client) == 2, "both hosts to be known")
        yield client, {node_id(node): node for node in (first, second)}


def hosts_of(node: Daemon) -> int:
    """Return how many nodes serve the model."""
    models = [model for model in node.get("/v1/models")["data"] if model["id"] == "tiny"]
    return len(models[0]["nodes"]) if models and models[0].get("status") == "loaded" else 0


def test_a_host_is_killed_in_the_middle_of_a_sentence(daemon: Make) -> None:
    """No goodbye: the other one says the rest, with nothing twice and nothing left out."""
    with a_mesh(daemon) as (client, hosts), client.streaming("count", max_tokens=TOKENS) as answer:
        told = Told(answer).read(tokens=8)
        began_s = time.monotonic()
        host = hosts[answer.headers["x-mesh-node"]]
        engines = host.engines()
        host.signal(signal.SIGKILL)
        for engine in engines:
            engine.kill()
        told.read(tokens=len(told.text.split()) + 4)
        gap_s = time.monotonic() - began_s

        assert (told.read().text, told.last) == (COUNTED, "[DONE]")
        assert told.is_resumed
        assert gap_s < 4 + BUSY_MACHINE_S


def test_a_host_is_killed_in_the_middle_of_a_message(daemon: Make) -> None:
    """Anthropic's own client reads on: its block is one text, and its message ends as it should."""
    with a_mesh(daemon) as (client, hosts):
        asked = {"model": "tiny", "max_tokens": TOKENS, "messages": [{"role": "user", "content": "count"}]}
        with (
            anthropic.Anthropic(base_url=f"http://127.0.0.1:{client.port}", api_key="any", max_retries=0) as sdk,
            sdk.messages.stream(**asked) as stream,  # type: ignore[arg-type]  # a plain request
        ):
            words = iter(stream.text_stream)
            for _ in range(8):
                next(words)
            host = hosts[stream.response.headers["x-mesh-node"]]
            engines = host.engines()
            host.signal(signal.SIGKILL)
            for engine in engines:
                engine.kill()
            message = stream.get_final_message()

        assert [block.to_dict() for block in message.content] == [{"type": "text", "text": COUNTED}]
        assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", TOKENS)


def test_a_host_falls_silent_in_the_middle_of_a_sentence(daemon: Make) -> None:
    """SIGSTOP: nobody says goodbye, and no socket closes."""
    with a_mesh(daemon) as (client, hosts), client.streaming("count", max_tokens=TOKENS) as answer:
        told = Told(answer).read(tokens=8)
        began_s = time.monotonic()
        host = hosts[answer.headers["x-mesh-node"]]
        stopped = [psutil.Process(host.process.pid), *host.engines()]
        for process in stopped:
            process.suspend()
        try:
            told.read(tokens=len(told.text.split()) + 20)
            gap_s = time.monotonic() - began_s

            assert (told.read().text, told.last) == (COUNTED, "[DONE]")
            assert told.is_resumed
            assert gap_s < SILENT_S + 4 + BUSY_MACHINE_S
        finally:
            for process in stopped:
                process.resume()


def test_the_engine_of_a_host_is_killed_in_the_middle_of_a_sentence(daemon: Make) -> None:
    """Its daemon lives and says so; the other host, or the same one with a new engine, says the rest."""
    with a_mesh(daemon) as (client, hosts), client.streaming("count", max_tokens=TOKENS) as answer:
        told = Told(answer).read(tokens=8)
        os.kill(hosts[answer.headers["x-mesh-node"]].model("tiny")["pid"], signal.SIGKILL)

        assert (told.read().text, told.last) == (COUNTED, "[DONE]")
        assert told.is_resumed


def test_the_engine_of_a_host_hangs_in_the_middle_of_a_sentence(daemon: Make) -> None:
    """Its process lives and does nothing: noticed by progress, ended, and gone on with elsewhere."""
    with a_mesh(daemon, stall_s=1.0) as (client, _), client.streaming("!freeze:5", max_tokens=TOKENS) as answer:
        told = Told(answer).read()

    assert (told.text, told.is_resumed, told.last) == (COUNTED, True, "[DONE]")


def test_the_only_engine_is_killed_in_the_middle_of_a_sentence(daemon: Make) -> None:
    """One node, nobody else: the stream waits for the engine that is started again."""
    with daemon("--model", "tiny", engine=SLOW) as node:
        pid = node.until_model("tiny", phase="ready")["pid"]
        with node.streaming("count", max_tokens=TOKENS) as answer:
            told = Told(answer).read(tokens=8)
            os.kill(pid, signal.SIGKILL)

            assert (told.read().text, told.last) == (COUNTED, "[DONE]")
            assert told.is_resumed
