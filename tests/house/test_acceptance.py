"""docs/acceptance.md: every mark is found, wrong ones are told, and the page counts right."""

from pathlib import Path

import pytest

from scripts.acceptance_page import (
    Mark,
    RowsError,
    Section,
    complaints,
    console_marks,
    marks,
    page,
    python_marks,
    sections,
)
from tests.house.tree import ROOT

MARKED = """
import pytest

@pytest.mark.rows("A-1", "A-2")
async def test_one():
    pass

@pytest.mark.rows("A-3")
class TestGroup:
    @pytest.mark.slow
    @pytest.mark.rows("B-1")
    def test_inner(self):
        pass

@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.rows("B-2"))])
def test_two(x):
    pass
"""
KNOWN = (Section("First", {"A-1": "one | other", "A-2": "two"}), Section("Second", {"B-1": "three"}))


def test_marks_are_found_wherever_pytest_takes_them() -> None:
    """On a function, on a class for all of it, and on one parameter."""
    found = python_marks(MARKED, "tests/test_x.py")

    assert [(mark.row, mark.test, mark.line) for mark in found] == [
        ("A-1", "test_one", 4), ("A-2", "test_one", 4), ("A-3", "TestGroup::test_inner", 8),
        ("B-1", "TestGroup::test_inner", 11), ("B-2", "test_two", 15),
    ]  # fmt: skip


def test_mark_of_a_whole_file_counts_for_each_of_its_tests() -> None:
    """One line for a file that is about one row."""
    source = 'pytestmark = [pytest.mark.e2e, pytest.mark.rows("A-1")]\ndef test_x(): ...\ndef test_y(): ...\n'

    assert [mark.test for mark in python_marks(source, "tests/test_x.py")] == ["test_x", "test_y"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('@pytest.mark.rows("Z-9")\ndef test_x(): ...\n', "tests/f.py:1: no row 'Z-9'"),
        ("@pytest.mark.rows(NAME)\ndef test_x(): ...\n", "tests/f.py:1: no row 'NAME'"),
        ("@pytest.mark.rows()\ndef test_x(): ...\n", "tests/f.py:1: no row ''"),
        ('@pytest.mark.rows("A-1")\ndef builder(): ...\n', "tests/f.py:1: A-1 marks no test"),
    ],
    ids=["unknown row", "a name in place of a string", "nothing", "no test"],
)
def test_mark_that_makes_no_sense_is_told_with_its_place(source: str, words: str) -> None:
    """A slip of the pen would leave a row undone, and nobody would see why."""
    found = python_marks(source, "tests/f.py")

    assert complaints(found, KNOWN) == [words]
    with pytest.raises(RowsError, match=r"tests/f\.py:1"):
        page(found, KNOWN)


def test_console_tests_are_marked_by_a_comment() -> None:
    """They have no marks of pytest's."""
    source = '// rows: A-1, B-1\n\ntest("a model is (un)loaded", () => {\n});\n\ntest("other", () => {});\n'
    lost = "// rows: A-2\nconst x = 1;\n"

    found = console_marks(source + lost, "console/tests/a.test.ts")

    assert [(mark.row, mark.test) for mark in found] == [
        ("A-1", "a model is (un)loaded"), ("B-1", "a model is (un)loaded"), ("A-2", ""),
    ]  # fmt: skip


def test_page_counts_and_names_tests() -> None:
    """A row that two tests show is one row; one that none shows says so."""
    found = [Mark("A-1", "tests/b.py", 3, "test_b"), Mark("A-1", "tests/a.py", 1, "test_a")]

    text = page([*found, found[0]], KNOWN)

    assert "| First | 2 | 1 | 1 |" in text
    assert "| Second | 1 | 0 | 1 |" in text
    assert "| all | 3 | 1 | 2 |" in text
    assert "| A-1 | one \\| other | `tests/a.py::test_a`<br>`tests/b.py::test_b` |" in text
    assert "| A-2 | two | not done |" in text


def test_row_stands_in_one_section(tmp_path: Path) -> None:
    """Two features under one id would both be shown by half of their tests."""
    file = tmp_path / "rows.toml"
    file.write_text('[[section]]\ntitle = "a"\nrows = {A-1 = "x"}\n[[section]]\ntitle = "b"\nrows = {A-1 = "y"}\n')

    with pytest.raises(RowsError, match="A-1 stands in two sections"):
        sections(file)


def test_marks_of_this_checkout_name_rows_and_tests() -> None:
    """What `scripts/docs --check` says in CI, with the places."""
    found = marks(ROOT)

    assert complaints(found, sections()) == []
    assert len({mark.row for mark in found}) > 30
