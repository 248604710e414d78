"""How fast the console is: `python scripts/console_speed.py`, with a built console and an installed Chromium.

Measures the size of the script, the first paint, and how a page with fifty nodes and a thousand models keeps up with
sixty changes a second. Owns a node that does nothing but change; decides nothing about what is fast enough.
"""

import gzip
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshllm.api.console_files import INDEX, STATIC
from scripts.browser import browser_program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, CDPSession, Page, ViewportSize

DOCUMENT = Path(__file__).resolve().parents[1] / "tests" / "api" / "documents" / "in_a_mesh.json"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
NODES, MODELS, PER_S = 50, 1000, 60
MEASURED_MS = 5000
OPENED = 5
SCREEN: "ViewportSize" = {"width": 1200, "height": 820}
SMOOTH_MS = 25.0
"""A frame that takes longer than this came too late for a screen of 60 Hz."""
COUNT_FRAMES = """ms => new Promise(done => {
  const gaps = []; let last = performance.now(); const end = last + ms;
  const step = now => { gaps.push(now - last); last = now; now < end ? requestAnimationFrame(step) : done(gaps) };
  requestAnimationFrame(step);
})"""
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


class BusyNode:
    """A node at a port of this machine with many models, of which some change at every moment."""

    def __init__(self, updates: int | None = None) -> None:
        """Serve; each follower gets so many changes, or changes for ever."""
        self._status, self._updates, self._ended = busy_status(), updates, threading.Event()
        self.sent = 0
        """Changes that any follower was sent."""
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                node.answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """End it and everything that follows it."""
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        """Answer with a file of the console, the stream, or nothing."""
        name = asked.path.partition("?")[0].lstrip("/") or INDEX
        if name == "api/events":
            self._stream(asked)
            return
        file = STATIC / name
        is_there = file.is_file() and file.resolve().is_relative_to(STATIC.resolve())
        content = file.read_bytes() if is_there else b'{"decisions": [], "split": null}'
        asked.send_response(200)
        asked.send_header("Content-Type", TYPES.get(file.suffix, "application/json"))
        asked.end_headers()
        asked.wfile.write(content)

    def _stream(self, asked: BaseHTTPRequestHandler) -> None:
        asked.send_response(200)
        asked.send_header("Content-Type", "text/event-stream")
        asked.end_headers()
        try:
            asked.wfile.write(event("status", self._status))
            due_s = time.monotonic()
            for changes in self._changes():
                asked.wfile.write(event("changes", changes))
                self.sent += 1
                due_s += 1 / PER_S  # by the clock: making and writing a change takes time too
                if self._ended.wait(max(due_s - time.monotonic(), 0.0)):
                    return
            self._ended.wait()
        except ConnectionError:
            return  # the page is gone

    def _changes(self) -> Iterator[dict[str, Any]]:
        """Yield changes as they come in a busy mesh: three nodes and five models each time."""
        members, models = self._status["members"], self._status["models"]
        order = dict.fromkeys(("members", "models", "mesh_models"))
        number = 0
        while self._updates is None or number < self._updates:
            number += 1
            nodes = [members[(3 * number + at) % NODES] | {"load": number % 100 / 100} for at in range(3)]
            busy = [models[(5 * number + at) % MODELS] | {"in_flight": number % 4} for at in range(4)]
            counted = [*busy, models[0] | {"aliases": [f"change-{number}"]}]
            entries = {"members": nodes, "models": counted, "mesh_models": []}
            yield {"facts": {"epoch": number}, "entries": entries, "order": order}


def busy_status() -> dict[str, Any]:
    """Return a status document with fifty nodes, each with twenty of a thousand models."""
    status: dict[str, Any] = json.loads(DOCUMENT.read_text())
    me, desk = status["members"][0], next(one for one in status["members"] if one["name"] == "desk")
    ready = next(model for model in status["models"] if model["phase"] == "ready")
    names = [f"model-{number:04}" for number in range(MODELS)]
    nodes = [me, *(desk | {"id": f"{number:032}", "name": f"node-{number:02}"} for number in range(1, NODES))]
    served = desk["models"][0]
    return status | {
        "members": [
            node | {"models": [served | {"id": name} for name in names[number::NODES]]}
            for number, node in enumerate(nodes)
        ],
        "models": [ready | {"id": name} for name in names],
        "mesh_models": [
            status["mesh_models"][0] | {"id": name, "warmth": "warm", "nodes": [{"id": me["id"], "phase": "ready"}]}
            for name in names
        ],
    }


def event(name: str, document: object) -> bytes:
    """Return a server-sent event."""
    return f"id: x.1\nevent: {name}\ndata: {json.dumps(document)}\n\n".encode()


def script_bytes() -> int:
    """Return the size of all scripts, compressed."""
    return sum(len(gzip.compress(file.read_bytes(), 9)) for file in STATIC.rglob("*.js"))


def busy_ms(watcher: "CDPSession") -> float:
    """Return how long the page's main thread has worked: of its own time, whatever else the machine does."""
    metrics = {one["name"]: one["value"] for one in watcher.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"]) * 1000


def frames(page: "Page", ms: int) -> list[float]:
    """Return the times between frames of a page, in milliseconds."""
    gaps: list[float] = page.evaluate(COUNT_FRAMES, ms)
    return sorted(gaps)


def first_paints(browser: "Browser", address: str) -> list[float]:
    """Return when each of some fresh pages showed something first, in milliseconds, the soonest first."""
    found = []
    for _ in range(OPENED):
        page = browser.new_page(viewport=SCREEN)
        page.goto(address)
        page.wait_for_selector(".connection.live")
        found.append(float(page.evaluate(FIRST_PAINT)))
        page.close()
    return sorted(found)


def main() -> int:
    """Measure and print. Return an exit status."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the node is also for machines without it

    program = browser_program()
    if program is None:
        print("no Chromium is installed", file=sys.stderr)
        return 1
    print(f"script: {script_bytes() / 1000:.1f} kB compressed")
    node = BusyNode()
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program)
            for name in ("mesh", "models"):
                paints = first_paints(browser, f"{node.url}#{name}")
                page = browser.new_page(viewport=SCREEN)
                page.goto(f"{node.url}#{name}")
                page.wait_for_selector(".connection.live")
                watcher = page.context.new_cdp_session(page)
                watcher.send("Performance.enable", {"timeDomain": "threadTicks"})
                frames(page, MEASURED_MS // 5)  # the first look is another matter
                before, worked_ms = node.sent, busy_ms(watcher)
                gaps = frames(page, MEASURED_MS)
                each_ms = (busy_ms(watcher) - worked_ms) / max(1, node.sent - before)
                late = sum(gap > SMOOTH_MS for gap in gaps)
                print(f"{name}: first paint {paints[0]:.0f} to {paints[-1]:.0f} ms")
                print(
                    f"{name}: {node.sent - before} changes in {MEASURED_MS / 1000:.0f} s, {len(gaps)} frames, "
                    f"{late} late, median {gaps[len(gaps) // 2]:.1f} ms, 99 % within "
                    f"{gaps[len(gaps) * 99 // 100]:.1f} ms; {each_ms:.1f} ms of its thread a change"
                )
                page.close()
            browser.close()
    finally:
        node.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
