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
_VERSION = re.compile(
    r"version:\s*(\S+)(?:\s*\((?:build (?P<build>\d+), commit )?(?P<commit>[0-9a-f]+)\))?", re.IGNORECASE
)
_DEVICE = re.compile(r"^\s*([A-Za-z][A-Za-z_]*)\d+\s*:\s*(.+)$")
NOT_GPUS = frozenset({"cpu", "blas", "rpc"})


def find_program(search_path: str | None = None, site_packages: Iterable[Path] | None = None) -> str | None:
    """Return the path of an installed llama-server: one on PATH, or that of a llama-cpp-python build."""
    if (found := shutil.which(PROGRAM, path=search_path)) is not None:
        return found
    places = site_packages if site_packages is not None else package_folders()
    for place in places:
        if (program := program_in(place / "bin", PROGRAM)) is not None:
            return program
    return None


def program_in(folder: Path, *names: str) -> str | None:
    """Return the path of the first of these programs that a folder has."""
    programs = (folder / name for name in names)
    return next((str(path) for path in programs if path.is_file() and os.access(path, os.X_OK)), None)


def package_folders() -> tuple[Path, ...]:
    """Return the folders where packages with programs of their own are installed. Pure Python ones first."""
    return tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))


def read_version(said: str) -> str:
    """Return the version in the answer to `--version`, or empty."""
    match = _VERSION.search(said)
    if match is None:
        return ""
    build = f" b{match['build']}" if match["build"] else ""
    return f"{match[1]}{build} ({match['commit']})" if match["commit"] else match[1]


def read_gpus(said: str) -> tuple[str, ...]:
    """Return the GPUs in the answer to `--list-devices`, as `CUDA0: name (…)`."""
    _, _, listed = said.partition("Available devices:")
    found = (_DEVICE.match(line) for line in listed.splitlines())
    return tuple(match[0].strip() for match in found if match is not None and match[1].lower() not in NOT_GPUS)


def device_names(gpus: Iterable[str]) -> tuple[str, ...]:
    """Return what llama.cpp calls GPUs that `read_gpus` returned, such as `CUDA0`."""
    return tuple(gpu.partition(":")[0] for gpu in gpus)
