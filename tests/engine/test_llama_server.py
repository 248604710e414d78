"""A native llama-server: where it lies and what it says of itself."""

from pathlib import Path

from meshllm.engine.llama_server import find_program, read_gpus, read_version


def _program(folder: Path) -> Path:
    folder.mkdir(parents=True)
    program = folder / "llama-server"
    program.write_text("#!/bin/sh\n", encoding="ascii")
    program.chmod(0o755)
    return program


def test_program_on_path_comes_first(tmp_path: Path) -> None:
    """Whoever puts one on PATH means it."""
    on_path, packaged = _program(tmp_path / "path"), _program(tmp_path / "site" / "bin")

    assert find_program(str(on_path.parent), [tmp_path / "site"]) == str(on_path)
    assert find_program(str(tmp_path / "elsewhere"), [tmp_path / "site"]) == str(packaged)


def test_what_cannot_be_executed_is_not_found(tmp_path: Path) -> None:
    """A half-installed program is none."""
    _program(tmp_path / "site" / "bin").chmod(0o644)

    assert find_program(str(tmp_path), [tmp_path / "site", tmp_path / "none"]) is None


def test_own_site_packages_are_searched() -> None:
    """A llama-cpp-python build puts its programs beside its package."""
    assert (find_program("/nowhere") or "llama-server").endswith("llama-server")


def test_version_is_read() -> None:
    """Builds without git have no commit."""
    assert read_version("version: 7214 (b4fa3e2)\nbuilt with cc for x86_64-linux-gnu\n") == "7214 (b4fa3e2)"
    assert read_version("load_backend: loaded CPU\nversion: 1 (unknown)\n") == "1"
    assert read_version("version: 0.5.0-dev (build 7214, commit b4fa3e2)\n") == "0.5.0-dev b7214 (b4fa3e2)"
    assert read_version("usage: ls [OPTION]") == ""


def test_gpus_are_read() -> None:
    """Only what comes after the heading, and no processor."""
    said = """\
ggml_cuda_init: found 1 CUDA devices:
  Device 0: NVIDIA H100, compute capability 9.0, VMM: yes
Available devices:
  CUDA0: NVIDIA H100 80GB HBM3 (81089 MiB, 80553 MiB free)
  BLAS0: OpenBLAS (0 MiB, 0 MiB free)
"""

    assert read_gpus(said) == ("CUDA0: NVIDIA H100 80GB HBM3 (81089 MiB, 80553 MiB free)",)
    assert read_gpus("Available devices:\n") == ()
