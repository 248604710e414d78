"""Writes small GGUF files for tests, right or wrong in one place.

Owns just enough of the format to write it. Every argument has a value that makes a valid file.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_FORMS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


@dataclass(frozen=True)
class Tensor:
    """One entry of the tensor list; `offset` None puts it behind the one before."""

    name: str | bytes = "token_embd.weight"
    dimensions: Sequence[int] = (32, 4)
    kind: int = 0
    offset: int | None = None
    size_bytes: int = 512


@dataclass(frozen=True)
class Typed:
    """A metadata value with its type: (kind, value), or for arrays (ARRAY, item kind, values)."""

    kind: int
    value: Any
    items: int = 0


def text(value: str | bytes) -> bytes:
    """Return a string as GGUF writes it."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def typed(value: object) -> bytes:
    """Return a metadata value with its type, guessed from Python's where it is not a `Typed`."""
    match value:
        case Typed(kind=kind, value=raw) if kind == ARRAY:
            values = list(raw)
            return struct.pack("<IIQ", ARRAY, value.items, len(values)) + b"".join(
                _item(value.items, v) for v in values
            )
        case Typed(kind=kind, value=raw):
            return struct.pack("<I", kind) + _item(kind, raw)
        case bool():
            return struct.pack("<I?", BOOL, value)
        case int():
            return struct.pack("<II", U32, value)
        case float():
            return struct.pack("<If", F32, value)
        case str() | bytes():
            return struct.pack("<I", STRING) + text(value)
        case list():
            kind = STRING if value and isinstance(value[0], str) else I32
            return typed(Typed(ARRAY, value, kind))
    raise TypeError(value)


def _item(kind: int, value: Any) -> bytes:
    return text(value) if kind == STRING else struct.pack(f"<{_FORMS[kind]}", value)


def llama(**changes: object) -> dict[str, object]:
    """Return the metadata of a small chat model, with changes; a value of None leaves a key out."""
    metadata = {
        "general.architecture": "llama",
        "general.name": "Test Model",
        "general.file_type": 15,
        "llama.block_count": 2,
        "llama.context_length": 2048,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": ["a", "b", "c"],
        "tokenizer.chat_template": "{{ messages }}",
    }
    metadata |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in metadata.items() if value is not None}


def build(
    metadata: Mapping[str, object] | Sequence[tuple[str | bytes, object]] | None = None,
    tensors: Sequence[Tensor] = (Tensor(),),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensor_count: int | None = None,
    key_count: int | None = None,
    alignment: int = 32,
    cut_bytes: int = 0,
) -> bytes:
    """Return a whole file."""
    pairs = list(
        llama().items() if metadata is None else metadata.items() if isinstance(metadata, Mapping) else metadata
    )
    counts = (len(tensors) if tensor_count is None else tensor_count, len(pairs) if key_count is None else key_count)
    head = magic + struct.pack("<IQQ", version, *counts)
    head += b"".join(text(key) + typed(value) for key, value in pairs)
    end = 0
    for tensor in tensors:
        offset = end if tensor.offset is None else tensor.offset
        head += text(tensor.name) + struct.pack("<I", len(tensor.dimensions))
        head += struct.pack(f"<{len(tensor.dimensions)}Q", *tensor.dimensions) + struct.pack("<IQ", tensor.kind, offset)
        end = max(end, -(-(offset + tensor.size_bytes) // alignment) * alignment) if offset < 2**40 else end
    padding = -len(head) % alignment
    whole = head + bytes(padding) + bytes(end)
    return whole[: len(whole) - cut_bytes]


def write(path: Path, *args: object, **kwargs: object) -> Path:
    """Write a file as `build` makes it; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(build(*args, **kwargs))  # type: ignore[arg-type]
    return path
