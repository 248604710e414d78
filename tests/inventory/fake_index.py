"""A package index on this machine: a list of files and the files, with ranges or without, and with faults on order.

Owns the files and the faults. Speaks HTML lists as every index does, and nothing newer.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeIndex(ThreadingHTTPServer):
    """The server; `files` maps file names to their bytes."""

    daemon_threads = False
    """Closing waits for what is being answered, so that no connection outlives the test."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.cut_after_bytes: list[int] = []
        """For each coming transfer: cut the connection after so many bytes of it."""
        self.has_ranges = True
        self.has_digests = True
        self.validator = ""
        self.refused = 0
        """A status with which all files are refused; 0 for none."""
        self.ranges: list[str] = []
        self.is_held = threading.Event()
        self.hold = False
        """Whether transfers stop half way and stay open until the end of the test."""

    @property
    def address(self) -> str:
        """Return what PIP_INDEX_URL has to be."""
        return f"http://127.0.0.1:{self.server_port}/simple"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that are killed hang up in the middle."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeIndex

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with a list or a file."""
        name = self.path.strip("/").split("/")[-1]
        if self.path.startswith("/simple/"):
            self._list()
        elif name in self.server.files:
            self._file(self.server.files[name])
        else:
            self._answer(404, b"", {})

    def _list(self) -> None:
        digests = {
            name: f"#sha256={hashlib.sha256(content).hexdigest()}" for name, content in self.server.files.items()
        }
        links = (
            f'<a href="/files/{name}{digest if self.server.has_digests else ""}">{name}</a>'
            for name, digest in digests.items()
        )
        page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
        self._answer(200, page.encode(), {"Content-Type": "text/html"})

    def _file(self, content: bytes) -> None:
        wanted = self.headers.get("Range", "")
        self.server.ranges.append(wanted)
        if self.server.refused:
            return self._answer(self.server.refused, b"", {})
        headers = {"ETag": self.server.validator} if self.server.validator else {}
        condition = self.headers.get("If-Range", self.server.validator)
        if not wanted or not self.server.has_ranges or condition != self.server.validator:
            return self._answer(200, content, headers)
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        if start >= len(content):
            return self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._answer(206, content[start:], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        is_file = self.path.startswith("/files/")
        if is_file and self.server.hold:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.server.is_held.wait(30)
            self.close_connection = True
        elif is_file and body and self.server.cut_after_bytes:
            self.wfile.write(body[: self.server.cut_after_bytes.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)


@contextmanager
def running_index() -> Iterator[FakeIndex]:
    """Run an index for the length of a block."""
    index = FakeIndex()
    serving = threading.Thread(target=index.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-index")
    serving.start()
    try:
        yield index
    finally:
        index.is_held.set()
        index.shutdown()
        index.server_close()
        serving.join()
