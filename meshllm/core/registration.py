"""Models under a name and a version: what somebody registered on this node.

Owns the shapes and the strict form of a version. Decides nothing about what may be registered:
`serving.registry` does. Doesn't know files beyond their names.
"""

import re
from dataclasses import dataclass

from meshllm.core.ids import ModelId

FIRST_VERSION = "1.0.0"
"""What a model's version is where nobody said one."""
STABLE = "stable"
"""The alias of the version that a bare name means."""
_VERSION = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})", re.ASCII)


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Return (major, minor, patch), which sort as versions do, or None for anything else than `1.2.3`."""
    found = _VERSION.fullmatch(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryNotes:
    """What may be written down with a version. None and empty: nothing was said."""

    max_workers: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    tags: tuple[str, ...] = ()
    """What it can do besides what its file shows; `capabilities` of a registration are the same."""
    source: str = ""
    license: str = ""
    context_length: int | None = None
    format: str = ""
    quantization: str = ""


NO_NOTES = RegistryNotes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One version of a registered name: a name for a file, and what the file was then."""

    name: str
    version: str
    model: ModelId
    """The canonical id of the file."""
    digest: str
    path: str
    size_bytes: int
    registered_unix_s: float
    aliases: tuple[str, ...] = ()
    """Other words for the version, such as `stable`; `name@stable` means it."""
    notes: RegistryNotes = NO_NOTES
