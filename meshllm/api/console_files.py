"""The built console's files, and the page that stands in while it is not built.

Owns their headers: a strict content policy, long caching of files whose names carry a hash. Serves only what
was in the folder at start: a path is looked up in a table, never joined to a folder.
"""

import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_HASHED = re.compile(r"[-.][A-Za-z0-9_-]{8,}\.[a-z0-9]+$")
NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>mesh-llm</title>
<h1>mesh-llm runs</h1>
<p>The web console is not part of this installation: it was installed from source without building it.
Build it with <code>python console/build.py</code> and start the node again.</p>
<p>The API answers: <a href="v1/models">/v1/models</a>, <a href="api/status">/api/status</a>.</p></html>
"""


class ConsoleFiles:
    """The handlers of `/` and of every file beside it."""

    def __init__(self, folder: Path = STATIC) -> None:
        """Look at what is built, once."""
        self._files: Mapping[str, Path] = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }

    @property
    def is_built(self) -> bool:
        """Tell whether there is a console."""
        return INDEX in self._files

    async def index(self, _: web.Request) -> web.StreamResponse:
        """Answer with the console's page, or say how to build it."""
        if self.is_built:
            return self._file(INDEX)
        return web.Response(text=NOT_BUILT, content_type="text/html", headers=_headers(INDEX))

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Answer with one of the files that `add_to` made routes for."""
        return self._file(request.path.removeprefix("/"))

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Make a route for every file, so that everything else stays 404 or 405."""
        for name in self._files:
            router.add_get(f"/{name}", self.file, allow_head=True)

    def _file(self, name: str) -> web.FileResponse:
        content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return web.FileResponse(self._files[name], headers={**_headers(name), "Content-Type": content_type})


def _headers(name: str) -> dict[str, str]:
    # A hashed name changes with its content, so its content never changes.
    is_hashed = name.startswith("assets/") and _HASHED.search(name) is not None
    return {**SECURITY_HEADERS, "Cache-Control": "public, max-age=31536000, immutable" if is_hashed else "no-cache"}
