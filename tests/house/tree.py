"""The source tree as the house tests see it: modules, their syntax, what they import."""

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "meshllm"
TESTS = ROOT / "tests"
ENTRIES = {"__init__", "__main__"}


@dataclass(frozen=True, slots=True)
class Module:
    """One file of the package."""

    path: Path

    @property
    def name(self) -> str:
        """Return the path below the package, as people say it: `core/mesh.py`."""
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def folder(self) -> str:
        """Return the folder that the import rule speaks of; empty for modules beside the folders."""
        parts = self.path.relative_to(PACKAGE).parts
        return parts[0] if len(parts) > 1 else ""

    @property
    def is_entry(self) -> bool:
        """Tell whether it is `__init__` or `__main__`."""
        return self.path.stem in ENTRIES

    @property
    def text(self) -> str:
        """Return the source."""
        return self.path.read_text(encoding="utf-8")

    @property
    def syntax(self) -> ast.Module:
        """Return the parsed source."""
        return _parsed(self.path)

    def imports(self) -> list[tuple[int, str]]:
        """Return (line, full name) of everything imported, at any depth of the file."""
        found: list[tuple[int, str]] = []
        for node in ast.walk(self.syntax):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        return found


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules() -> list[Module]:
    """Return every module of the package."""
    return [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]


def functions(syntax: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return every function and method."""
    return [node for node in ast.walk(syntax) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
