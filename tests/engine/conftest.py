"""What tests of engines stand on."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """Return a folder whose path is short enough for sockets, as pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="mesh") as folder:
        yield Path(folder)


@pytest.fixture
def model_file(tmp_path: Path) -> str:
    """Return the path of a file that the engine double takes for a model."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


@pytest.fixture
def native(tmp_path: Path) -> Path:
    """Return a program that looks like a native llama-server: the engine double behind its arguments."""
    program = tmp_path / "llama-server"
    program.write_text(
        f'#!/bin/sh\nexec env PYTHONPATH="{ROOT}" "{sys.executable}" -m meshllm.testing.fake_engine "$@"\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    return program
