"""The console's files and their headers."""

from pathlib import Path

import pytest

from meshllm.api.console_files import ConsoleFiles
from tests.api.node import a_node


@pytest.fixture
def built(tmp_path: Path) -> ConsoleFiles:
    """Return a console of three files, beside one that is not its own."""
    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "assets" / "index-B1x9zQ_a.js").write_text("let x")
    (folder / "favicon.svg").write_text("<svg/>")
    (tmp_path / "secret").write_text("secret")
    return ConsoleFiles(folder)


async def test_page_has_a_strict_policy_and_is_looked_at_again(built: ConsoleFiles) -> None:
    """No inline script, no frame, no other origin."""
    async with a_node(console=built) as (_, client):
        answer = await client.get("/")

        assert answer.headers["Content-Type"] == "text/html"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_hashed_file_is_kept_for_ever(built: ConsoleFiles) -> None:
    """Its name changes when it does."""
    async with a_node(console=built) as (_, client):
        script = await client.get("/assets/index-B1x9zQ_a.js")
        icon = await client.get("/favicon.svg")

        assert "immutable" in script.headers["Cache-Control"]
        assert script.headers["Content-Type"] == "text/javascript"
        assert icon.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/../secret", "/%2e%2e/secret", "/assets/..%2f..%2fsecret", "/assets/", "/assets"])
async def test_nothing_else_is_served(built: ConsoleFiles, path: str) -> None:
    """Only what is in the table."""
    async with a_node(console=built) as (_, client):
        assert (await client.get(path)).status == 404


async def test_without_a_build_a_page_says_how(tmp_path: Path) -> None:
    """From source, the API works all the same."""
    async with a_node(console=ConsoleFiles(tmp_path / "none")) as (_, client):
        answer = await client.get("/")

        assert answer.status == 200
        assert "console/build.py" in await answer.text()
