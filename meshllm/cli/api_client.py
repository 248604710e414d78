"""Talks to the node of this machine: finds it, asks, and says in one sentence why that did not work.

Owns where the node is looked for and how errors of the API become `CommandError`. Decides nothing.

Uses `http.client` of the standard library and not aiohttp: a command asks one thing and ends, and importing
aiohttp takes five times as long as the whole of this (200 ms against 40).
"""

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from meshllm.cli.failures import CommandError
from meshllm.cli.summary import loopback_of
from meshllm.config import Config
from meshllm.core.limits import NODE_ANSWER_TIMEOUT_S, STATE_FILE_BYTES

ADDRESS_NAME = "api.json"
NEEDS_ADMIN = "missing_admin_key"
"""Code of a refusal that another key than the API's would end; its message says so."""
LONG_WAIT_S = 86_400.0
"""For answers that come when something is done, such as a download; Ctrl-C ends the waiting."""
START_HINT = "start one with `mesh-llm --model smollm2-135m`"


class NoNodeError(CommandError):
    """Nobody answers where a node would."""


class NodeLostError(CommandError):
    """The node answers no more, or broke off in the middle."""


class ApiClient:
    """The management and inference API of one node."""

    def __init__(self, host: str, port: int, key: str = "") -> None:
        """Talk to `host:port`, with a key if one is needed."""
        self.host, self.port = host, port
        self._key = key

    def get(self, path: str, **query: str) -> dict[str, object]:
        """Return a document. Raises CommandError."""
        return self._document("GET", f"{path}?{urlencode(query)}" if query else path, None, NODE_ANSWER_TIMEOUT_S)

    def post(self, path: str, body: Mapping[str, object], *, is_long: bool = False) -> dict[str, object]:
        """Send an order and return what came of it. Raises CommandError."""
        return self._document("POST", path, body, LONG_WAIT_S if is_long else NODE_ANSWER_TIMEOUT_S)

    def delete(self, path: str) -> dict[str, object]:
        """Delete something and return what was deleted. Raises CommandError."""
        return self._document("DELETE", path, None, LONG_WAIT_S)

    @contextmanager
    def lines(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        timeout_s: float = LONG_WAIT_S,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Iterator[str]]:
        """Give the lines of an answer as they come; `timeout_s` is for each of them. Raises CommandError."""
        with self._answer(method, path, body, timeout_s, headers) as answer:
            if answer.status >= 400:
                raise _error_of(answer.status, answer.read(STATE_FILE_BYTES))
            yield _lines(answer, self)

    def _document(
        self, method: str, path: str, body: Mapping[str, object] | None, timeout_s: float
    ) -> dict[str, object]:
        with self._answer(method, path, body, timeout_s) as answer:
            content = answer.read(STATE_FILE_BYTES)
            if answer.status >= 400:
                raise _error_of(answer.status, content)
        document = _parsed(content)
        if document is None:
            raise CommandError(f"{self.host}:{self.port} does not answer like a mesh-llm node")
        return document

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        timeout_s: float,
        more_headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        headers = {"Content-Type": "application/json", **(more_headers or {})}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, path, body=content, headers=headers)
            yield connection.getresponse()
        except TimeoutError:
            raise NodeLostError(f"the node at {self.host}:{self.port} does not answer") from None
        except ConnectionRefusedError:
            raise NoNodeError(f"no node is running at {self.host}:{self.port}; {START_HINT}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise NodeLostError(f"the node at {self.host}:{self.port} broke off: {reason}") from None
        finally:
            connection.close()


def connect(config: Config, *, is_port_given: bool) -> ApiClient:
    """Return a client of the node that the configuration means. Raises NoNodeError when it is known not to run.

    A port that was named wins; else the address that the running node left in the state folder; else the configured
    or default one.
    """
    noted = None if is_port_given else _noted_address(config.state_dir / ADDRESS_NAME)
    if noted is not None:
        return ApiClient(*noted, config.admin_key or config.api_key)
    return ApiClient(loopback_of(config.host), config.port, config.admin_key or config.api_key)


def _noted_address(file: Path) -> tuple[str, int] | None:
    """Return the address that a running daemon wrote; None when there is no note or its writer is gone."""
    try:
        with file.open("rb") as stream:
            note = _parsed(stream.read(STATE_FILE_BYTES)) or {}
    except OSError:
        return None
    address, pid = note.get("address"), note.get("pid")
    if not isinstance(address, str) or (isinstance(pid, int) and not _is_alive(pid)):
        return None
    host, _, port = address.rpartition(":")
    return (loopback_of(host.strip("[]")), int(port)) if port.isdigit() and host else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _lines(answer: http.client.HTTPResponse, client: ApiClient) -> Iterator[str]:
    try:
        while line := answer.readline():
            yield line.decode(errors="replace").rstrip("\r\n")
    except (http.client.HTTPException, ConnectionError):
        raise NodeLostError(f"the node at {client.host}:{client.port} broke off") from None


def _parsed(content: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _error_of(status: int, content: bytes) -> CommandError:
    """Return the sentence of an error: the envelope's, or the `error` string of the lifecycle answers."""
    error, code = (_parsed(content) or {}).get("error"), None
    if isinstance(error, dict):
        code, error = error.get("code"), error.get("message")
    if status == 401 and code != NEEDS_ADMIN:
        return CommandError("the node wants an API key: set MESH_LLM_API_KEY")
    return CommandError(str(error) if error else f"the node answered with status {status}")
