"""A real browser for the built console, and nodes with the fake engine for it to look at."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshllm.api.console_files import INDEX, STATIC
from scripts.fake_mesh_process import FakeMesh
from tests.e2e.daemons import Daemon, free_port
from tests.inventory import gguf_builder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT_MS = 30_000
CHOICE = "MESH_LLM_TEST_BROWSER"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_PROGRAM = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
NO_BROWSER = f"no Chromium is installed (on Debian: apt install chromium); {CHOICE} may name one"


def browser_program() -> str | None:
    """Return the path of the browser to drive, or None where there is none. A named one has to be there."""
    if named := os.environ.get(CHOICE):
        assert Path(named).is_file(), f"{CHOICE}={named} is no file"
        return named
    found = next((path for path in map(shutil.which, PROGRAMS) if path), None)
    return found or (str(MAC_PROGRAM) if MAC_PROGRAM.is_file() else None)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Return a running browser; skip where none can be had."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (scripts/test does)")
    program = browser_program()
    if program is None:
        pytest.skip(NO_BROWSER)
    assert (STATIC / INDEX).is_file(), "the console is not built: python console/build.py"
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=program)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    """Return a page of a browser that has never seen the console."""
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def complaints(page: "Page") -> list[str]:
    """Return what the browser complains of: errors on its console, and exceptions that nobody caught."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., Daemon]:
    """Return a maker of nodes that serve `tiny` and have `other`; not started, use one in a `with`."""

    def make(**environment: str) -> Daemon:
        arguments = ("--model", "tiny", "--threads", "1", "--engine", 'fake:{"token_s": 0.05}')
        made = Daemon(tmp_path, arguments, environment=environment)
        for name in ("tiny", "other"):
            gguf_builder.write(made.models / f"{name}.gguf")
        return made

    return make


@pytest.fixture
def fake_mesh() -> Iterator[FakeMesh]:
    """Return a simulated mesh with requests, and with a node whose name is markup."""
    mesh = FakeMesh(free_port(), "--hostile")
    yield mesh
    mesh.close()
