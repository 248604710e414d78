"""Which file of a hub repository a name means.

Owns the forms of names (`user/repo`, `user/repo:Q4_K_M`, `hf.co/user/repo:Q4_K_M`, `user/repo/file.gguf`)
and the preference among quantisations. Decides for one file or one shard set. Doesn't ask the hub itself.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from meshllm.core.catalog import ModelReference, model_id_of, shard_of
from meshllm.core.known_models import margin_of
from meshllm.core.quantization import best_of
from meshllm.core.resources import format_bytes
from meshllm.inventory.download_errors import DownloadCode, DownloadError

_PREFIXES: Final = ("https://", "http://", "hf.co/", "huggingface.co/", "hf://", "hf:")
_NAME: Final = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_QUANTIZATION: Final = re.compile(r"(?:UD-)?(?:I?Q\d\w*|BF16|F16|F32|FP16|MXFP4\w*|NVFP4|TQ\d\w*)$", re.IGNORECASE)
_PREFERRED: Final = re.compile(r"(?:UD-)?(?:Q8_0|Q6_K\w*|Q5_K\w*|Q5_[01]|Q4_K_\w+|MXFP4\w*)", re.IGNORECASE)
"""From Q4_K_M to Q8: below, answers suffer; above, only memory does."""
_COMPANIONS: Final = ("mmproj", "imatrix")
_FILES_SUFFIX: Final = "-gguf"
_SHOWN_MAX: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class HubName:
    """A name taken apart. At most one of `quantization` and `path` is set."""

    repository: str
    quantization: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A GGUF file of a repository, as the hub lists it."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A whole model: one file, or all shards of a set."""

    path: str
    size_bytes: int
    sha256: str
    base: str
    quantization: str


def parse(asked: str) -> HubName:
    """Take a name apart. Raises DownloadError(unsupported) where it has none of the forms."""
    rest = asked.strip()
    for prefix in _PREFIXES:
        rest = rest.removeprefix(prefix)
    rest, _, quantization = rest.partition(":")
    parts = rest.replace("/resolve/main/", "/").replace("/blob/main/", "/").split("/")
    names_ok = len(parts) >= 2 and all(_NAME.fullmatch(part) for part in parts)
    path = "/".join(parts[2:])
    is_file = path.lower().endswith(".gguf")
    if (
        not names_ok
        or (path and not is_file)
        or (path and quantization)
        or not re.fullmatch(r"[\w.-]{0,32}", quantization)
    ):
        message = f"{asked[:200]!r} is no model name; write user/repo, user/repo:Q4_K_M or user/repo/file.gguf"
        raise DownloadError(DownloadCode.UNSUPPORTED, message)
    return HubName(repository="/".join(parts[:2]), quantization=quantization, path=path)


def listing(rows: object) -> list[HubFile]:
    """Return what the hub listed, from rows of [path, size, sha256]; what is no such row is left out."""
    files = []
    for row in rows if isinstance(rows, list) else []:
        match row:
            case [str(path), int(size), str(sha256)]:
                files.append(HubFile(path=path, size_bytes=size, sha256=sha256))
    return files


def has_models(files: Iterable[HubFile]) -> bool:
    """Tell whether a repository holds anything that an engine reads."""
    return bool(_candidates(files))


def repository_with_files(name: HubName) -> HubName | None:
    """Return where the maker of a model may keep its GGUF files; None where the name says which file is meant."""
    if name.path or name.repository.lower().endswith(_FILES_SUFFIX):
        return None
    return replace(name, repository=f"{name.repository}{_FILES_SUFFIX.upper()}")


def choose(asked: str, name: HubName, files: Iterable[HubFile], usable_bytes: int) -> ModelReference:
    """Return the file or the first shard that a name means. Raises DownloadError.

    Without a quantisation in the name: the largest preferred one that fits into `usable_bytes`, else the
    largest other one that does. `usable_bytes` of 0 or less means unknown: the smallest preferred one.
    """
    candidates = _candidates(files)
    if not candidates:
        raise DownloadError(DownloadCode.NOT_FOUND, f"{name.repository} has no GGUF model; name a repository that has")
    if name.path:
        chosen = _by_path(name, candidates)
    elif name.quantization:
        chosen = _by_quantization(name, candidates)
    else:
        chosen = _by_size(name, candidates, usable_bytes)
    return ModelReference(
        id=model_id_of(chosen.path),
        repository=name.repository,
        filename=chosen.path,
        size_bytes=chosen.size_bytes,
        sha256=chosen.sha256,
        asked_as=asked,
    )


def _candidates(files: Iterable[HubFile]) -> list[_Candidate]:
    """Return the whole models among the files, sorted by path; incomplete shard sets are left out."""
    groups: dict[str, list[HubFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        name = file.path.rsplit("/", 1)[-1].lower()
        if not any(mark in name for mark in _COMPANIONS):
            groups.setdefault(file.path.rsplit("/", 1)[0] + "/" + model_id_of(file.path), []).append(file)
    found = []
    for members in groups.values():
        shard = shard_of(members[0].path.removesuffix(".gguf"))
        if len(members) != (shard[2] if shard else 1):
            continue
        base, quantization = _split(model_id_of(members[0].path))
        found.append(
            _Candidate(
                path=members[0].path,
                size_bytes=sum(member.size_bytes for member in members),
                sha256=members[0].sha256 if shard is None else "",
                base=base,
                quantization=quantization,
            )
        )
    return found


def _split(stem: str) -> tuple[str, str]:
    """Return (model, quantisation) of a stem: `Foo-7B-Q4_K_M` is `foo-7b` and `Q4_K_M`."""
    pieces = re.split(r"(?<=[^-.])[-.]", stem)
    for start in range(1, len(pieces)):
        tail = "-".join(pieces[start:])
        if _QUANTIZATION.fullmatch(tail):
            return "-".join(pieces[:start]).casefold(), tail.upper()
    return stem.casefold(), ""


def _by_path(name: HubName, candidates: list[_Candidate]) -> _Candidate:
    for candidate in candidates:
        if candidate.path == name.path or model_id_of(candidate.path) == model_id_of(name.path):
            return candidate
    message = f"{name.repository} has no {name.path}; it has {_shown(item.path for item in candidates)}"
    raise DownloadError(DownloadCode.NOT_FOUND, message)


def _by_quantization(name: HubName, candidates: list[_Candidate]) -> _Candidate:
    wanted = best_of(name.quantization, (item.quantization for item in candidates)) or name.quantization
    wanted = wanted.upper()
    matching = [item for item in candidates if item.quantization == wanted]
    matching = matching or [item for item in candidates if item.quantization.removeprefix("UD-") == wanted]
    if len(matching) == 1:
        return matching[0]
    if matching:
        message = f"{wanted} of {name.repository} could be any of {_shown(item.path for item in matching)}"
        raise DownloadError(DownloadCode.AMBIGUOUS, message)
    available = _shown(item.quantization or item.path for item in candidates)
    raise DownloadError(DownloadCode.NOT_FOUND, f"{name.repository} has no {wanted}; it has {available}")


def _by_size(name: HubName, candidates: list[_Candidate], usable_bytes: int) -> _Candidate:
    if len({item.base for item in candidates}) > 1:
        message = f"{name.repository} has several models; name one of {_shown(item.path for item in candidates)}"
        raise DownloadError(DownloadCode.AMBIGUOUS, message)
    by_size = sorted(candidates, key=lambda item: (item.size_bytes, item.path))
    preferred = [item for item in by_size if _PREFERRED.fullmatch(item.quantization)]
    if usable_bytes <= 0:
        return (preferred or by_size)[0]
    for group in (preferred, by_size):
        fitting = [item for item in group if item.size_bytes + margin_of(item.size_bytes) <= usable_bytes]
        if fitting:
            return fitting[-1]
    least = by_size[0]
    message = (
        f"no quantisation of {name.repository} fits: the smallest takes {format_bytes(least.size_bytes)}, "
        f"{format_bytes(usable_bytes)} are usable; "
        f"{name.repository}:{least.quantization or 'QUANT'} downloads it anyway"
    )
    raise DownloadError(DownloadCode.UNSUPPORTED, message)


def _shown(names: Iterable[str]) -> str:
    """Return a list for people, cut where it gets long."""
    every = sorted(set(names))
    more = f" and {len(every) - _SHOWN_MAX} more" if len(every) > _SHOWN_MAX else ""
    return ", ".join(every[:_SHOWN_MAX]) + more
