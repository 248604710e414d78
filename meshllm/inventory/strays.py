"""Files that are called like a model and that no scan takes, with the reason.

Owns which names are alike and what is told from them. Decides by names and places alone, and opens no file. Doesn't
know models: the scan found none of that name before anybody asks here.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from meshllm.core import limits
from meshllm.core.doctor.discovery import Stray

_GGUF: Final = ".gguf"
_UNFINISHED: Final = (".part", ".incomplete", ".crdownload", ".download", ".aria2", ".tmp")
_OTHER_FORMATS: Final = (".safetensors", ".bin", ".pt", ".pth", ".ggml", ".onnx", ".zip", ".gz", ".zst", ".tar")
_STRAYS: Final = 8
_DEEPEST: Final = 2 * limits.MODEL_FOLDER_DEPTH


def strays(folders: Sequence[Path], asked: str, here: Path) -> tuple[tuple[str, Stray], ...]:
    """Return files that may be meant by a name: below the model folders, as a path, or in the folder `here`."""
    found: dict[str, Stray] = {}
    wanted = wanted_by(asked)
    for outside in (Path(asked).expanduser(), *_of_folder(here, wanted)):
        if outside.suffix.lower() == _GGUF and _is_outside(outside, folders):
            found[str(outside.absolute())] = Stray.OUTSIDE
    for root in folders:
        for file in _below(root, wanted):
            why = reason(file.relative_to(root))
            if why is not None:
                found.setdefault(str(file), why)
            if len(found) >= _STRAYS:
                return tuple(found.items())
    return tuple(found.items())


def wanted_by(asked: str) -> str:
    """Return what the name of a file would have in it: of a hub's `user/repo-GGUF:Q4`, `repo`; folded."""
    last = asked.strip().rstrip("/").rpartition("/")[2].partition(":")[0].casefold()
    return last.removesuffix(_GGUF).removesuffix("-gguf")


def reason(below: Path) -> Stray | None:
    """Return why a scan does not take a file, by its path below a model folder; None where it does, or never would."""
    name = below.name.lower()
    if name.endswith(_UNFINISHED):
        return Stray.UNFINISHED
    if name.endswith(_OTHER_FORMATS):
        return Stray.FORMAT
    if not name.endswith(_GGUF):
        return None
    if any(part.startswith(".") for part in below.parts):
        return Stray.HIDDEN
    return Stray.DEEP if len(below.parts) > limits.MODEL_FOLDER_DEPTH else None


def _is_outside(file: Path, folders: Sequence[Path]) -> bool:
    try:
        whole = file.resolve()
        return whole.is_file() and not any(whole.is_relative_to(folder.resolve()) for folder in folders)
    except OSError:
        return False


def _of_folder(folder: Path, wanted: str) -> Iterator[Path]:
    """Yield what lies in one folder under such a name."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names are all that is looked at
    except OSError:
        return
    yield from (folder / name for name in names if wanted and wanted in name.casefold())


def _below(root: Path, wanted: str) -> Iterator[Path]:
    """Yield the files below a folder whose own name, or whose folder's, has this in it."""
    seen = 0
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        depth = len(here.relative_to(root).parts)
        folders[:] = sorted(folders) if depth + 1 < _DEEPEST else []
        seen += len(folders) + len(names)
        if seen > limits.MODEL_FOLDER_ENTRIES:
            return
        is_meant = bool(wanted) and depth > 0 and wanted in here.name.casefold()
        yield from (here / name for name in sorted(names) if is_meant or (wanted and wanted in name.casefold()))
