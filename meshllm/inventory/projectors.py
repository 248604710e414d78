"""Which multimodal projector belongs to which model.

Owns the rules about names. Decides: in a folder of its own a model takes the projector beside it; in a folder
of many models only one whose name says so. Doesn't read files.
"""

import re
from collections.abc import Sequence
from typing import Final

from meshllm.inventory.folder_walk import FoundFile

_MARK: Final = re.compile(r"mm-?proj(ector)?", re.IGNORECASE)
_PRECISION: Final = re.compile(r"[-_.](f16|fp16|bf16|f32|fp32|q\d[_a-z0-9]*)$", re.IGNORECASE)
_PREFERENCE: Final = ("f16", "bf16", "q8", "f32")


def projector_for(model: str, projectors: Sequence[FoundFile], *, is_flat: bool) -> FoundFile | None:
    """Return the projector of a model among those in its folder, or None.

    `is_flat`: the folder holds many models, as a models folder itself does.
    """
    named = [file for file in projectors if (base := _base_of(file.stem)) and _folded(model).startswith(base)]
    candidates = named or ([] if is_flat else list(projectors))
    return min(candidates, key=_rank, default=None)


def _base_of(stem: str) -> str:
    """Return the model's name inside a projector's: `mmproj-Foo-7B-f16` names `foo-7b`."""
    return _folded(_PRECISION.sub("", _MARK.sub("", stem)))


def _folded(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.casefold()).strip("-")


def _rank(file: FoundFile) -> tuple[int, str]:
    """Prefer half precision: llama.cpp's own choice; then by name, so that the choice is the same everywhere."""
    precision = _PRECISION.search(file.stem)
    name = precision[1].casefold() if precision else ""
    return next(
        (place for place, known in enumerate(_PREFERENCE) if name.startswith(known)), len(_PREFERENCE)
    ), file.name
