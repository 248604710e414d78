"""A node that answers as a test says, and a way to run commands against it in this process."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DOCUMENTS = Path(__file__).parent.parent / "api" / "documents"
Answer = tuple[int, object]


@dataclass(slots=True)
class ScriptedNode:
    """Answers of a node by method and path; what it was asked."""

    port: int
    answers: dict[str, Answer | Callable[[], Answer]] = field(default_factory=dict)
    asked: list[tuple[str, object]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    last_ids: list[str] = field(default_factory=list)
    """Where each request of `GET /api/events` wants to go on."""

    def answer_to(self, asked: str, body: object, key: str) -> Answer:
        """Return the answer to `GET /path`; 404 where the test gave none."""
        self.asked.append((asked, body))
        self.keys.append(key)
        answer = self.answers.get(asked.partition("?")[0], (404, {"error": {"message": f"nothing at {asked}"}}))
        return answer() if callable(answer) else answer

    def bodies(self, asked: str) -> list[object]:
        """Return the bodies of all requests to `POST /path`."""
        return [body for path, body in self.asked if path == asked]


def document(name: str) -> dict[str, object]:
    """Return one of the status documents that the API's tests write."""
    read: dict[str, object] = json.loads((DOCUMENTS / f"{name}.json").read_text())
    return read


@contextmanager
def a_scripted_node(status: str = "serving") -> Iterator[ScriptedNode]:
    """Yield a node with one of the status documents, listening on loopback."""
    node = ScriptedNode(port=0)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            body = json.loads(self.rfile.read(length)) if length else None
            key = self.headers.get("Authorization", "")
            if self.path == "/api/events":
                node.last_ids.append(self.headers.get("Last-Event-ID", ""))
            code, content = node.answer_to(f"{self.command} {self.path}", body, key)
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the base class wants these names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # closing waits for them: a test leaves nothing behind
    node.port = server.server_address[1]
    node.answers = {"GET /api/status": (200, document(status)), "GET /healthz": (200, {"status": "ok"})}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield node
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
