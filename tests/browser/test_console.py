"""What a person sees and does in the console: the built page in a real browser, against a real daemon."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.daemons import Daemon

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser
Maker = Callable[..., Daemon]
WITHIN_MS = 10_000


def expect(locator: "Locator") -> Any:
    """Return Playwright's patient assertions, imported where a browser is there."""
    from playwright.sync_api import expect  # noqa: PLC0415 - the module has to be collected without it

    return expect(locator)


def row_of(page: "Page", model: str) -> "Locator":
    """Return a model's row of the table."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=model))


def shows(page: "Page", model: str, phase: str) -> None:
    """Wait until the page says where a model is."""
    expect(row_of(page, model).locator(".badge")).to_have_text(phase, timeout=WITHIN_MS)


def opened(page: "Page", node: Daemon, fragment: str = "") -> None:
    """Open the console and wait until it hears of its node."""
    page.goto(f"http://127.0.0.1:{node.port}/{fragment}")
    expect(page.locator(".connection")).to_have_text("live", timeout=WITHIN_MS)


def test_page_shows_the_models_and_where_each_is(page: "Page", complaints: list[str], node: Maker) -> None:
    """The first look: which node this is and what it can answer with."""
    with node() as daemon:
        daemon.until_model("tiny", phase="ready")
        opened(page, daemon)

        shows(page, "tiny", "ready")
        shows(page, "other", "unloaded")
        expect(page.locator("header")).to_contain_text(f"127.0.0.1:{daemon.port}")
        assert complaints == []


def test_models_that_come_are_seen_without_a_reload(page: "Page", complaints: list[str], node: Maker) -> None:
    """The page lives: it follows the node's events."""
    with node() as daemon:
        opened(page, daemon)
        expect(row_of(page, "later")).to_have_count(0)

        (daemon.models / "later.gguf").write_bytes((daemon.models / "tiny.gguf").read_bytes())
        daemon.request("POST", "/v1/models/rescan", {})

        shows(page, "later", "unloaded")
        assert complaints == []


def test_model_is_unloaded_and_loaded_by_its_button(page: "Page", complaints: list[str], node: Maker) -> None:
    """The page tells what really happened, not what was clicked."""
    with node() as daemon:
        daemon.until_model("tiny", phase="ready")
        opened(page, daemon)

        page.get_by_role("button", name="Unload: tiny").click()
        shows(page, "tiny", "unloaded")
        assert daemon.model("tiny")["phase"] == "unloaded"
        page.get_by_role("button", name="Load: tiny", exact=True).click()
        shows(page, "tiny", "ready")

        assert daemon.model("tiny")["phase"] == "ready"
        assert complaints == []


def test_chat_shows_the_answer_as_it_comes(page: "Page", complaints: list[str], node: Maker) -> None:
    """Words appear while the model goes on, and stay when it has ended."""
    with node() as daemon:
        daemon.until_model("tiny", phase="ready")
        opened(page, daemon, "#chat")
        page.get_by_label("Message").fill("count for me")
        page.get_by_role("button", name="Send").click()

        answer = page.locator("article.assistant")
        expect(page.locator("article.assistant[aria-busy=true]")).to_contain_text("0 1 2", timeout=WITHIN_MS)
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        expect(page.locator("article.assistant[aria-busy=false]")).to_have_count(1, timeout=WITHIN_MS)

        expect(answer).to_contain_text(re.compile(r"0 1 2 3 4.*tokens"))
        expect(page.get_by_role("log").locator("article.user")).to_have_text("count for me")
        assert complaints == []


def test_page_asks_for_the_key_and_opens_with_it(page: "Page", complaints: list[str], node: Maker) -> None:
    """The page itself is no secret; what it shows is. A wrong key leads back to the form."""
    with node(MESH_LLM_API_KEY="open-sesame") as daemon:
        answer = page.goto(f"http://127.0.0.1:{daemon.port}/")
        assert answer is not None
        assert answer.status == 200
        field = page.get_by_label("API key")
        for key in ("wrong", "open-sesame"):
            expect(page.locator(".connection")).to_have_text("needs an API key", timeout=WITHIN_MS)
            field.fill(key)
            page.get_by_role("button", name="Open the console").click()

        shows(page, "other", "unloaded")
        expect(page.locator(".connection")).to_have_text("live")
        assert all("401" in complaint for complaint in complaints), complaints


def test_nodes_of_the_mesh_are_shown(page: "Page", complaints: list[str], node: Maker) -> None:
    """A node alone is told how others join."""
    with node() as daemon:
        daemon.until_model("tiny", phase="ready")
        opened(page, daemon, "#nodes")

        table = page.get_by_role("region", name="Nodes")
        expect(table.locator("tbody tr")).to_have_count(1)
        expect(table).to_contain_text("this node")
        expect(table).to_contain_text("tiny")
        expect(page.locator("main")).to_contain_text("mesh-llm token")
        assert complaints == []
