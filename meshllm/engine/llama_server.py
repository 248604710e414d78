"""A native llama-server: where it lies, and what its self-description says.

Owns the places that are searched and the reading of `--version` and `--list-devices`. Decides nothing
about which engine is used. Doesn't run anything: `build` does.
"""

import os
import re
import shutil
import sysconfig
from collections.abc import Iterable
from pathlib import Path

PROGRAM = "llama-server"
_VERSION = re.compile(r"version:\s*(\S+)(?:\s*\(([0-9a-f]+)\))?", re.IGNORECASE)
_DEVICE = re.compile(r"^\s*([A-Za-z][A-Za-z_]*)\d+\s*:\s*(.+)$")
NOT_GPUS = frozenset({"cpu", "blas", "rpc"})


def find_program(search_path: str | None = None, site_packages: Iterable[Path] | None = None) -> str | None:
    """Return the path of an installed llama-server: one on PATH, or that of a llama-cpp-python build."""
    if (found := shutil.which(PROGRAM, path=search_path)) is not None:
        return found
    places = site_packages if site_packages is not None else _site_packages()
    for place in places:
        program = place / "bin" / PROGRAM
        if program.is_file() and os.access(program, os.X_OK):
            return str(program)
    return None


def _site_packages() -> tuple[Path, ...]:
    """Return the folders where packages with programs of their own are installed. Pure Python ones first."""
    return tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))


def read_version(said: str) -> str:
    """Return the version in the answer to `--version`, or empty."""
    match = _VERSION.search(said)
    if match is None:
        return ""
    return f"{match[1]} ({match[2]})" if match[2] else match[1]


def read_gpus(said: str) -> tuple[str, ...]:
    """Return the GPUs in the answer to `--list-devices`, as `CUDA0: name (…)`."""
    _, _, listed = said.partition("Available devices:")
    found = (_DEVICE.match(line) for line in listed.splitlines())
    return tuple(match[0].strip() for match in found if match is not None and match[1].lower() not in NOT_GPUS)
