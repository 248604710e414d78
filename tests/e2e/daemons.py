"""Real daemons as child processes, for tests that look from outside."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from meshllm.config_paths import default_runtime_dir

WAIT_S = 45.0
"""Whatever takes longer hangs. It is more than `UNCLAIMED_WAIT_S`, so that a refusal then is heard of."""
BUSY_MACHINE_S = 20.0
"""What a machine that does much else gets on top of what is promised; how fast a node is, docs/performance.md says."""
STREAM_SILENCE_S = 60.0  # far more than the interval of comments
POLL_S = 0.02
PAUSE = threading.Event()


def until(condition: Callable[[], Any], what: str, within_s: float = WAIT_S) -> Any:
    """Wait until a condition holds and return its value; fail naming what was waited for."""
    end_s = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > end_s:
            msg = f"waited {within_s} s in vain for {what}"
            raise AssertionError(msg)
        # Between processes there is nothing to await; a short pause between looks, never in place of one.
        PAUSE.wait(POLL_S)
    return value


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that nobody has collected yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Reply:
    """An HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """Return the OpenAI error object."""
        return self.json["error"]

    @property
    def events(self) -> list[str]:
        """Return the data of the server-sent events."""
        return [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]

    @property
    def text(self) -> str:
        """Return the streamed chat text."""
        chunks = [json.loads(event) for event in self.events if event != "[DONE]"]
        return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", []))


@dataclass
class Daemon:
    """One `mesh-llm` process with folders of its own."""

    home: Path
    arguments: tuple[str, ...] = ()
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    nofile: int | None = None
    """Limit of open descriptors, as `ulimit -n`."""
    prefix: tuple[str, ...] = ()
    """A program that starts it in its own place, such as `nohup`."""
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def state(self) -> Path:
        """Return the state folder."""
        return self.home / "state"

    @property
    def models(self) -> Path:
        """Return the model folder."""
        return self.home / "models"

    def command(self, *arguments: str) -> list[str]:
        """Return a `mesh-llm` command line for this daemon's folders."""
        return [sys.executable, "-m", "meshllm", *arguments]

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment of the daemon and of commands to it."""
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("MESH_LLM_")},
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "MESH_LLM_STATE_DIR": str(self.state),
            "MESH_LLM_MODELS_DIRS": str(self.models),
            "NO_COLOR": "1",
            **self.environment,
        }

    def __enter__(self) -> Self:
        """Start it and wait until its API answers."""
        self.models.mkdir(exist_ok=True, parents=True)
        self.port = self.port or free_port()
        command = [*self.prefix, *self.command(*self.arguments, "--port", str(self.port))]
        if self.nofile is not None:
            command = ["/bin/sh", "-c", f'ulimit -n {self.nofile}; exec "$@"', "sh", *command]
        with (self.home / "daemon.log").open("wb") as log:
            self.process = subprocess.Popen(command, env=self.environ, stdin=subprocess.DEVNULL, stderr=log)
        try:
            until(self._is_open, "the daemon's address")
        except AssertionError:
            self.process.kill()
            self.process.wait()
            raise AssertionError(self.log) from None
        return self

    def _is_open(self) -> bool:
        if self.process.poll() is not None:
            msg = f"the daemon ended with {self.process.returncode}: {self.log}"
            raise AssertionError(msg)
        try:
            note = json.loads((self.state / "api.json").read_text())
        except (OSError, ValueError):
            return False
        return note["pid"] == self.process.pid

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, and whatever it left."""
        engines = self.engines()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for engine in engines:
            engine.kill() if engine.is_running() else None
        psutil.wait_procs(engines, timeout=WAIT_S)
        if self.process.returncode == -signal.SIGKILL:  # it had no time to take its sockets away
            shutil.rmtree(default_runtime_dir(self.environ, self.state), ignore_errors=True)
        if error is not None:
            sys.stderr.write(f"--- log of the daemon in {self.home}\n{self.log}\n")

    @property
    def log(self) -> str:
        """Return what it wrote to standard error."""
        return (self.home / "daemon.log").read_text(errors="replace")

    def engines(self) -> list[psutil.Process]:
        """Return its child processes."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self, within_s: float = WAIT_S) -> int:
        """Return its exit code once it ended."""
        return self.process.wait(within_s)

    def run(self, *arguments: str, within_s: float = WAIT_S, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command against it."""
        return subprocess.run(
            self.command(*arguments), env=self.environ, input=stdin, capture_output=True, text=True, timeout=within_s,
            check=False,
        )  # fmt: skip

    def request(
        self, method: str, path: str, body: object = None, *, headers: dict[str, str] | None = None,
        timeout_s: float = WAIT_S,
    ) -> Reply:  # fmt: skip
        """Send a request and read the answer to its end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """Return the JSON of a path."""
        return self.request("GET", path).json

    def chat(
        self, text: str = "hello", *, model: str | None = "tiny", timeout_s: float = WAIT_S, **fields: object
    ) -> Reply:
        """Send a chat request."""
        body: dict[str, object] = {"messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}
        if model is not None:
            body["model"] = model
        return self.request("POST", "/v1/chat/completions", body, timeout_s=timeout_s)

    @contextmanager
    def streaming(self, text: str, *, model: str = "tiny", **fields: object) -> Iterator[http.client.HTTPResponse]:
        """Send a streaming chat request and hand over the answer while it comes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STREAM_SILENCE_S)
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True, **fields}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        try:
            yield connection.getresponse()
        finally:
            connection.close()

    def model(self, name: str) -> dict[str, Any]:
        """Return a model's part of the status document; empty where there is none."""
        return next((model for model in self.get("/api/status")["models"] if model["id"] == name), {})

    def until_model(self, name: str, within_s: float = WAIT_S, **facts: object) -> dict[str, Any]:
        """Wait until a model's part of the status has these values."""
        return until(
            lambda: (found := self.model(name)) and facts.items() <= found.items() and found,
            f"{name} to be {facts}", within_s,
        )  # fmt: skip
