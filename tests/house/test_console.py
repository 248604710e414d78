"""The console's own checks, and the promises that its built files keep."""

import gzip
import json
import re
import subprocess
import sys

import pytest

from tests.house.tree import ROOT

CONSOLE = ROOT / "console"
STATIC = ROOT / "meshllm" / "api" / "static"
DEPENDENCIES = 6
SCRIPT_BYTES = 60_000
"""Of all scripts together, compressed: a page that opens at once on a phone."""
LINES = 300


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_types_and_tests_of_the_console_pass() -> None:
    """TypeScript is checked by the same run as Python: one verdict for the tree."""
    run = subprocess.run(
        [sys.executable, str(CONSOLE / "build.py"), "--check"], capture_output=True, text=True, timeout=380, check=False
    )

    assert run.returncode == 0, run.stdout + run.stderr


def test_console_has_few_dependencies() -> None:
    """Six direct dependencies at most; the next one has to be worth more than what it replaces."""
    package = json.loads((CONSOLE / "package.json").read_text(encoding="utf-8"))

    assert 0 < len(package["dependencies"] | package["devDependencies"]) <= DEPENDENCIES


def test_lock_file_names_no_host() -> None:
    """Versions and digests are enough; where they come from is a setting of the machine."""
    lock = json.loads((CONSOLE / "package-lock.json").read_text(encoding="utf-8"))

    packages = {name: entry for name, entry in lock["packages"].items() if name}

    assert [name for name, entry in packages.items() if "resolved" in entry] == []
    assert [name for name, entry in packages.items() if not entry.get("integrity")] == []


def test_built_page_keeps_the_content_security_policy() -> None:
    """No inline script or style, nothing from another host, every address relative and hashed."""
    page = (STATIC / "index.html").read_text(encoding="utf-8")

    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)

    assert addresses
    assert [address for address in addresses if not re.fullmatch(r"\./assets/[\w-]+-[\w-]{8}\.\w+", address)] == []
    assert re.findall(r"<style|<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=", page) == []


def test_built_files_speak_to_no_other_host() -> None:
    """The console works without a network; the only addresses in it are names of namespaces."""
    found = {
        address
        for file in STATIC.rglob("*.*")
        for address in re.findall(r"https?://[^\s\"'`)<>]+", file.read_text(encoding="utf-8"))
    }

    assert {
        address for address in found if not address.startswith(("http://www.w3.org/", "https://www.w3.org/"))
    } == set()


def test_scripts_are_small() -> None:
    """What a browser has to fetch and read before it shows anything."""
    assert 0 < sum(len(gzip.compress(file.read_bytes())) for file in STATIC.rglob("*.js")) < SCRIPT_BYTES


def test_files_of_the_console_are_short() -> None:
    """A console grows until somebody divides it."""
    sources = [file for file in (CONSOLE / "src").rglob("*.*") if file.suffix in {".ts", ".tsx", ".css"}]

    assert [file.name for file in sources if len(file.read_text(encoding="utf-8").splitlines()) > LINES] == []
