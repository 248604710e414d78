"""Reads the header of a GGUF file, version 2 or 3, without trusting a byte of it.

Owns the file format and its limits: every count, offset and size is checked before it is used. Decides
whether a file is a whole GGUF file. Doesn't know what the metadata mean: that is `gguf_facts`.

Invariants: `InvalidModelError` is the only exception; nothing blocks on a pipe or a device; big arrays
are counted and skipped. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from meshllm.core import limits
from meshllm.inventory.byte_reader import OBJECT_BYTES, BoundedReader
from meshllm.inventory.invalid import InvalidModel, InvalidModelError

_MAGIC: Final = b"GGUF"
_OLD_MAGICS: Final = frozenset({b"lmgg", b"fmgg", b"tjgg", b"algg"})
_VERSIONS: Final = (2, 3)
_DEFAULT_ALIGNMENT: Final = 32
_ALIGNMENT_MAX: Final = 65_536
_DIMENSIONS_MAX: Final = 4
_CLASSIFIERS: Final = frozenset({"cls.weight", "cls.output.weight"})
_SIGNED_MAX: Final = 2**63 - 1

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"),
    4: struct.Struct("<I"), 5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<?"),
    10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d"),
}  # fmt: skip
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_TENSOR_TAIL: Final = struct.Struct("<IQ")

TENSOR_TYPES: Final[Mapping[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Tensor type -> (name, elements of one block, bytes of one block)."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A value that was too big to keep: an array of `count` items, or a string of `count` bytes."""

    kind: str
    """`array` or `string`."""
    count: int


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSummary:
    """What the list of tensors amounts to."""

    count: int
    parameters: int
    """Elements of all tensors together."""
    types: Mapping[str, int]
    """Elements by tensor type."""
    has_classifier: bool = False
    """A head that scores a text instead of continuing it, as rerankers have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """A checked header. Sizes in bytes, from the start of the file."""

    version: int
    metadata: Mapping[str, Value]
    tensors: TensorSummary
    alignment: int
    data_start_bytes: int
    data_end_bytes: int
    """Where the last tensor ends: the file has at least this many bytes."""
    size_bytes: int


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of a file. Raises InvalidModelError, and nothing else."""
    try:
        # Asked before opening: to open a device can already have an effect.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidModelError(InvalidModel.NOT_A_FILE, "is not a regular file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidModelError(InvalidModel.NOT_A_FILE, "is not a regular file")
            return parse_header(stream, status.st_size)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidModelError(InvalidModel.UNREADABLE, f"cannot be read: {reason}") from error
    except ValueError as error:  # a NUL in the path
        raise InvalidModelError(InvalidModel.UNREADABLE, f"cannot be read: {error}") from error


def parse_header(stream: BinaryIO, size_bytes: int) -> GgufHeader:
    """Read and check the header of a GGUF file of a known size. Raises InvalidModelError or OSError."""
    if size_bytes == 0:
        raise InvalidModelError(InvalidModel.EMPTY, "the file is empty")
    reader = BoundedReader(stream, size_bytes)
    version = _read_preamble(reader)
    tensor_count = reader.number(_U64)
    key_count = reader.number(_U64)
    _check_count("tensors", tensor_count, limits.GGUF_TENSORS)
    _check_count("metadata keys", key_count, limits.GGUF_KEY_VALUES)
    if key_count == 0:
        raise InvalidModelError(InvalidModel.MISSING_METADATA, "the header has no metadata")
    metadata = _read_metadata(reader, key_count)
    if tensor_count == 0 and not _is_shard(metadata):
        raise InvalidModelError(InvalidModel.BAD_TENSOR, "the file has no tensors")
    alignment = _alignment_of(metadata)
    tensors, extents = _read_tensors(reader, tensor_count, alignment)
    data_start = -(-reader.position // alignment) * alignment
    data_end = data_start + _check_extents(extents)
    if data_end > size_bytes and extents:
        message = f"the file has {size_bytes} of at least {data_end} bytes"
        raise InvalidModelError(InvalidModel.INCOMPLETE, message)
    return GgufHeader(
        version=version,
        metadata=metadata,
        tensors=tensors,
        alignment=alignment,
        data_start_bytes=data_start,
        data_end_bytes=data_end if extents else reader.position,
        size_bytes=size_bytes,
    )


def _check_count(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise InvalidModelError(InvalidModel.TOO_LARGE, f"the header announces {count} {what}, over {limit}")


def _read_preamble(reader: BoundedReader) -> int:
    """Take magic and version; return the version."""
    magic = reader.take(4)
    if magic in _OLD_MAGICS:
        message = "is a GGML file of 2023 or older; convert it to GGUF"
        raise InvalidModelError(InvalidModel.NOT_GGUF, message)
    if magic != _MAGIC:
        raise InvalidModelError(InvalidModel.NOT_GGUF, "is not a GGUF file")
    raw = reader.take(4)
    version = int.from_bytes(raw, "little")
    if version not in _VERSIONS:
        if 0 < int.from_bytes(raw, "big") <= max(_VERSIONS):
            message = "was written for a big-endian machine"
            raise InvalidModelError(InvalidModel.BIG_ENDIAN, message)
        message = f"has GGUF version {version}; versions 2 and 3 can be read"
        raise InvalidModelError(InvalidModel.UNSUPPORTED_VERSION, message)
    return version


def _read_metadata(reader: BoundedReader, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(count):
        key = reader.name("metadata key")
        if key in metadata:
            raise InvalidModelError(InvalidModel.DUPLICATE, f"the metadata key {_shown(key)} occurs twice")
        metadata[key] = _read_value(reader, key)
    return metadata


def _read_value(reader: BoundedReader, key: str) -> Value:
    kind = reader.number(_U32)
    if kind == _STRING:
        return _read_string(reader)
    if kind != _ARRAY:
        return _read_scalar(reader, kind, key)
    kind, count = reader.number(_U32), reader.number(_U64)
    reader.charge_items(count)
    if kind != _STRING and kind not in _SCALARS:
        what = "arrays" if kind == _ARRAY else f"values of the unknown type {kind}"
        raise InvalidModelError(
            InvalidModel.BAD_VALUE,
            f"the metadata key {_shown(key)} is an array of {what}",
        )
    if count <= limits.GGUF_ARRAY_KEPT_ITEMS and reader.has_memory_for(count * OBJECT_BYTES):
        return _read_items(reader, kind, count)
    if kind == _STRING:
        reader.skip_strings(count)
    else:
        reader.skip(count * _SCALARS[kind].size)
    return Skipped("array", count)


def _read_items(reader: BoundedReader, kind: int, count: int) -> tuple[Scalar, ...] | Skipped:
    """Take a short array; drop its items where they turn out too large."""
    if kind in _SCALARS:
        form = struct.Struct(f"<{count}{_SCALARS[kind].format[-1]}")
        return form.unpack(reader.take(form.size))
    items = [_read_string(reader) for _ in range(count)]
    kept = tuple(item for item in items if isinstance(item, str))
    return kept if len(kept) == count else Skipped("array", count)


def _read_scalar(reader: BoundedReader, kind: int, key: str) -> Scalar:
    form = _SCALARS.get(kind)
    if form is None:
        message = f"the metadata key {_shown(key)} has the unknown type {kind}"
        raise InvalidModelError(InvalidModel.BAD_VALUE, message)
    return reader.number(form)


def _read_string(reader: BoundedReader) -> str | Skipped:
    length = reader.string_length()
    if length > limits.GGUF_VALUE_BYTES or not reader.has_memory_for(length):
        reader.skip(length)
        return Skipped("string", length)
    return reader.take(length).decode(errors="replace")


def _is_shard(metadata: Mapping[str, Value]) -> bool:
    """Tell whether the file is one of a set: the first of a set may carry metadata only."""
    count = metadata.get("split.count")
    return isinstance(count, int) and count > 1


def _alignment_of(metadata: Mapping[str, Value]) -> int:
    value = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or not isinstance(value, int) or not 8 <= value <= _ALIGNMENT_MAX or value & (value - 1):
        raise InvalidModelError(
            InvalidModel.BAD_VALUE,
            "the alignment is not a power of two between 8 and 65536",
        )
    return value


def _read_tensors(reader: BoundedReader, count: int, alignment: int) -> tuple[TensorSummary, list[tuple[int, int]]]:
    """Take the list of tensors; return its summary and the (start, end) of each in the data."""
    names: set[str] = set()
    types: dict[str, int] = {}
    extents: list[tuple[int, int]] = []
    for _ in range(count):
        name = reader.name("tensor name")
        if name in names:
            raise InvalidModelError(InvalidModel.DUPLICATE, f"the tensor {_shown(name)} occurs twice")
        names.add(name)
        row, elements = _read_shape(reader, name)
        kind, offset = _TENSOR_TAIL.unpack(reader.take(_TENSOR_TAIL.size))
        type_name, size = _size_of(name, kind, row, elements)
        if offset % alignment:
            raise InvalidModelError(InvalidModel.BAD_TENSOR, f"the tensor {_shown(name)} starts unaligned")
        if offset + size > _SIGNED_MAX:
            raise InvalidModelError(
                InvalidModel.BAD_TENSOR,
                f"the tensor {_shown(name)} lies beyond any file",
            )
        types[type_name] = types.get(type_name, 0) + elements
        extents.append((offset, offset + size))
    has_classifier = not names.isdisjoint(_CLASSIFIERS)
    summary = TensorSummary(count=count, parameters=sum(types.values()), types=types, has_classifier=has_classifier)
    return summary, extents


def _read_shape(reader: BoundedReader, name: str) -> tuple[int, int]:
    """Take a tensor's dimensions; return (elements of a row, elements)."""
    dimensions = reader.number(_U32)
    if not 1 <= dimensions <= _DIMENSIONS_MAX:
        raise InvalidModelError(
            InvalidModel.BAD_TENSOR,
            f"the tensor {_shown(name)} has {dimensions} dimensions",
        )
    sizes = struct.unpack(f"<{dimensions}Q", reader.take(8 * dimensions))
    elements = 1
    for size in sizes:
        elements *= size
    if not 0 < elements <= _SIGNED_MAX:
        raise InvalidModelError(
            InvalidModel.BAD_TENSOR,
            f"the tensor {_shown(name)} has an impossible shape",
        )
    return sizes[0], elements


def _size_of(name: str, kind: int, row: int, elements: int) -> tuple[str, int]:
    """Return a tensor's (type name, bytes)."""
    if kind not in TENSOR_TYPES:
        message = f"the tensor {_shown(name)} has the unknown type {kind}"
        raise InvalidModelError(InvalidModel.BAD_TENSOR, message)
    type_name, block, block_bytes = TENSOR_TYPES[kind]
    if row % block:
        message = f"the rows of the tensor {_shown(name)} are no whole blocks of {type_name}"
        raise InvalidModelError(InvalidModel.BAD_TENSOR, message)
    return type_name, elements // block * block_bytes


def _check_extents(extents: list[tuple[int, int]]) -> int:
    """Return where the last tensor ends in the data, after checking that none overlap."""
    end = 0
    for start, stop in sorted(extents):
        if start < end:
            raise InvalidModelError(InvalidModel.BAD_TENSOR, "tensors overlap")
        end = stop
    return end


def _shown(name: str) -> str:
    """Return a name from the file as it may be shown: short and printable."""
    return ascii(name if len(name) <= 64 else f"{name[:61]}...")
