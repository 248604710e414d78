"""A smaller file of the same model that fits, from this disk or from the catalogue.

Owns what counts as the same model in another quantisation. Decides which one to suggest: the largest that fits, and of
two alike the one that lies here. Doesn't fetch nor load anything.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshllm.core.known_models import find, margin_of
from meshllm.core.quantization import without_level


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOnDisk:
    """A model on this disk, as far as a suggestion needs it."""

    model: str
    size_bytes: int
    quantization: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A file that would do instead."""

    name: str
    """By which it is loaded."""
    size_bytes: int
    is_here: bool
    """It lies on this disk already."""


def smaller_that_fits(
    model: str, size_bytes: int, room_bytes: int, on_disk: Iterable[FileOnDisk]
) -> Suggestion | None:  # fmt: skip
    """Return the largest smaller file of the same model that fits into so much memory; None where none is known."""
    here = tuple(on_disk)
    fitting = [
        one
        for one in (*_here(model, here), *_in_catalogue(model))
        if 0 < one.size_bytes < size_bytes and one.size_bytes + margin_of(one.size_bytes) <= room_bytes
    ]
    return max(fitting, key=lambda one: (one.size_bytes, one.is_here, one.name), default=None)


def _here(model: str, on_disk: tuple[FileOnDisk, ...]) -> Iterator[Suggestion]:
    base = without_level(model)
    for one in on_disk:
        if one.model != model and without_level(one.model) == base:
            yield Suggestion(name=one.model, size_bytes=one.size_bytes, is_here=True)


def _in_catalogue(model: str) -> Iterator[Suggestion]:
    found = find(model)
    if found is None:
        return
    for file in found[0].files:
        yield Suggestion(name=f"{found[0].name}:{file.quantization}", size_bytes=file.size_bytes, is_here=False)
