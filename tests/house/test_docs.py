"""A document without a test becomes a rumour: whatever the program has, docs/ has too, and with a meaning."""

import ast
import dataclasses
import functools
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshllm.core import effects, events
from meshllm.core.engines import EngineState
from meshllm.core.serving.engine_state import TRANSITIONS
from tests.house.tree import ROOT

DOCS = ROOT / "docs"


@functools.cache
def generator() -> types.ModuleType:
    """Return scripts/generate_docs.py as a module."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module("generate_docs")
    finally:
        sys.path.pop(0)


def written(name: str) -> str:
    """Return a page as it stands in docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(generator().PAGES))
def test_generated_page_is_current(name: str) -> None:
    """Whoever changes the program runs scripts/docs."""
    assert written(name) == generator().page(name)


def all_commands() -> Iterator[tuple[str, typing.Any]]:
    """Return every visible command with its full name."""
    root = generator().root_command()
    context = root.make_context("mesh-llm", [], resilient_parsing=True)
    yield "mesh-llm", root
    for name, item in generator().subcommands(root, context):
        yield f"mesh-llm {name}", item
        for below, deeper in generator().subcommands(item, context):
            yield f"mesh-llm {name} {below}", deeper


def test_every_command_and_option_is_explained() -> None:
    """An option without a sentence is one that nobody dares to use."""
    page = written("commands.md")

    missing = [name for name, item in all_commands() if f"## `{name}`" not in page or not item.help]
    silent = [
        f"{name} {text}"
        for name, item in all_commands()
        for text, meaning, _ in generator().parameters(item)
        if not meaning or f"| {text} |" not in page
    ]

    assert (missing, silent) == ([], [])


def test_every_setting_is_explained() -> None:
    """A setting has a meaning, in the configuration page or in the help of its flag."""
    config = importlib.import_module("meshllm.config").Config
    page = written("configuration.md")

    rows = {row.split("|")[1].strip(): row.split("|") for row in page.splitlines() if row.startswith("| `")}
    names = [f"`{field.name}`" for field in dataclasses.fields(config)]

    assert [name for name in names if name not in rows] == []
    assert [name for name in names if not rows[name][5].strip()] == []


def test_every_route_is_documented() -> None:
    """A path that answers and isn't written down is an accident."""
    app, paths = importlib.import_module("meshllm.api.routes"), importlib.import_module("meshllm.proxy.paths")
    page = written("http.md")

    missing = [path for path in [*paths.INFERENCE, *(route.path for route in app.ROUTES)] if f"`{path}`" not in page]

    assert missing == []
    assert [route.path for route in app.ROUTES if len(route.summary) < 10] == []


@pytest.mark.parametrize("union", [events.Event, effects.Effect], ids=["events", "effects"])
def test_every_event_and_effect_is_documented(union: types.UnionType) -> None:
    """The two unions are the core's whole vocabulary; each word has its sentence."""
    page = written("events.md")

    members = typing.get_args(union)

    assert [item.__name__ for item in members if f"| `{item.__name__}` |" not in page] == []
    assert [item.__name__ for item in members if (inspect.getdoc(item) or "").startswith(item.__name__ + "(")] == []


def test_every_engine_state_is_in_the_diagram() -> None:
    """A state that no arrow reaches or leaves is a mistake in the table or in the page."""
    page = written("engine-states.md")

    arrows = set(re.findall(r"^    (\w+) --> (\w+):", page, re.MULTILINE))

    assert arrows == {(str(before), str(after)) for (before, _), after in TRANSITIONS.items()}
    assert {state for arrow in arrows for state in arrow} == {str(state) for state in EngineState}


def pages() -> list[Path]:
    """Return everything that people read."""
    return [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A dead link tells that nobody reads the page."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))

    dead = [target for target in targets if "://" not in target and not (page.parent / target).exists()]

    assert dead == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_a_page_names_exist(page: Path) -> None:
    """Decisions are history; every other page speaks of the tree as it is."""
    if page.parent.name == "decisions" or page.name == "CHANGELOG.md":
        return
    named = re.findall(r"`((?:meshllm|scripts|tests|console|docs)/[\w./-]+)`", page.read_text(encoding="utf-8"))

    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_limit_has_its_reason_or_says_itself() -> None:
    """The page of limits names each; those with a comment keep it."""
    page = written("limits.md")
    source = (ROOT / "meshllm" / "core" / "limits.py").read_text(encoding="utf-8")
    names = [
        node.target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]

    missing = [name for name in names if name not in {"KIB", "MIB", "GIB"} and f"| `{name}` |" not in page]

    assert len(names) > 20
    assert missing == []
