"""Pictures of the console's pages for docs/console.md: `python scripts/console_screenshots.py`, with a built console.

Drives an installed Chromium over the simulated mesh, where something has happened: a node is dead, requests arrive.
"""

import json
import socket
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from scripts.browser import browser_program
from scripts.fake_mesh_process import ROOT, FakeMesh

PICTURES = ROOT / "docs" / "console"
WAIT_MS = 30_000
ANSWER = """Two nodes are enough:

```sh
mesh-llm --model smollm2-135m
```

On the other machine, join with the token that the first one shows."""
TALK = {
    "id": "a", "isAnswering": False, "turns": [
        {"role": "user", "content": "How do I start a mesh?", "thought": "", "ended": ""},
        {"role": "assistant", "content": ANSWER, "thought": "A short answer will do.", "ended": "", "model": "chat-8b",
         "tokens": 31, "tokensPerS": 42.5, "firstMs": 180, "node": "n05", "routedBy": "least_loaded"},
    ],
}  # fmt: skip
"""What a person said once: nobody answers in a simulated mesh."""


def take(page: Page, mesh: FakeMesh, folder: Path) -> None:
    """Take every picture."""

    def show(name: str, waits_for: str) -> None:
        page.goto(f"{mesh.url}#{name}")
        page.wait_for_selector(waits_for)

    show("mesh", ".connection.live")
    mesh.obey("crash n03")
    page.wait_for_selector(".node.dead")
    page.get_by_label("Show hosts of").select_option("chat-8b")
    page.screenshot(path=folder / "mesh.png")
    page.get_by_role("link", name="Events").click()
    page.wait_for_selector("pre.log")
    page.screenshot(path=folder / "events.png")
    for name, waits_for in (
        ("models", "tbody tr"), ("activity", "details.decision"), ("settings", "form.settings"),
        ("connect", "article pre"), ("chat", "article.assistant"),
    ):  # fmt: skip
        if name == "chat":
            page.goto("about:blank")  # a page that is left keeps its own conversation
            talk = json.dumps(json.dumps({"open": TALK, "others": []}))
            page.add_init_script(f"localStorage.setItem('meshllm-conversation', {talk})")
        show(name, waits_for)
        page.wait_for_selector(".connection.live")
        if name == "activity":
            page.locator("details.decision summary").first.click()
        page.screenshot(path=folder / f"{name}.png")


def main() -> int:
    """Take the pictures anew. Return an exit status."""
    program = browser_program()
    if program is None:
        print("no Chromium is installed", file=sys.stderr)
        return 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    PICTURES.mkdir(exist_ok=True)
    mesh = FakeMesh(port)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program)
            page = browser.new_page(viewport={"width": 1200, "height": 820})
            page.set_default_timeout(WAIT_MS)
            take(page, mesh, PICTURES)
            browser.close()
    finally:
        mesh.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
