"""The words of docs/glossary.md, and what a finished tree doesn't contain."""

import ast
import re
import tokenize
from pathlib import Path

import pytest

from tests.house.tree import ROOT, TESTS, Module, modules

DRAWERS = ("utils", "util", "common", "helpers", "helper", "manager", "misc")
"""Names of drawers into which anything fits."""

DO_NOT_SAY = {
    "cluster": "mesh", "swarm": "mesh", "checkpoint": "model file", "popularity": "demand", "placement": "assignment",
    "leader": "host", "master": "host", "slave": "worker", "stickiness": "affinity",
    "sticky": "affinity", "backend": "engine", "peer info": "member",
}  # fmt: skip
"""Words that have a better one in the glossary. Those that also mean something else (pool, shard) are left out."""

SAID_BY_OTHERS: dict[tuple[str, str], str] = {
    **{
        (name, "backend"): "`RemoteBackend`, as the source documents call a server elsewhere"
        for name in ("core/remotes.py", "config.py", "config_models.py", "config_shown.py")
    },
    **{
        (name, "backend"): "the same type, where such servers are asked and served"
        for name in (
            "core/effects.py",
            "core/serving/adopted.py",
            "core/serving/lifecycle.py",
            "daemon/carry_out.py",
            "engine/endpoint.py",
        )
    },
    ("inventory/gguf.py", "master"): "the name of a branch, in the address of the specification",
}
"""(module, word): the reason why a forbidden word is somebody else's there."""

UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", r"raise NotImplemented" + "Error"]))
WAIT = re.compile(r"\bsl" + r"eep\((?!0\))")  # giving way to the loop is not waiting


def _words(module: Module) -> list[tuple[int, str]]:
    """Return (line, text) of names, comments and strings, with snake case and camel case taken apart."""
    found = []
    with tokenize.open(module.path) as source:
        for token in tokenize.generate_tokens(source.readline):
            if token.type in {tokenize.NAME, tokenize.COMMENT, tokenize.STRING}:
                apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", token.string).replace("_", " ").lower()
                found.append((token.start[0], apart))
    return found


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_module_speaks_the_glossary(module: Module) -> None:
    """Two words for one thing become two things in the reader's head."""
    wrong = [
        f"{module.name}:{line} says {word}: {better}"
        for line, text in _words(module)
        for word, better in DO_NOT_SAY.items()
        if re.search(rf"\b{word}s?\b", text) and (module.name, word) not in SAID_BY_OTHERS
    ]

    assert wrong == [], "\n".join(wrong)


def test_every_borrowed_word_is_still_used() -> None:
    """An exemption that nothing needs has to go."""
    by_name = {module.name: module for module in modules()}

    unused = [
        (name, word)
        for name, word in SAID_BY_OTHERS
        if name not in by_name or not any(re.search(rf"\b{word}s?\b", text) for _, text in _words(by_name[name]))
    ]

    assert unused == []


def test_no_drawers() -> None:
    """What goes into `utils` is never found again."""
    paths = [path for folder in ("meshllm", "tests", "scripts", "console/src") for path in (ROOT / folder).rglob("*")]
    named = [str(path) for path in paths if set(re.split(r"[_\W]", path.stem.lower())) & set(DRAWERS)]
    classes = [
        f"{module.name}: {node.name}"
        for module in modules()
        for node in ast.walk(module.syntax)
        if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Helper|Utils?)$", node.name)
    ]

    assert (named, classes) == ([], [])


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_module_has_a_head(module: Module) -> None:
    """Three sentences at the top save reading the rest: what it owns, decides, and doesn't know."""
    head = ast.get_docstring(module.syntax) or ""

    assert head.endswith((".", "`")) or "\n" in head
    assert len(head) >= (10 if module.is_entry else 25)


def _own_files() -> list[Path]:
    kinds = {".py", ".ts", ".tsx", ".css", ".toml", ".sh", ""}
    folders = ("meshllm", "tests", "scripts", "console/src", "console/tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in files if path.suffix in kinds and "static" not in path.parts and ".pyc" not in path.name]


def test_nothing_is_left_for_later() -> None:
    """Unfinished work is an issue, where somebody sees it."""
    files = _own_files()

    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]

    assert len(files) > 50
    assert found == [], "\n".join(found)


def test_no_test_waits_by_the_clock() -> None:
    """A test that guesses how long something takes is slow on a good day and wrong on a bad one."""
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in sorted(TESTS.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if WAIT.search(line)
    ]

    assert found == [], "\n".join(found)
