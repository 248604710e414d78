"""The import rule of docs/architecture.md as a positive list: whatever it doesn't name is forbidden."""

import ast
import sys

import pytest

from tests.house.tree import Module, modules

WIRE_AND_CORE = frozenset({"core", "wire"})
SHELLS = frozenset({"transport", "discovery", "inventory", "engine", "proxy", "api"})

MAY_IMPORT: dict[str, frozenset[str]] = {
    "core": frozenset({"core"}),
    "wire": WIRE_AND_CORE,
    "transport": WIRE_AND_CORE | {"transport"},
    "discovery": WIRE_AND_CORE | {"discovery"},
    "inventory": frozenset({"core", "inventory"}),
    "engine": frozenset({"core", "engine"}),
    "proxy": WIRE_AND_CORE | {"proxy"},
    "api": frozenset({"core", "api"}),
    "daemon": WIRE_AND_CORE | SHELLS | {"daemon", "config"},
    "cli": frozenset({"core", "config", "cli"}),
    "sdk": frozenset({"core", "config", "sdk"}),
    "testing": WIRE_AND_CORE | {"testing"},
    "": frozenset({"core", "config"}),  # config and its parts; __main__ is the command line
}

LIBRARIES: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "wire": frozenset({"msgpack", "msgspec"}),
    "transport": frozenset({"aioquic", "cryptography"}),
    "discovery": frozenset({"zeroconf"}),
    "inventory": frozenset({"psutil", "pynvml", "huggingface_hub"}),
    "engine": frozenset({"aiohttp"}),
    "proxy": frozenset({"msgspec"}),
    "api": frozenset({"aiohttp", "prometheus_client"}),
    "daemon": frozenset({"uvloop", "psutil", "certifi"}),
    "cli": frozenset({"typer", "rich", "click", "aiohttp"}),
    "sdk": frozenset({"aiohttp"}),
    "testing": frozenset(),
    "": frozenset({"yaml"}),  # configurations that others wrote
}

EXCEPTIONS: dict[str, frozenset[str]] = {
    "cli/node_process.py": frozenset({"daemon"}),  # starts the node
    "cli/standalone.py": frozenset({"daemon"}),  # does without a node what a node would do
    "sdk/node.py": frozenset({"daemon"}),  # a node within a program: decision 0060
    "__init__.py": frozenset({"sdk"}),  # for whoever asks for `meshllm.MeshNode`, and imported then
    "__main__.py": frozenset({"cli"}),
    "engine/xllamacpp_child.py": frozenset({"xllamacpp"}),  # runs in the child, never in the daemon's process
}

IMPURE = frozenset({
    "asyncio", "concurrent", "threading", "multiprocessing", "subprocess", "signal", "time", "datetime", "secrets",
    "logging", "os", "io", "pathlib", "shutil", "tempfile", "glob", "sqlite3", "socket", "select", "selectors", "ssl",
    "http", "urllib", "sys", "uuid",
})  # fmt: skip
"""Parts of the standard library that the core does without: it is told the time, and touches nothing."""


def _first_parts(module: Module) -> list[tuple[int, str, str]]:
    """Return (line, top-level package, folder of meshllm or "")."""
    found = []
    for line, name in module.imports():
        top, _, rest = name.partition(".")
        within = rest.partition(".")[0]
        if top == "meshllm" and within.startswith("config"):
            within = "config"
        found.append((line, top, within))
    return found


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_module_imports_what_its_folder_may(module: Module) -> None:
    """A wrong arrow between folders is the beginning of the end of the map."""
    extra = EXCEPTIONS.get(module.name, frozenset())
    inside = MAY_IMPORT[module.folder] | extra
    outside = LIBRARIES[module.folder] | extra | sys.stdlib_module_names

    wrong = [
        f"{module.name}:{line} imports {top}{'.' + within if top == 'meshllm' else ''}"
        for line, top, within in _first_parts(module)
        if (within not in inside and within not in {"", "__version__"} if top == "meshllm" else top not in outside)
    ]

    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("module", [m for m in modules() if m.folder == "core"], ids=lambda module: module.name)
def test_core_is_pure(module: Module) -> None:
    """The core can be replayed and simulated only while nothing but its arguments reaches it."""
    wrong = [f"{module.name}:{line} imports {top}" for line, top, _ in _first_parts(module) if top in IMPURE]
    for node in ast.walk(module.syntax):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("random.") and node.attr != "Random":
            wrong.append(f"{module.name}:{node.lineno} uses random.{node.attr}: a Random is handed in")
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"open", "print", "input"}
        ):
            wrong.append(f"{module.name}:{node.lineno} calls {node.func.id}")
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            wrong.append(f"{module.name}:{node.lineno} is asynchronous")

    assert wrong == [], "\n".join(wrong)


def test_members_and_serving_do_not_know_each_other() -> None:
    """`core.mesh` composes the two; each has to be understood without the other."""
    folders = {"members", "serving"}
    wrong = [
        f"{module.name}:{line} imports {name}"
        for module in modules()
        for line, name in module.imports()
        for mine in folders
        for other in folders - {mine}
        if module.name.startswith(f"core/{mine}/") and name.startswith(f"meshllm.core.{other}")
    ]

    assert wrong == [], "\n".join(wrong)


def test_every_exception_is_needed() -> None:
    """An exception that nothing uses is a hole."""
    by_name = {module.name: module for module in modules()}
    unused = [
        f"{name}: {extra}"
        for name, allowed in EXCEPTIONS.items()
        for extra in allowed
        if name in by_name and not any(extra in {top, within} for _, top, within in _first_parts(by_name[name]))
    ]

    assert unused == [], "\n".join(unused)
    assert [name for name in EXCEPTIONS if name not in by_name] == []
