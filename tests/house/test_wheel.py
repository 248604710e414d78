"""What people install: the wheel has its console, its types and its licence, and nothing from the workshop."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from meshllm import __version__
from tests.house.tree import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def build(source: Path, out: Path, *targets: str) -> None:
    """Build archives of a source tree with the tools of this environment."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(out), *targets],
        cwd=source, check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack a source archive and return its only folder."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return next(folder.iterdir())


def test_wheel_and_source_archive_are_complete(tmp_path: Path) -> None:
    """A wheel made of the source archive, where there is no console/ and no Node, is the same wheel."""
    build(ROOT, tmp_path / "dist", "-t", "sdist", "-t", "wheel")
    source = unpacked(tmp_path / "dist" / f"meshllm-{__version__}.tar.gz", tmp_path / "source")
    build(source, tmp_path / "again", "-t", "wheel")

    wheel = f"meshllm-{__version__}-py3-none-any.whl"
    names = [sorted(zipfile.ZipFile(tmp_path / folder / wheel).namelist()) for folder in ("dist", "again")]

    info = f"meshllm-{__version__}.dist-info"
    assert names[0] == names[1]
    assert {"meshllm/api/static/index.html", "meshllm/py.typed", f"{info}/licenses/LICENSE"} <= set(names[0])
    assert any(name.startswith("meshllm/api/static/assets/") and name.endswith(".js") for name in names[0])
    assert [name for name in names[0] if not name.startswith(("meshllm/", info))] == []
    assert not (source / "console").exists()
    assert not (source / "tests").exists()


def test_source_archive_without_console_files_does_not_build(tmp_path: Path) -> None:
    """A node without its console must be noticed by whoever packs it, not by whoever opens it."""
    build(ROOT, tmp_path / "dist", "-t", "sdist")
    source = unpacked(tmp_path / "dist" / f"meshllm-{__version__}.tar.gz", tmp_path / "source")
    (source / "meshllm" / "api" / "static" / "index.html").unlink()

    with pytest.raises(subprocess.CalledProcessError) as failed:
        build(source, tmp_path / "again", "-t", "wheel")

    assert "the console was not built" in failed.value.stderr


@pytest.mark.rows("CLI-23")
def test_entry_point_of_the_wheel_starts(tmp_path: Path) -> None:
    """What the wheel calls `mesh-llm` exists in it."""
    build(ROOT, tmp_path, "-t", "wheel")
    wheel = next(tmp_path.glob("*.whl"))
    entry = zipfile.ZipFile(wheel).read(f"meshllm-{__version__}.dist-info/entry_points.txt").decode()
    module, _, function = entry.partition("mesh-llm = ")[2].strip().partition(":")

    run = subprocess.run(
        [sys.executable, "-P", "-c", f"import {module} as m; print(m.__file__, callable(m.{function}))"],
        cwd=tmp_path, env={"PYTHONPATH": str(wheel)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert run.stdout.split() == [f"{wheel}/{module.replace('.', '/')}.py", "True"]
