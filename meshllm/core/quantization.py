"""Levels of quantisation: what people write for them, and which GGUF file has one.

Owns the spellings (`4`, `q4k`, `Q4_K_M`) and the preference among files of the same number of bits. llama.cpp does
not quantise while it loads, so a level chooses a file that has it already. Doesn't know where files are.
"""

import re
from collections.abc import Collection, Iterable

BITS = ("2", "3", "4", "5", "6", "8", "16")
_PREFERRED = {
    "2": ("Q2_K", "Q2_K_L"), "3": ("Q3_K_M", "Q3_K_L", "Q3_K_S"), "4": ("Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0"),
    "5": ("Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0"), "6": ("Q6_K", "Q6_K_L"), "8": ("Q8_0",), "16": ("BF16", "F16", "FP16"),
}  # fmt: skip
"""By bits, best first; others of as many bits come after."""
_GGUF = re.compile(r"(?:UD-)?(?:(?:I|T)?Q\d(?:_[A-Z0-9]+)*|BF16|F16|F32|FP16|MXFP4(?:_\w+)?|NVFP4)")
_JOINTS = ("-", ".", ":")
"""What stands between a model's name and its level."""
_SHORT = re.compile(r"Q(\d)_?K")
_OTHERS = re.compile(r"(?:HQQ|AFQ|FP|INT|NF)[-_]?(\d)(?:_\w+)?")
"""Levels of other programs' formats, by their bits."""


def level_of(text: str) -> str:
    """Return what to look for: a number of bits, or the name of one GGUF quantisation. Raises ValueError."""
    plain = text.strip().upper().replace("-BIT", "").replace("BIT", "")
    if plain in BITS:
        return plain
    if (short := _SHORT.fullmatch(plain)) is not None and short[1] in BITS:
        return _PREFERRED[short[1]][0]
    if _GGUF.fullmatch(plain):
        return plain
    if (other := _OTHERS.fullmatch(plain)) is not None and other[1] in BITS:
        nearest = _PREFERRED[other[1]][0]
        raise ValueError(f"{text[:40]} is no GGUF quantisation; the nearest is {nearest}")
    raise ValueError(f"expected bits ({', '.join(BITS)}) or the name of a GGUF quantisation, not {text[:40]!r}")


def nearest_of(text: str) -> str:
    """Return the GGUF quantisation that is nearest to a level, for advice; the usual one where it says nothing."""
    digit = next((bits for bits in reversed(BITS) if bits in text), "4")
    return _PREFERRED[digit][0]


def best_of(level: str, available: Iterable[str]) -> str | None:
    """Return the one of these quantisations that a level means, None where none is of it.

    The name itself, or for a number of bits the one that answers best for its size.
    """
    names = list(available)
    wanted = level.upper()
    if wanted not in BITS:
        return next((name for name in names if name.upper() == wanted), None)
    for preferred in _PREFERRED[wanted]:
        for name in names:
            if name.upper().removeprefix("UD-") == preferred:
                return name
    same = [name for name in names if bits_of(name) == wanted]
    return min(same) if same else None


def name_of_level(asked: str, names: Collection[str]) -> str | None:
    """Return which of these folded names a name with a level means, None where it means none.

    `foo-7b:4` means `foo-7b-q4_k_m`; so does `user/foo-7b-gguf:4`, and `user/repo/foo-7b-q4_k_m.gguf` by its file.
    """
    last = asked.casefold().rpartition("/")[2]
    if last.endswith(".gguf"):
        stem, is_of_hub = last.removesuffix(".gguf"), asked[:1].isalnum() and asked.count("/") >= 2
        return stem if is_of_hub and stem in names else None
    base, colon, level = last.rpartition(":")
    base = base.removesuffix("-gguf")
    if not colon or not base:
        return None
    tails = sorted(
        name[len(base) + 1 :] for name in names if name.startswith(base) and name[len(base) : len(base) + 1] in _JOINTS
    )
    best = best_of(level, tails)
    return next((name for name in names for joint in _JOINTS if name == f"{base}{joint}{best}"), None) if best else None


def bits_of(quantization: str) -> str:
    """Return the bits of a GGUF quantisation as one of `BITS`; empty where its name does not tell."""
    found = re.search(r"\d+", quantization) if _GGUF.fullmatch(quantization.upper()) else None
    return found[0] if found is not None and found[0] in BITS else ""


def without_level(model: str) -> str:
    """Return a model's id, folded, without the quantisation at its end: what all files of one model share."""
    for at, char in enumerate(model):
        if char in _JOINTS and _GGUF.fullmatch(model[at + 1 :].upper()):
            return model[:at].casefold()
    return model.casefold()
