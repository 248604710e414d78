"""What a person sees of a mesh of fifty nodes: the built page over the real management API and simulated nodes."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from scripts.console_speed import BusyNode, script_bytes
from scripts.fake_mesh_process import FakeMesh
from scripts.serve_fake_mesh import HOSTILE, ME
from tests.browser.test_console import WITHIN_MS, expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
PROMISE_MS = 40_000
AXE = Path(__file__).resolve().parents[2] / "console" / "node_modules" / "axe-core" / "axe.min.js"
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
    expect(card(page, HOSTILE)).to_be_visible()
    hosts = page.locator(".node").filter(has=page.get_by_role("button", name="chat-8b", exact=True))
    expect(hosts.nth(3)).to_be_visible(timeout=WITHIN_MS)
    wanted = hosts.count()

    page.get_by_label("Show hosts of").select_option("chat-8b")

    expect(page.locator(".node.hosting")).to_have_count(wanted)
    expect(page.locator(".mesh-map .spot.hosting")).to_have_count(wanted)
    assert 0 < wanted < page.locator(".node").count() == page.locator(".mesh-map .spot").count() > 50
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
    row = page.get_by_role("row").filter(has_text="giant-400b")
    expect(row).to_contain_text("does not fit now")
    row.locator("summary").click()
    expect(page.get_by_role("list", name="Fit of giant-400b")).to_contain_text("too large")
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
    expect(page.locator("details[open] .trace")).to_contain_text(re.compile(r"of \d+, by \w+"))
    expect(newest).to_contain_text(re.compile(r"\d tokens/s · [\d,]+ tokens · [\d,]+ of [\d,]+ prompt tokens cached"))
    assert complaints == []


def test_routing_is_changed_and_a_wrong_value_is_explained(
    page: "Page", complaints: list[str], fake_mesh: FakeMesh
) -> None:
    """The node says what is wrong; nothing of it is taken."""
    opened(page, fake_mesh, "settings")
    page.locator("[name=strategy]").select_option("random")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").filter(has_text="Saved: strategy.")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("form.settings")).to_contain_text(re.compile(r"mesh, version \d"), timeout=WITHIN_MS)

    page.locator("[name=max_load_threshold]").fill("7")
    page.get_by_role("button", name="Save").click()

    expect(page.get_by_role("alert")).to_contain_text("max_load_threshold", timeout=WITHIN_MS)
    assert all("400" in complaint for complaint in complaints), complaints


@pytest.mark.rows("CON-7")
def test_models_quotas_and_routing_are_edited(page: "Page", complaints: list[str], fake_mesh: FakeMesh) -> None:
    """By the orders that programs give too: a model is loaded, limited and unloaded, and two models are compared."""
    opened(page, fake_mesh, "models")
    page.get_by_label("Find").fill("tiny-135m")
    row = page.get_by_role("row").filter(has_text="tiny-135m")
    expect(row.get_by_role("button", name="Unload: tiny-135m")).to_be_visible(timeout=WITHIN_MS)
    expect(row.get_by_role("button", name="Drop: tiny-135m")).to_be_visible()

    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Quotas of").select_option("tiny-135m")
    limits = page.get_by_role("form", name="Limits")
    limits.locator("[name=hourly_token_limit]").fill("5000")
    limits.get_by_role("button", name="Save").click()
    expect(limits.get_by_role("status").filter(has_text="Saved: hourly_token_limit.")).to_be_visible(timeout=WITHIN_MS)
    expect(limits).to_contain_text(re.compile(r"version \d"))
    limits.locator("[name=hourly_token_limit]").fill("-1")
    limits.get_by_role("button", name="Save").click()
    expect(limits.get_by_role("alert")).to_contain_text("hourly_token_limit")
    routing = page.get_by_role("form", name="Routing")
    routing.locator("[name=ab_test_model_a]").fill("tiny-135m")
    routing.get_by_role("button", name="Save").click()

    expect(routing.get_by_role("status").filter(has_text="Saved: ab_test_model_a.")).to_be_visible(timeout=WITHIN_MS)
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


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: python console/build.py --check")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_has_a_serious_fault_for_people_with_other_senses(
    browser: "Browser", fake_mesh: FakeMesh, theme: Literal["light", "dark"]
) -> None:
    """As axe-core sees it: names, roles, contrast, order."""
    page = browser.new_context(viewport={"width": 1200, "height": 820}, color_scheme=theme).new_page()
    options = {"runOnly": ["wcag2a", "wcag2aa", "best-practice"], "resultTypes": ["violations"]}
    found: list[str] = []
    for name in PAGES:
        opened(page, fake_mesh, name)
        expect(page.locator("main > *").first).to_be_visible()
        if name == "mesh":
            page.evaluate(AXE.read_text())
            page.get_by_role("button", name="Make a token").click()
            page.get_by_role("button", name="Show the token").click()
        if name == "activity":
            page.get_by_label("Newest decisions").locator("summary").first.click()
            expect(page.locator("details[open] tbody tr").first).to_be_visible()
        seen = page.evaluate("options => axe.run(options)", options)
        assert seen["passes"], f"nothing was looked at on {name}"
        for fault in seen["violations"]:
            if fault["impact"] in {"serious", "critical"}:
                found += [f"{name}: {fault['id']}: {node['html'][:200]}" for node in fault["nodes"][:3]]

    page.context.close()
    assert found == []


def test_a_thousand_models_that_change_all_the_time_are_kept_up_with(page: "Page", complaints: list[str]) -> None:
    """Every change arrives, the last one is shown, and the whole script is small enough to be there at once.

    How smooth that is depends on the machine: scripts/console_speed.py measures it.
    """
    node = BusyNode(updates=120)
    try:
        page.goto(f"{node.url}#models")
        expect(page.get_by_role("row").filter(has_text="change-120")).to_be_visible(timeout=WITHIN_MS)
        expect(page.locator(".picker [role=status]")).to_have_text("1,000 models")
    finally:
        page.goto("about:blank")
        node.close()

    assert script_bytes() < 60_000
    assert complaints == []


def test_node_that_joins_is_shown_without_a_reload(page: "Page", fake_mesh: FakeMesh) -> None:
    """The page follows the mesh, not the clock of whoever looks."""
    opened(page, fake_mesh, "mesh")
    expect(card(page, "late")).to_have_count(0)

    fake_mesh.obey(f"start late via {ME} with tiny-135m ram=8")

    expect(card(page, "late")).to_contain_text("alive", timeout=WITHIN_MS)
