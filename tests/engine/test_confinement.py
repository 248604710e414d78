"""What a confined program is left with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOOK = """
import json, os, resource
print(json.dumps({
    "environment": sorted(os.environ), "folder": os.getcwd(), "mask": os.umask(0),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0], "space": resource.getrlimit(resource.RLIMIT_AS)[0],
    "file": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
}))
"""


def confined(folder: Path, *options: str, program: str = LOOK) -> subprocess.CompletedProcess[str]:
    """Run a program confined."""
    command = [
        sys.executable, "-P", "-m", "meshllm.engine.confinement", "--folder", str(folder), *options,
        "--", sys.executable, "-S", "-c", program,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SECRET": "x", "WANTED": "y"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_it_has_its_folder_its_limits_and_no_environment(tmp_path: Path) -> None:
    """Only what it was to keep."""
    told = json.loads(confined(tmp_path, "--keep", "WANTED", "--address-space-bytes", str(2**32)).stdout)

    assert "WANTED" in told["environment"]
    assert "SECRET" not in told["environment"]
    assert (told["folder"], told["core"], told["file"], told["mask"]) == (str(tmp_path.resolve()), 0, 0, 0o077)
    if sys.platform.startswith("linux"):
        assert told["space"] == 2**32


def test_it_cannot_take_more_memory_than_it_was_given(tmp_path: Path) -> None:
    """The kernel says no."""
    if not sys.platform.startswith("linux"):
        pytest.skip("this system does not limit addresses")

    ended = confined(tmp_path, "--address-space-bytes", str(2**30), program="bytearray(2**31)")

    assert ended.returncode != 0
    assert "MemoryError" in ended.stderr


def test_it_cannot_write_more_than_it_was_allowed(tmp_path: Path) -> None:
    """No disk is filled by it."""
    program = "open('x', 'wb').write(bytes(20000))"

    nothing, some = confined(tmp_path, program=program), confined(tmp_path, "--file-bytes", "30000", program=program)

    assert (nothing.returncode, some.returncode) == (1, 0)


def test_a_program_that_is_missing_is_said(tmp_path: Path) -> None:
    """With a status of its own."""
    command = [sys.executable, "-m", "meshllm.engine.confinement", "--folder", str(tmp_path), "--", "/nowhere/at/all"]

    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 127
    assert "cannot start /nowhere/at/all" in ended.stderr
