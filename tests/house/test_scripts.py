"""The scripts that a checkout starts with: portable, lawful, and the same for people and for CI."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.tree import ROOT

SHELL = [
    "scripts/mesh-llm",
    "scripts/environment",
    "scripts/browser",
    "scripts/test",
    "scripts/check",
    "scripts/docs",
    "scripts/fuzz",
    "scripts/lock",
    "scripts/simulate",
    "scripts/fake_mesh",
    "scripts/rpc_engine",
    "scripts/workflows/add_a_model",
    "scripts/workflows/route_requests",
    "scripts/workflows/compare_models",
    ".ci/run",
]
NOT_PORTABLE = re.compile(
    r"\[\[|\bfunction\s|\bmapfile\b|\blocal -|\$'|<<<|\breadlink -f\b|\brealpath\b|\bsed -i\b|\bflock\b"
)


@pytest.mark.parametrize("name", SHELL)
def test_shell_script_is_plain_sh(name: str) -> None:
    """A Mac has an old shell and other tools: what isn't POSIX breaks there first."""
    script = ROOT / name
    text = script.read_text(encoding="utf-8")

    assert text.startswith("#!/bin/sh\n")
    assert "set -eu" in text
    assert NOT_PORTABLE.findall(text) == []
    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", str(script)], check=True, timeout=10)


def test_ci_runs_what_people_run() -> None:
    """A check that only CI knows is one that nobody can repair at home."""
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]

    assert lines == ["set -eu", 'cd "$(dirname "$0")/.."', "scripts/check", "scripts/test"]


def test_environment_refuses_an_unknown_kind() -> None:
    """A typing mistake must not end as an empty environment."""
    run = subprocess.run(
        [ROOT / "scripts" / "environment", "rntime"], capture_output=True, text=True, timeout=10, check=False
    )

    assert run.returncode == 2
    assert "runtime|test" in run.stderr


def test_environment_says_which_python_is_missing(tmp_path: Path) -> None:
    """Somebody with an old Python learns what to install, in one message."""
    scripts, tools = tmp_path / "scripts", tmp_path / "bin"
    for folder in (scripts, tools, tmp_path / "requirements"):
        folder.mkdir()
    (scripts / "environment").write_text((ROOT / "scripts" / "environment").read_text())
    for name in ("pyproject.toml", "requirements/runtime.txt"):
        (tmp_path / name).touch()
    for tool in ("cat", "cksum", "tr", "dirname", "tail", "sh"):
        (tools / tool).symlink_to(f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}")
    old = tools / "python3"
    old.write_text("#!/bin/sh\necho 'is Python 3.9' >&2\nexit 1\n")
    old.chmod(0o755)

    run = subprocess.run(
        ["/bin/sh", str(scripts / "environment"), "runtime"],
        env={"PATH": str(tools)}, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert run.returncode == 1
    assert "Python 3.11 or newer is needed" in run.stderr
    assert f"{old} is Python 3.9" in run.stderr
    assert not (tmp_path / ".venv").exists()


def locked(*names: str) -> dict[str, str]:
    """Return the pinned versions of lock files."""
    lines = [line for name in names for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line and line[0].isalnum()]
    return {canonicalize_name(pin.name): str(pin.specifier) for pin in pins}


def test_lock_files_pin_everything_that_the_project_asks_for() -> None:
    """What is asked for in pyproject.toml and not locked would be missing on every fresh machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = locked("runtime", "console", "test")
    asked = [Requirement(line) for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]]

    wrong = [
        str(one)
        for one in asked
        if not one.specifier.contains(pins.get(canonicalize_name(one.name), "==0").removeprefix("=="))
    ]

    assert wrong == []
    assert {canonicalize_name(Requirement(line).name) for line in project["dependencies"]} <= set(locked("runtime"))


@pytest.mark.parametrize("name", ["runtime", "console", "test"])
def test_lock_file_holds_exact_versions_and_no_host(name: str) -> None:
    """Any mirror serves; nothing moves by itself."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()

    assert "://" not in text
    assert [spec for spec in locked(name).values() if not spec.startswith("==")] == []
