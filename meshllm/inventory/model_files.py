"""From folders of GGUF files to the models and problems in them.

Owns the layouts: `<dir>/<name>.gguf`, `<dir>/<Name>/*.gguf`, shard sets, projectors that lie beside their
model. Decides which files make a model and what it is called. Doesn't know who asks, nor how headers are
read. Reads a header once for each version of a file, so that looking again is cheap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from meshllm.core import limits
from meshllm.core.catalog import ModelProblem, ModelSpec, model_id_of, shard_of
from meshllm.core.ids import ModelId
from meshllm.core.names import RESERVED_NAMES
from meshllm.inventory.digests import FileVersion
from meshllm.inventory.folder_walk import FoundFile, shown, walk
from meshllm.inventory.gguf import GgufHeader, read_header
from meshllm.inventory.gguf_facts import ModelFacts, facts, is_projector
from meshllm.inventory.invalid import InvalidModel, InvalidModelError
from meshllm.inventory.projectors import projector_for

_ANONYMOUS_STEMS: Final = frozenset({"model", "ggml-model"})
"""Names that say nothing: the folder's name is the model's."""
_MIXED: Final = "the files of the set do not belong together"
_NOT_CACHED: Final = frozenset({InvalidModel.UNREADABLE})


class Digests(Protocol):
    """Where digests that are known already come from."""

    def combined(self, versions: Iterable[FileVersion]) -> str:
        """Return `sha256:<hex>` of a model's files, or an empty string."""
        ...

    def damage_of(self, version: FileVersion) -> str:
        """Return how a file differs from what its digest says, in words, or an empty string."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All models in a node's folders and all files that look like models and are none. Sorted."""

    models: tuple[ModelSpec, ...] = ()
    problems: tuple[ModelProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class _ReadFile:
    """A header, or why there is none."""

    header: GgufHeader | None
    error: InvalidModelError | None


def scan(folders: Sequence[Path], digests: Digests) -> Inventory:
    """Look through model folders once. Folders that do not exist have no models."""
    return ModelScanner(folders, digests).scan()


class ModelScanner:
    """Looks through model folders again and again and remembers headers. For one thread at a time."""

    def __init__(self, folders: Sequence[Path], digests: Digests) -> None:
        """Take the folders in order of precedence: of two models with one id the first wins."""
        self._folders = tuple(folders)
        self._digests = digests
        self._last: _Look | None = None

    def scan(self) -> Inventory:
        """Look through the folders. Blocks on the file system; raises nothing."""
        look = _Look(self._digests, self._last)
        for folder in self._folders:
            look.visit(folder)
        look.forget()
        self._last = look
        problems = sorted(look.problems, key=lambda problem: (problem.path, problem.code))
        return Inventory(
            models=tuple(look.models[model] for model in sorted(look.models)),
            problems=tuple(problems[: limits.MODEL_PROBLEMS]),
        )

    def versions_of(self, spec: ModelSpec) -> tuple[FileVersion, ...]:
        """Return the versions of a model's files as the last scan saw them."""
        files = self._last.files if self._last is not None else {}
        return tuple(files[path].version for path in spec.files if path in files)


class _Look:
    """One scan in the making."""

    def __init__(self, digests: Digests, before: "_Look | None") -> None:
        self._digests = digests
        self._before = before or self
        self._reads: dict[str, _ReadFile] = {}
        self.models: dict[ModelId, ModelSpec] = {}
        self._paths: set[str] = set()
        """Of the models so far."""
        self.problems: list[ModelProblem] = []
        self.headers: dict[tuple[FileVersion, int], _ReadFile] = {}
        self.files: dict[str, FoundFile] = {}

    def forget(self) -> None:
        """Let go of the scan before, which would keep the one before that."""
        self._before = self

    def visit(self, root: Path) -> None:
        """Add what one folder has."""
        files, problems = walk(root)
        self.problems += problems
        projectors: dict[str, list[FoundFile]] = {}
        sets: dict[tuple[str, str, int], list[FoundFile]] = {}
        for file in files:
            read = self._reads[file.path] = self._read(file)
            if read.header is not None and is_projector(read.header):
                projectors.setdefault(file.folder, []).append(file)
                continue
            shard = shard_of(file.stem)
            key = (file.folder, shard[0], shard[2]) if shard else (file.folder, file.name, 1)
            sets.setdefault(key, []).append(file)
        for (folder, _, count), members in sorted(sets.items(), key=_is_called_otherwise):
            try:
                self._add(root, members, count, projectors.get(folder, []))
            except InvalidModelError as error:
                if error.code is not InvalidModel.NOT_A_MODEL:
                    self._refuse(members[0].path, error.code, error.message)

    def _read(self, file: FoundFile) -> _ReadFile:
        """Return a file's header, from the scan before if the file is still the same."""
        key = (file.version, file.inode)
        before = self._before.files.get(file.path, file)
        self.files[file.path] = file
        if before.inode == file.inode and before.version.size_bytes < file.version.size_bytes:
            message = "the file is still growing; it is looked at again soon"
            return _ReadFile(None, InvalidModelError(InvalidModel.INCOMPLETE, message))
        read = self._before.headers.get(key)
        if read is None:
            try:
                read = _ReadFile(read_header(Path(file.path)), None)
            except InvalidModelError as error:
                read = _ReadFile(None, error)
        if read.error is None or read.error.code not in _NOT_CACHED:
            self.headers[key] = read
        return read

    def _add(self, root: Path, members: list[FoundFile], count: int, projectors: list[FoundFile]) -> None:
        """Add the model that a file or a set of shards makes. Raises InvalidModelError."""
        members.sort(key=lambda file: file.name)
        headers = self._headers_of(members)
        if headers is None:
            return
        _check_shards(members, headers, count)
        found = facts(headers[0])
        if members[0].path in self._paths:
            return  # one of the folders lies in another
        model = self._free_id(_id_of(members[0], root), members[0], root)
        _check_id(model, members[0].path)
        rival = self.models.get(model)
        if rival is not None:
            message = f"the id {model!r} is already that of {shown(rival.path)}, which was found first"
            self._refuse(members[0].path, "duplicate_id", message)
        elif len(self.models) >= limits.MODELS_PER_NODE:
            self._refuse(members[0].path, "too_many", f"a node lists at most {limits.MODELS_PER_NODE} models")
        else:
            is_flat = Path(members[0].folder) == root
            self._paths.add(members[0].path)
            self.models[model] = self._spec(
                model, members, headers, found, projector_for(model, projectors, is_flat=is_flat)
            )

    def _free_id(self, model: ModelId, file: FoundFile, root: Path) -> ModelId:
        """Return a model's id, or where that is taken the name of its folder.

        So two versions may lie side by side under one file name: `Foo-v1.1/Foo.gguf` beside `Foo/Foo.gguf`.
        """
        folder = Path(file.folder)
        if model not in self.models or folder == root or ModelId(folder.name) in self.models:
            return model
        return ModelId(folder.name)

    def _headers_of(self, members: list[FoundFile]) -> list[GgufHeader] | None:
        """Return the headers of all files of a model, or None after saying which have none."""
        headers = []
        for file in members:
            read = self._reads[file.path]
            if read.header is not None:
                headers.append(read.header)
            elif read.error is not None:
                self._refuse(file.path, read.error.code, read.error.message)
        return headers if len(headers) == len(members) else None

    def _spec(
        self,
        model: ModelId,
        members: list[FoundFile],
        headers: list[GgufHeader],
        found: ModelFacts,
        projector: FoundFile | None,
    ) -> ModelSpec:
        versions = [file.version for file in members]
        sees = projector is not None and "chat" in found.capabilities
        return ModelSpec(
            id=model,
            path=members[0].path,
            files=tuple(file.path for file in members),
            size_bytes=sum(version.size_bytes for version in versions),
            digest=self._digests.combined(versions),
            architecture=found.architecture,
            parameters=sum(header.tensors.parameters for header in headers),
            quantization=found.quantization,
            modified_s=max(version.mtime_ns for version in versions) / 1e9,
            display_name=found.display_name,
            chat_template=found.chat_template,
            mmproj=projector.path if projector is not None else None,
            capabilities=found.capabilities | {"vision"} if sees else found.capabilities,
            damage=next((words for version in versions if (words := self._digests.damage_of(version))), ""),
            inode=members[0].inode,
        )

    def _refuse(self, path: str, code: str, message: str) -> None:
        self.problems.append(ModelProblem(path=shown(path), code=str(code), message=message))


def _is_called_otherwise(found: tuple[tuple[str, str, int], list[FoundFile]]) -> bool:
    """Tell whether a model's files are called otherwise than their folder: such a one is not the first to be named."""
    (folder, _, _), members = found
    return Path(folder).name != model_id_of(members[0].name)


def _check_shards(members: list[FoundFile], headers: list[GgufHeader], count: int) -> None:
    """Raise InvalidModelError unless the files are one whole set, or one whole file."""
    numbers = [shard[1] for file in members if (shard := shard_of(file.stem)) is not None] or [1]
    missing = sorted(set(range(1, count + 1)) - set(numbers))
    if missing:
        message = f"{len(missing)} of the {count} files of the set are missing, the first is number {missing[0]}"
        raise InvalidModelError(InvalidModel.SHARDS, message)
    for number, header in zip(numbers, headers, strict=True):
        split = header.metadata.get("split.count", 0) or 1
        if split != count:
            message = (
                _MIXED if count > 1 else f"is one of {split!r:.20} files of a set, and its name does not say which"
            )
            raise InvalidModelError(InvalidModel.SHARDS, message)
        if count > 1 and header.metadata.get("split.no") != number - 1:
            raise InvalidModelError(InvalidModel.SHARDS, _MIXED)
    stated = headers[0].metadata.get("split.tensors.count")
    if count > 1 and isinstance(stated, int) and stated != sum(header.tensors.count for header in headers):
        raise InvalidModelError(InvalidModel.SHARDS, _MIXED)


def _id_of(file: FoundFile, root: Path) -> ModelId:
    """Return the canonical id: the stem, or the folder's name where the stem says nothing and nobody named the file."""
    model = model_id_of(file.name)
    folder = Path(file.folder)
    is_named = root in {folder, Path(file.path)}
    return ModelId(folder.name) if model.lower() in _ANONYMOUS_STEMS and not is_named else model


def _check_id(model: ModelId, path: str) -> None:
    """Raise InvalidModelError unless an id can be asked for, and id and path can be shown."""
    try:
        size = len(model.encode()) if path.encode() else 0
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= limits.MODEL_NAME_BYTES or not model.isprintable():
        raise InvalidModelError(InvalidModel.BAD_VALUE, "the file's name cannot be a model's name")
    if model.casefold() in RESERVED_NAMES:
        raise InvalidModelError(InvalidModel.BAD_VALUE, f"the name {model!r} is reserved; rename the file")


def delete(spec: ModelSpec) -> tuple[Path, ...]:
    """Delete the files of a model and return which they were; shards go together. Raises OSError."""
    files = tuple(Path(file) for file in spec.files)
    for file in files:
        file.unlink(missing_ok=True)
    return files
