"""The tests mirror the package: who looks for the tests of a module knows where they are."""

from tests.house.tree import TESTS, modules

UNTESTED: dict[str, str] = {
    "core/ids.py": "names for types, nothing that runs",
    "core/effects.py": "declarations, used by every test of the core",
    "core/events.py": "declarations, used by every test of the core",
    "core/intents.py": "declarations, used by every test of the core",
    "core/view.py": "declarations, used by every test of the core",
    "proxy/sides.py": "declarations, used by every test of the proxy",
    "daemon/errors.py": "declarations; the exit codes are asserted on real processes in tests/e2e",
}
"""Modules without a test file of their own, with the reason. This list shrinks."""


def test_every_module_has_its_tests() -> None:
    """tests/<folder>/test_<module>.py is where a reader looks."""
    wanted = [module for module in modules() if not module.is_entry and module.name not in UNTESTED]

    missing = [
        f"meshllm/{module.name} wants tests/{module.name.removesuffix(f'{module.path.name}')}test_{module.path.name}"
        for module in wanted
        if not (TESTS / module.path.parent.relative_to(TESTS.parent / "meshllm") / f"test_{module.path.name}").is_file()
    ]

    assert missing == [], "\n".join(missing)


def test_every_exemption_is_needed() -> None:
    """An exemption for a module that has tests, or is gone, has to go too."""
    names = {module.name for module in modules()}

    gone = [name for name in UNTESTED if name not in names]
    tested = [name for name in UNTESTED if (TESTS / name).parent.joinpath("test_" + name.rpartition("/")[2]).is_file()]

    assert (gone, tested) == ([], [])
