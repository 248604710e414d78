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
WITHIN_MS = 30_000


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


def order(page: "Page", model: str, words: str) -> None:
    """Press a button that asks back, and mean it."""
    page.get_by_role("button", name=f"{words}: {model}", exact=True).click()
    page.get_by_role("group", name=f"{words}: {model}?").get_by_role("button", name=words).click()


def edit(form: "Locator", name: str, value: str) -> None:
    """Write a value into a form of the settings, and save it."""
    form.locator(f"[name={name}]").fill(value)
    form.get_by_role("button", name="Save").click()


def opened(page: "Page", node: Daemon, fragment: str = "#models") -> None:
    """Open the console and wait until it hears of its node."""
    page.goto(f"http://127.0.0.1:{node.port}/{fragment}")
    expect(page.locator(".connection")).to_have_text("live", timeout=WITHIN_MS)


def test_page_shows_the_models_and_where_each_is(page: "Page", complaints: list[str], daemon: Daemon) -> None:
    """The first look: which node this is and what it can answer with."""
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


@pytest.mark.rows("CON-7")
def test_models_are_ordered_about_and_quotas_routing_and_a_comparison_are_edited(
    page: "Page", complaints: list[str], node: Maker
) -> None:
    """The page tells what really happened, not what was clicked."""
    with node() as daemon:
        daemon.until_model("tiny", phase="ready")
        opened(page, daemon)

        page.get_by_role("button", name="Unload: tiny").click()
        page.get_by_role("button", name="Leave it").click()
        assert daemon.model("tiny")["phase"] == "ready"
        order(page, "tiny", "Unload")
        shows(page, "tiny", "unloaded")
        assert daemon.model("tiny")["phase"] == "unloaded"
        page.get_by_role("button", name="Load: tiny", exact=True).click()
        shows(page, "tiny", "ready")
        assert daemon.model("tiny")["phase"] == "ready"

        for words, is_pinned in (("Pin", True), ("Unpin", False)):
            page.get_by_role("button", name=f"{words}: tiny", exact=True).click()
            expect(row_of(page, "tiny").get_by_text("pinned", exact=True)).to_have_count(int(is_pinned))
            assert daemon.model("tiny")["pinned"] is is_pinned

        order(page, "tiny", "Hold")
        shows(page, "tiny", "held")
        page.get_by_role("button", name="Load: tiny", exact=True).click()
        shows(page, "tiny", "ready")
        order(page, "tiny", "Drop")
        shows(page, "tiny", "dropped")

        assert daemon.model("tiny")["phase"] == "dropped"

        page.get_by_role("link", name="Settings").click()
        page.get_by_label("Quotas of").select_option("other")
        limits = page.get_by_role("form", name="Limits")
        edit(limits, "hourly_token_limit", "5000")
        expect(limits.get_by_role("status").filter(has_text="Saved: hourly_token_limit.")).to_be_visible()
        expect(limits.locator(".meter").filter(has_text="hourly tokens")).to_contain_text("0 of 5,000")
        routing = page.get_by_role("form", name="Routing")
        routing.locator("[name=strategy]").select_option("random")
        edit(routing, "ab_test_model_a", "other")
        expect(routing.get_by_role("status").filter(has_text="Saved: ")).to_be_visible()

        config = daemon.get("/routing/config")
        assert daemon.get("/quotas/other")["quotas"]["hourly_token_limit"] == 5000
        assert (config["strategy"], config["ab_test_model_a"]) == ("random", "other")
        assert complaints == []

        edit(limits, "hourly_token_limit", "-1")
        expect(limits.get_by_role("alert")).to_contain_text("hourly_token_limit")
        assert all("400" in complaint for complaint in complaints), complaints


def test_chat_shows_the_answer_as_it_comes(page: "Page", complaints: list[str], daemon: Daemon) -> None:
    """Words appear while the model goes on, and stay when it has ended."""
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
        answer = page.goto(f"http://127.0.0.1:{daemon.port}/#models")
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


@pytest.mark.rows("SEC-2")
def test_page_asks_for_the_admin_key_once_something_is_refused(page: "Page", node: Maker) -> None:
    """Looking is open; the key then opens what was refused."""
    with node(MESH_LLM_ADMIN_KEY="for-admins") as daemon:
        page.goto(f"http://127.0.0.1:{daemon.port}/#models")
        shows(page, "other", "unloaded")
        page.get_by_role("button", name="Load: other", exact=True).click()
        page.get_by_label("API key").fill("for-admins")
        page.get_by_role("button", name="Open the console").click()

        shows(page, "other", "unloaded")
        page.get_by_role("button", name="Load: other", exact=True).click()
        shows(page, "other", "ready")


def said(page: "Page", text: str) -> None:
    """Say something and wait for the whole answer."""
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("article.user").last).to_have_text(text)
    answered(page)


def answered(page: "Page") -> None:
    """Wait until the newest answer has ended."""
    expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("article.assistant[aria-busy=false]").last).to_contain_text("tokens", timeout=WITHIN_MS)


def test_answer_says_who_gave_it_and_questions_are_asked_otherwise(
    page: "Page", complaints: list[str], daemon: Daemon
) -> None:
    """The host, the rule and the pace stand below it; what followed an edited question is gone."""
    opened(page, daemon, "#chat")
    said(page, "count for me")
    page.get_by_role("button", name="Answer again").click()
    answered(page)
    said(page, "and again")
    footer = page.locator("article.assistant footer").first
    expect(footer).to_contain_text(re.compile(r"tiny · from \S+.* · by \S+ · first word after .* tokens"))

    page.get_by_role("button", name="Edit").first.click()
    page.get_by_label("Edited message").fill("count once more")
    page.get_by_role("button", name="Ask this instead").click()
    answered(page)

    expect(page.locator("article.user")).to_have_text(["count once more"])
    assert complaints == []


def test_conversations_survive_a_reload_and_are_exported(page: "Page", complaints: list[str], daemon: Daemon) -> None:
    """A person comes back to any of them, and takes one along as a file."""
    opened(page, daemon, "#chat")
    said(page, "the first one")
    page.get_by_role("button", name="New", exact=True).click()
    said(page, "the second one")
    page.reload()
    expect(page.locator("article.user")).to_have_text("the second one", timeout=WITHIN_MS)

    page.locator(".picker").filter(has_text="Conversation").locator("select").select_option(label="the first one")
    expect(page.locator("article.user")).to_have_text("the first one")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    text = download.value.path().read_text()
    page.get_by_role("button", name="Delete").click()

    expect(page.locator("article.user")).to_have_text("the second one")
    assert download.value.suggested_filename == "the-first-one.md"
    assert text.startswith("# the first one\n")
    assert complaints == []


@pytest.mark.rows("CON-2", "EXP-7")
def test_picker_has_warm_and_cold_models_and_names_that_always_work(
    page: "Page", complaints: list[str], daemon: Daemon
) -> None:
    """A person sees before asking which model has to be loaded first."""
    opened(page, daemon, "#chat")

    picker = page.get_by_label("Model")
    expect(picker.locator("optgroup")).to_have_count(3)
    expect(picker.locator("optgroup").nth(0).locator("option")).to_have_text(["default", "auto"])
    expect(picker.locator("optgroup").nth(1).locator("option")).to_have_text(["tiny"])
    expect(picker.locator("optgroup").nth(2).locator("option")).to_have_text(["other"])
    picker.select_option("auto")
    page.get_by_label("Message").fill("count for me")
    page.get_by_role("button", name="Send").click()

    expect(page.locator("article.assistant footer")).to_contain_text("tiny · from", timeout=WITHIN_MS)
    assert complaints == []


def test_node_alone_is_shown_and_others_are_invited(page: "Page", complaints: list[str], daemon: Daemon) -> None:
    """The token is made when asked for, and shown when asked for once more."""
    opened(page, daemon, "")

    card = page.get_by_role("list", name="Nodes").locator(".node")
    expect(card).to_have_count(1)
    expect(card).to_contain_text("this node")
    expect(card.get_by_role("button", name="tiny")).to_be_visible()
    page.get_by_role("button", name="Make a token").click()
    command = page.locator("pre.command")
    expect(command).to_have_text(re.compile("mesh-llm --join \u2022+$"))
    page.get_by_role("button", name="Show the token").click()

    expect(command).to_have_text(re.compile(r"mesh-llm --join \S{40,}$"))
    expect(page.get_by_role("img", name="The join command as a QR code")).to_be_visible()
    assert daemon.request("GET", "/api/tokens").json["tokens"]
    assert complaints == []
