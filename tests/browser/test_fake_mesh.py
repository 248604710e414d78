"""What a person sees of a mesh of fifty nodes: the built page over the real management API and simulated nodes."""

from typing import TYPE_CHECKING

import pytest

from scripts.fake_mesh_process import FakeMesh
from scripts.serve_fake_mesh import HOSTILE, ME
from tests.browser.test_console import WITHIN_MS, expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
PROMISE_MS = 40_000
PAGES = ("mesh", "models", "chat", "activity", "events", "connect", "settings")


def opened(page: "Page", mesh: FakeMesh, fragment: str) -> None:
    """Open a page of the console and wait until it hears of its node."""
    page.goto(f"{mesh.url}#{fragment}")
    expect(page.locator(".connection")).to_have_text("live", timeout=WITHIN_MS)


def card(page: "Page", node: str) -> "Locator":
    """Return a node's card."""
    return page.get_by_role("list", name="Nodes").get_by_label(node, exact=True)


@pytest.mark.rows("CON-3", "CON-4", "CON-5")
def test_choosing_a_model_highlights_its_hosts(page: "Page", complaints: list[str], fake_mesh: FakeMesh) -> None:
    """All of them, and nobody else."""
    opened(page, fake_mesh, "mesh")
    expect(page.locator(".node")).to_have_count(51)
    hosts = page.locator(".node").filter(has=page.get_by_role("button", name="chat-8b", exact=True))
    expect(hosts.nth(3)).to_be_visible(timeout=WITHIN_MS)
    wanted = hosts.count()

    page.get_by_label("Show hosts of").select_option("chat-8b")

    expect(page.locator(".node.hosting")).to_have_count(wanted)
    assert 0 < wanted < 51
    expect(page.get_by_label("Mesh", exact=True)).to_contain_text("VRAM of")
    assert complaints == []


@pytest.mark.rows("CON-6")
def test_node_that_dies_turns_grey_and_comes_back(page: "Page", complaints: list[str], fake_mesh: FakeMesh) -> None:
    """Within the promise, with the reason and what to do; both are told among the events."""
    opened(page, fake_mesh, "mesh")
    expect(card(page, "n03").locator(".badge")).to_have_text("alive")

    fake_mesh.obey("crash n03")
    expect(card(page, "n03").locator(".badge.quiet")).to_have_text("dead", timeout=PROMISE_MS)
    expect(card(page, "n03").locator(".remedy")).to_contain_text("Look whether that machine is on")
    fake_mesh.obey("restart n03")
    expect(card(page, "n03").locator(".badge.good")).to_have_text("alive", timeout=PROMISE_MS)

    page.get_by_role("link", name="Events").click()
    events = page.get_by_role("list", name="Events")
    expect(events).to_contain_text("n03 is dead")
    expect(events).to_contain_text("n03 is back")
    expect(page.locator("pre.log")).to_contain_text("member is dead", timeout=WITHIN_MS)
    assert complaints == []


def test_name_that_is_markup_is_text(page: "Page", complaints: list[str], fake_mesh: FakeMesh) -> None:
    """A stranger's name runs nothing and loads nothing, on any page that shows it."""
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    opened(page, fake_mesh, "mesh")

    expect(card(page, HOSTILE).locator("h2")).to_contain_text(HOSTILE)
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("region", name="Models")).to_contain_text("tiny-135m")

    assert page.locator("img").count() == 0
    assert dialogs == complaints == []


def test_a_model_that_fits_nowhere_says_so_when_it_is_ordered(
    page: "Page", complaints: list[str], fake_mesh: FakeMesh
) -> None:
    """In the words and bytes of the node."""
    opened(page, fake_mesh, "models")
    page.get_by_label("Find").fill("giant")
    page.get_by_role("button", name="Load: giant-400b").click()

    expect(page.get_by_role("alert")).to_contain_text("needs", timeout=WITHIN_MS)
    expect(page.get_by_role("row").filter(has_text="giant-400b")).to_contain_text("does not fit now")
    assert all("503" in complaint for complaint in complaints), complaints


def test_activity_shows_why_a_request_went_where_it_went(
    page: "Page", complaints: list[str], fake_mesh: FakeMesh
) -> None:
    """With every candidate and its score."""
    opened(page, fake_mesh, "activity")
    newest = page.get_by_label("Newest decisions").locator("details").first
    expect(newest).to_contain_text("chat-8b", timeout=PROMISE_MS)
    page.locator(".numbers").get_by_text("Requests").wait_for()

    newest.locator("summary").click()

    expect(page.locator("details[open] tbody tr").first).to_be_visible()
    assert complaints == []


def test_routing_is_changed_and_a_wrong_value_is_explained(
    page: "Page", complaints: list[str], fake_mesh: FakeMesh
) -> None:
    """The node says what is wrong; nothing of it is taken."""
    opened(page, fake_mesh, "settings")
    page.locator("[name=strategy]").select_option("random")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").filter(has_text="Saved: strategy.")).to_be_visible()
    expect(page.locator("form.settings")).to_contain_text("version 1")

    page.locator("[name=max_load_threshold]").fill("7")
    page.get_by_role("button", name="Save").click()

    expect(page.get_by_role("alert")).to_contain_text("max_load_threshold")
    assert all("400" in complaint for complaint in complaints), complaints


def test_every_page_fits_a_phone_in_the_dark(browser: "Browser", fake_mesh: FakeMesh) -> None:
    """Nothing is wider than the screen, the paper is dark, and nothing complains."""
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    for name in PAGES:
        opened(page, fake_mesh, name)
        expect(page.get_by_role("navigation").get_by_role("link", name=name.title())).to_have_attribute(
            "aria-current", "page"
        )
        expect(page.locator("main > *").first).to_be_visible()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{name} is {width} pixels wide"

    red, *_ = page.evaluate("getComputedStyle(document.documentElement).backgroundColor.match(/[0-9]+/g).map(Number)")
    context.close()
    assert red < 60
    assert found == []


def test_node_that_joins_is_shown_without_a_reload(page: "Page", fake_mesh: FakeMesh) -> None:
    """The page follows the mesh, not the clock of whoever looks."""
    opened(page, fake_mesh, "mesh")
    expect(card(page, "late")).to_have_count(0)

    fake_mesh.obey(f"start late via {ME} with tiny-135m ram=8")

    expect(card(page, "late")).to_contain_text("alive", timeout=WITHIN_MS)
