"""Sizes at which a reader loses the thread: 500 lines for a module, 60 for a function."""

from pathlib import Path

import pytest

from tests.house.tree import PACKAGE, ROOT, Module, functions, modules

MODULE_LINES = 500
FUNCTION_LINES = 60
CONSOLE_LINES = 300


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_module_and_its_functions_stay_small(module: Module) -> None:
    """Growth is divided when it happens, not when nobody dares any more."""
    lines = module.text.count("\n")
    long = [
        f"{function.name} has {(function.end_lineno or 0) - function.lineno + 1} lines"
        for function in functions(module.syntax)
        if (function.end_lineno or 0) - function.lineno + 1 > FUNCTION_LINES
    ]

    assert long == [], "\n".join(long)
    assert lines <= MODULE_LINES


def _console_files() -> list[Path]:
    sources = ROOT / "console"
    return [*sorted((sources / "src").rglob("*.*")), *sorted((sources / "tests").rglob("*.ts")), sources / "build.py"]


def test_console_files_stay_small() -> None:
    """A console grows into one file of seven thousand lines unless somebody says no."""
    files = _console_files()

    long = [str(file) for file in files if file.read_text(encoding="utf-8").count("\n") > CONSOLE_LINES]

    assert len(files) > 10
    assert long == [], "\n".join(long)


def test_package_has_no_folder_that_the_map_lacks() -> None:
    """A folder is a decision of architecture."""
    known = {
        "core", "wire", "transport", "discovery", "inventory", "engine", "proxy", "api", "daemon", "cli", "sdk",
        "testing",
    }  # fmt: skip

    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert folders - known == set()
