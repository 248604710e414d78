"""A model of random numbers, for the self-test of an engine: small, and whole enough for llama.cpp to compute it.

Owns the bytes of that one GGUF file. Doesn't know what is done with it. The format is described in ggml's
docs/gguf.md; nothing but the standard library writes it, because the package for that is not always installed.
"""

import random
import struct
from array import array
from collections.abc import Iterator

VERSION = 3
ALIGNMENT = 32
FLOAT32 = 0
EMBEDDING, FEED_FORWARD, LAYERS, HEADS, CONTEXT = 32, 64, 2, 2, 128
TOKENS = ("<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256)))
TOKEN_TYPES = (2, 3, 3, *[6] * 256)
"""Unknown, control, control, bytes."""


def tiny_model() -> bytes:
    """Return a GGUF file with two layers of a llama."""
    tensors = list(_tensors())
    head, data = bytearray(), bytearray()
    for name, shape in tensors:
        head += _text(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", size) for size in shape) + struct.pack("<IQ", FLOAT32, len(data))
        data += _padded(_numbers(shape, name))
    facts = list(_facts())
    start = struct.pack("<4sIQQ", b"GGUF", VERSION, len(tensors), len(facts))
    return _padded(start + b"".join(facts) + bytes(head)) + bytes(data)


def _facts() -> Iterator[bytes]:
    yield _text("general.architecture") + _typed_text("llama")
    for name, value in (
        ("block_count", LAYERS), ("context_length", CONTEXT), ("embedding_length", EMBEDDING),
        ("feed_forward_length", FEED_FORWARD), ("attention.head_count", HEADS),
    ):  # fmt: skip
        yield _text(f"llama.{name}") + struct.pack("<II", 4, value)
    yield _text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)
    yield _text("tokenizer.ggml.model") + _typed_text("llama")
    count = struct.pack("<Q", len(TOKENS))
    array_of_texts, array_of_floats, array_of_numbers = (struct.pack("<II", 9, kind) for kind in (8, 6, 5))
    yield _text("tokenizer.ggml.tokens") + array_of_texts + count + b"".join(map(_text, TOKENS))
    yield (
        _text("tokenizer.ggml.scores") + array_of_floats + count + struct.pack(f"<{len(TOKENS)}f", *[0.0] * len(TOKENS))
    )
    yield _text("tokenizer.ggml.token_type") + array_of_numbers + count + struct.pack(f"<{len(TOKENS)}i", *TOKEN_TYPES)


def _tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors with their sizes, that of a row first."""
    yield "token_embd.weight", (EMBEDDING, len(TOKENS))
    yield "output_norm.weight", (EMBEDDING,)
    yield "output.weight", (EMBEDDING, len(TOKENS))
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (EMBEDDING,)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{name}.weight", (EMBEDDING, EMBEDDING)
        for name in ("ffn_gate", "ffn_up"):
            yield f"blk.{layer}.{name}.weight", (EMBEDDING, FEED_FORWARD)
        yield f"blk.{layer}.ffn_down.weight", (FEED_FORWARD, EMBEDDING)


def _numbers(shape: tuple[int, ...], seed: str) -> bytes:
    """Return small random numbers, the same for each name."""
    count = 1
    for size in shape:
        count *= size
    drawn = random.Random(seed)
    numbers = array("f", (drawn.uniform(-0.05, 0.05) for _ in range(count)))
    return numbers.tobytes()


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed_text(text: str) -> bytes:
    return struct.pack("<I", 8) + _text(text)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
