"""Make docs/acceptance.md: which rows of scripts/acceptance_rows.toml are shown, and by which tests.

Owns how marks are found: `@pytest.mark.rows("LIF-1")` in Python, read without running anything, and comments
`// rows: CON-1` above a console test. Decides what is wrong with a mark: an unknown row, a row that is no plain
string, a mark on what is no test. Doesn't know whether a test really shows its row, nor whether it passes: people and
CI do.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "scripts" / "acceptance_rows.toml"
PYTHON_TESTS = ("tests",)
CONSOLE_TESTS = ("console/tests",)
NOT_DONE = "not done"

_TEXT_MARK = re.compile(r"^\s*//\s*rows:\s*(?P<rows>.+?)\s*$")
_CONSOLE_TEST = re.compile(r"^\s*(?:test|it)(?:\.\w+)?\s*\(.*?(?P<quote>[\"'`])(?P<title>.+?)(?P=quote)\s*,")


class RowsError(ValueError):
    """Marks or rows make no sense; the text has one complaint a line."""


@dataclass(frozen=True, slots=True)
class Section:
    """A group of rows under one title: feature by id, in the order of the file."""

    title: str
    rows: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mark:
    """A claim that a test shows a row. `test` is empty where the mark stands on no test."""

    row: str
    file: str
    line: int
    test: str

    @property
    def shown_by(self) -> str:
        """Return the test as pytest takes it."""
        return f"{self.file}::{self.test}"


def sections(file: Path = ROWS) -> tuple[Section, ...]:
    """Return the rows, by section. Raises RowsError when an id stands in two sections."""
    found = tuple(
        Section(one["title"], one["rows"]) for one in tomllib.loads(file.read_text(encoding="utf-8"))["section"]
    )
    ids = [row for section in found for row in section.rows]
    twice = sorted({row for row in ids if ids.count(row) > 1})
    if twice:
        raise RowsError("\n".join(f"{file.name}: {row} stands in two sections" for row in twice))
    return found


# -- marks ------------------------------------------------------------------------------------------------------------


def marks(root: Path = ROOT) -> tuple[Mark, ...]:
    """Return every mark of the tests below a checkout, by file and line."""
    found: list[Mark] = []
    for folder in PYTHON_TESTS:
        for path in sorted((root / folder).rglob("*.py")):
            found += python_marks(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix())
    for folder in CONSOLE_TESTS:
        for path in sorted((root / folder).rglob("*.test.ts*")):
            found += console_marks(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix())
    return tuple(found)


def python_marks(source: str, file: str) -> list[Mark]:
    """Return the marks in a Python file: of functions, classes, one parameter, or a whole file (`pytestmark`)."""
    syntax = ast.parse(source)
    found, attributed = [], set()
    for holder, tests in _holders(syntax):
        for call in _calls(holder):
            attributed.add(call)
            found += [Mark(row, file, call.lineno, test) for test in tests for row in _rows(call)]
    stray = [call for call in _calls([syntax]) if call not in attributed]
    found += [Mark(row, file, call.lineno, "") for call in stray for row in _rows(call)]
    return sorted(found, key=lambda mark: mark.line)


def _holders(syntax: ast.Module) -> Iterator[tuple[Sequence[ast.AST], list[str]]]:
    """Yield (where marks may stand, the tests that these are for)."""
    everything: list[str] = []
    for node in syntax.body:
        if _is_test(node):
            everything.append(node.name)
            yield node.decorator_list, [node.name]
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            methods = [item for item in node.body if _is_test(item)]
            names = [f"{node.name}::{item.name}" for item in methods]
            everything += names
            yield node.decorator_list, names
            yield from ((item.decorator_list, [name]) for item, name in zip(methods, names, strict=True))
    for node in syntax.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "pytestmark" for target in node.targets):
            yield [node.value], everything


def _is_test(node: ast.stmt) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")


def _calls(nodes: Sequence[ast.AST]) -> list[ast.Call]:
    """Return the calls of `pytest.mark.rows` below some nodes."""
    return [
        node
        for top in nodes
        for node in ast.walk(top)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.rows"
    ]


def _rows(call: ast.Call) -> list[str]:
    """Return what a mark names; what is no plain string comes back as its source, which is no row."""
    named = [
        one.value if isinstance(one, ast.Constant) and isinstance(one.value, str) else ast.unparse(one)
        for one in call.args
    ]
    return [*named, *(f"{one.arg}={ast.unparse(one.value)}" for one in call.keywords)] or [""]


def console_marks(source: str, file: str) -> list[Mark]:
    """Return the marks in a console test: comments that stand above it."""
    found: list[Mark] = []
    waiting: list[tuple[str, int]] = []
    for number, line in enumerate(source.splitlines(), 1):
        mark, test = _TEXT_MARK.match(line), _CONSOLE_TEST.match(line)
        if mark:
            waiting += [(row.strip(), number) for row in mark["rows"].split(",")]
        elif waiting and line.strip():
            title = test["title"] if test else ""
            found += [Mark(row, file, at, title) for row, at in waiting]
            waiting = []
    return found + [Mark(row, file, at, "") for row, at in waiting]


def complaints(found: Sequence[Mark], known: Sequence[Section]) -> list[str]:
    """Return what is wrong with marks, with file and line."""
    ids = {row for section in known for row in section.rows}
    unknown = [f"{mark.file}:{mark.line}: no row {mark.row!r}" for mark in found if mark.row not in ids]
    idle = [f"{mark.file}:{mark.line}: {mark.row} marks no test" for mark in found if not mark.test]
    return unknown + idle


# -- the page ---------------------------------------------------------------------------------------------------------


def page(found: Sequence[Mark], known: Sequence[Section]) -> str:
    """Return the page without its first line. Raises RowsError when a mark is wrong."""
    wrong = complaints(found, known)
    if wrong:
        raise RowsError("\n".join(wrong))
    shown: dict[str, list[str]] = {}
    for mark in found:
        if mark.shown_by not in shown.setdefault(mark.row, []):
            shown[mark.row].append(mark.shown_by)
    return "\n".join([
        "# Acceptance\n",
        (
            "What the daemon has to show, row by row, and the tests that show it. A row without a test is not done, "
            'whatever the program does. A test says what it shows: `@pytest.mark.rows("LIF-1")`.\n'
        ),
        _counts(known, shown),
        *(_section(section, shown) for section in known),
    ])  # fmt: skip


def _counts(known: Sequence[Section], shown: Mapping[str, Sequence[str]]) -> str:
    lines = ["| section | rows | shown | not done |", "| --- | ---: | ---: | ---: |"]
    totals = [0, 0]
    for section in known:
        done = sum(row in shown for row in section.rows)
        lines.append(f"| {section.title} | {len(section.rows)} | {done} | {len(section.rows) - done} |")
        totals = [totals[0] + len(section.rows), totals[1] + done]
    lines.append(f"| all | {totals[0]} | {totals[1]} | {totals[0] - totals[1]} |")
    return "\n".join(lines) + "\n"


def _section(section: Section, shown: Mapping[str, Sequence[str]]) -> str:
    lines = [f"## {section.title}\n", "| row | feature | shown by |", "| --- | --- | --- |"]
    for row, feature in section.rows.items():
        tests = "<br>".join(f"`{test}`" for test in sorted(shown.get(row, ()))) or NOT_DONE
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (row, feature, tests)) + " |")
    return "\n".join(lines) + "\n"


def acceptance() -> str:
    """Return the page for this checkout. Raises RowsError."""
    return page(marks(), sections())
