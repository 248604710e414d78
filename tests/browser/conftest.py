"""A real browser for the built console, and nodes with the fake engine for it to look at."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshllm.api.console_files import INDEX, STATIC
from scripts.browser import CHOICE, browser_program
from scripts.fake_mesh_process import FakeMesh
from tests.e2e.daemons import Daemon, free_port
from tests.inventory import gguf_builder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT_MS = 30_000
NO_BROWSER = f"no Chromium is installed (on Debian: apt install chromium); {CHOICE} may name one"
ARGUMENTS = ("--model", "tiny", "--threads", "1", "--engine", 'fake:{"token_s": 0.05}')


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


def a_node(folder: Path, **environment: str) -> Daemon:
    """Return a node that serves `tiny` and has `other`; not started, use it in a `with`."""
    made = Daemon(folder, ARGUMENTS, environment=environment)
    for name in ("tiny", "other"):
        gguf_builder.write(made.models / f"{name}.gguf")
    return made


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., Daemon]:
    """Return a maker of nodes of the test's own."""
    return lambda **environment: a_node(tmp_path, **environment)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Return a running node for tests that leave its models as they are: `tiny` is ready, `other` is not loaded."""
    with a_node(tmp_path_factory.mktemp("node")) as running:
        running.until_model("tiny", phase="ready")
        yield running


@pytest.fixture(scope="module")
def fake_mesh() -> Iterator[FakeMesh]:
    """Return a simulated mesh with requests, and with a node whose name is markup; tests leave n04 and others alive."""
    mesh = FakeMesh(free_port(), "--hostile")
    yield mesh
    mesh.close()
