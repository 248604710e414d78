"""A model hub on this machine: as much of the real one's HTTP as downloads need, with faults on order.

Owns the files and the faults. Speaks like the hub for large files: the address of a file redirects to a
delivery network, and headers of the redirect say size and digest.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """The server; `files` maps `user/repo` to paths and their bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.cut_after_bytes: list[int] = []
        """For each coming transfer: cut the connection after so many bytes of it."""
        self.spoiled = 0
        """How many of the coming transfers have a wrong byte."""
        self.stalled = threading.Event()
        self.stall = False
        """Whether transfers stop half way and stay open until the end of the test."""
        self.ranges: list[str] = []
        self.claimed_size: int | None = None

    @property
    def address(self) -> str:
        """Return what HF_ENDPOINT has to be."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that are killed hang up in the middle."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer about a file."""
        self._serve()

    def do_GET(self) -> None:
        """Answer with a list or a file."""
        self._serve()

    def _serve(self) -> None:
        path = self.path.partition("?")[0]
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            self._list("/".join(parts[2:4]))
        elif parts[0] == "cdn":
            self._send(self.server.files["/".join(parts[1:3])]["/".join(parts[3:])])
        else:
            self._redirect("/".join(parts[:2]), "/".join(parts[4:]))

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _redirect(self, repository: str, path: str) -> None:
        files = self.server.files.get(repository)
        if repository in self.server.gated:
            return self._refuse(403, "GatedRepo")
        if files is None:
            return self._refuse(404, "RepoNotFound")
        if path not in files:
            return self._refuse(404, "EntryNotFound")
        self.send_response(302)
        # Another host by name, as a delivery network is: the hub's library asks no further there.
        self.send_header("Location", f"http://localhost:{self.server.server_port}/cdn/{repository}/{path}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(files[path]).hexdigest()}"')
        self.send_header("X-Linked-Size", str(self.server.claimed_size or len(files[path])))
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _list(self, repository: str) -> None:
        files = self.server.files.get(repository)
        if files is None:
            return self._refuse(404, "RepoNotFound")
        siblings = [
            {
                "rfilename": path,
                "size": len(content),
                "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1},
            }
            for path, content in files.items()
        ]
        body = json.dumps({"id": repository, "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def _send(self, content: bytes) -> None:
        wanted = self.headers.get("Range", "")
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        body = content[start:]
        if self.server.spoiled:
            self.server.spoiled -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.stall:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.server.stalled.wait(30)
        elif self.server.cut_after_bytes:
            self.wfile.write(body[: self.server.cut_after_bytes.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Run a hub for the length of a block."""
    hub = FakeHub()
    serving = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-hub")
    serving.start()
    try:
        yield hub
    finally:
        hub.stalled.set()
        hub.shutdown()
        hub.server_close()
        serving.join()
