"""Finds the GGUF files under one folder, or the one that a path names.

Owns how deep and how far a search goes. Decides which names are looked at: not the hidden ones, not the
unfinished ones. Doesn't open any file.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshllm.core import limits
from meshllm.core.catalog import ModelProblem, shard_of
from meshllm.inventory.digests import FileVersion
from meshllm.inventory.invalid import InvalidModel

_SUFFIX: Final = ".gguf"
_PROJECTOR: Final = "mmproj"
"""What the names of projectors have in common; their headers say whether they are one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A regular file with the right name, as it was when it was found."""

    folder: str
    name: str
    version: FileVersion
    inode: int

    @property
    def path(self) -> str:
        """Return the whole path."""
        return self.version.path

    @property
    def stem(self) -> str:
        """Return the name without its suffix."""
        return self.name[: -len(_SUFFIX)]


def walk(root: Path) -> tuple[list[FoundFile], list[ModelProblem]]:
    """Return the GGUF files under a folder, sorted by path, and what could not be looked at.

    A root that is a file is that file, with the other shards of its set, and with projectors.
    """
    problems: list[ModelProblem] = []
    entries = _of_file(root) if root.name.lower().endswith(_SUFFIX) and root.is_file() else _entries(root, problems)
    files = [file for entry in entries if (file := _found(entry, problems)) is not None]
    return sorted(files, key=lambda file: file.path), problems


def _entries(root: Path, problems: list[ModelProblem]) -> Iterator[os.DirEntry[str]]:
    """Yield what lies under a folder and is not hidden, breadth first, within the limits.

    A folder that links lead to again is looked into once: where it lies shallowest, and rather in its own place than
    by a link. So circles end.
    """
    waiting = [(str(root), 1)]
    walked: set[tuple[int, int]] = set()
    seen = 0
    for folder, depth in waiting:
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in walked:
                continue
            walked.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: (entry.is_symlink(), entry.name))
        except (FileNotFoundError, NotADirectoryError) as error:
            if isinstance(error, NotADirectoryError):
                problems.append(_problem(folder, InvalidModel.NOT_A_FILE, "is no folder"))
            continue
        except OSError as error:
            problems.append(_problem(folder, InvalidModel.UNREADABLE, f"cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            seen += 1
            if seen > limits.MODEL_FOLDER_ENTRIES:
                message = f"has over {limits.MODEL_FOLDER_ENTRIES} entries; the rest was not looked at"
                problems.append(_problem(str(root), InvalidModel.TOO_LARGE, message))
                return
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if depth < limits.MODEL_FOLDER_DEPTH:
                    waiting.append((entry.path, depth + 1))
            elif entry.name.lower().endswith(_SUFFIX):
                yield entry


def _of_file(file: Path) -> list[os.DirEntry[str]]:
    """Return a file as its folder lists it, and what belongs to it there; nothing where that cannot be read."""
    try:
        with os.scandir(file.parent) as listing:
            return [entry for entry in listing if entry.name == file.name or _belongs_to(entry.name, file)]
    except OSError:
        return []


def _belongs_to(name: str, file: Path) -> bool:
    """Tell whether a file is another shard of the same set, or may be the projector of a model."""
    if not name.lower().endswith(_SUFFIX):
        return False
    own, other = shard_of(file.stem), shard_of(name[: -len(_SUFFIX)])
    is_shard = own is not None and other is not None and (own[0], own[2]) == (other[0], other[2])
    return is_shard or _PROJECTOR in name.lower()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder to look into; one that is named like a file is a problem instead."""
    try:
        return entry.is_dir() and not entry.name.lower().endswith(_SUFFIX)
    except OSError:
        return False


def _found(entry: os.DirEntry[str], problems: list[ModelProblem]) -> FoundFile | None:
    try:
        status = Path(entry.path).stat()
    except OSError as error:
        problems.append(_problem(entry.path, InvalidModel.UNREADABLE, f"cannot be read: {error.strerror}"))
        return None
    if not stat.S_ISREG(status.st_mode):
        problems.append(_problem(entry.path, InvalidModel.NOT_A_FILE, "is not a regular file"))
        return None
    version = FileVersion.of(entry.path, status)
    return FoundFile(folder=str(Path(entry.path).parent), name=entry.name, version=version, inode=status.st_ino)


def _problem(path: str, code: InvalidModel, message: str) -> ModelProblem:
    return ModelProblem(path=shown(path), code=str(code), message=message)


def shown(path: str) -> str:
    """Return a path as text that any encoder takes, also where its bytes are no valid UTF-8."""
    return path.encode(errors="backslashreplace").decode()
