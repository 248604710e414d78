"""What a GGUF header says of a model: architecture, size, quantisation, capabilities.

Owns the meaning of metadata keys. Decides whether a header describes a model at all. Doesn't know how
headers are read, nor where files lie.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meshllm.core.catalog import Architecture
from meshllm.inventory.gguf import GgufHeader, Skipped, Value
from meshllm.inventory.invalid import InvalidModel, InvalidModelError

FILE_TYPES: Final[Mapping[int, str]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
    36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4", 40: "Q1_0",
}  # fmt: skip
"""`general.file_type` -> the name that llama.cpp prints."""

_ENCODERS: Final = frozenset({
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "gemma-embedding", "llama-embed", "t5encoder", "gte",
})  # fmt: skip
"""Architectures that give vectors, never text, also where no pooling is stated."""
_PROJECTOR: Final = "clip"
_POOLING_NONE: Final = 0
_POOLING_RANK: Final = 4
_LAYERS_MAX: Final = 4_096
_WIDTH_MAX: Final = 2**24
_CONTEXT_MAX: Final = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What one header says of its model."""

    architecture: Architecture
    parameters: int
    quantization: str
    capabilities: frozenset[str]
    display_name: str
    chat_template: str


def is_projector(header: GgufHeader) -> bool:
    """Tell whether the file is a multimodal projector, which goes with a model."""
    metadata = header.metadata
    return metadata.get("general.type") == "mmproj" or metadata.get("general.architecture") == _PROJECTOR


def facts(header: GgufHeader) -> ModelFacts:
    """Return what a header says of its model. Raises InvalidModelError."""
    metadata = header.metadata
    kind = metadata.get("general.type", "model")
    if is_projector(header) or kind != "model":
        message = f"is no model but {kind if isinstance(kind, str) and kind.isprintable() else 'something else'!r:.40}"
        raise InvalidModelError(InvalidModel.NOT_A_MODEL, message)
    architecture = _architecture(metadata)
    template = _text(metadata, "tokenizer.chat_template")
    return ModelFacts(
        architecture=architecture,
        parameters=header.tensors.parameters,
        quantization=quantization(header),
        capabilities=_capabilities(header, architecture.name, template),
        display_name=_display_name(metadata),
        chat_template=template,
    )


def quantization(header: GgufHeader) -> str:
    """Return the quantisation as llama.cpp calls it; by the tensors where the header does not say."""
    stated = header.metadata.get("general.file_type")
    if isinstance(stated, int) and stated in FILE_TYPES:
        return FILE_TYPES[stated]
    types = header.tensors.types
    return max(types, key=lambda name: (types[name], name), default="")


def _architecture(metadata: Mapping[str, Value]) -> Architecture:
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or not name or len(name) > 64 or not name.isprintable():
        raise InvalidModelError(InvalidModel.MISSING_METADATA, "the header names no architecture")
    layers = _number(metadata, f"{name}.block_count", None, _LAYERS_MAX)
    embedding = _number(metadata, f"{name}.embedding_length", None, _WIDTH_MAX)
    heads = _largest(metadata, f"{name}.attention.head_count", 0)
    kv_heads = _largest(metadata, f"{name}.attention.head_count_kv", heads)
    default_length = embedding // heads if heads else 0
    return Architecture(
        name=name,
        layers=layers,
        embedding=embedding,
        heads=heads,
        kv_heads=kv_heads,
        key_length=_number(metadata, f"{name}.attention.key_length", default_length, _WIDTH_MAX),
        value_length=_number(metadata, f"{name}.attention.value_length", default_length, _WIDTH_MAX),
        vocabulary=_vocabulary(metadata, name),
        context_tokens=_number(metadata, f"{name}.context_length", 0, _CONTEXT_MAX),
        kv_heads_total=_kv_heads_total(metadata, name, layers),
    )


def _number(metadata: Mapping[str, Value], key: str, default: int | None, limit: int) -> int:
    """Return a count from the header. Without a default it has to be there and to be positive."""
    value = metadata.get(key)
    if value is None and default is not None:
        return default
    if value is None:
        raise InvalidModelError(InvalidModel.MISSING_METADATA, f"the header lacks {key!a}")
    if not _is_count(value, limit) or (default is None and value == 0):
        raise InvalidModelError(InvalidModel.BAD_VALUE, f"the header's {key!a} is no sensible number")
    return int(value) if isinstance(value, int) else 0


def _is_count(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


def _largest(metadata: Mapping[str, Value], key: str, default: int) -> int:
    """Return a count that may be stated once or for each layer: the largest."""
    value = metadata.get(key)
    if not isinstance(value, tuple):
        return _number(metadata, key, default, _WIDTH_MAX)
    if not value or not all(_is_count(item, _WIDTH_MAX) for item in value):
        raise InvalidModelError(InvalidModel.BAD_VALUE, f"the header's {key!a} has no sensible numbers")
    return max(item for item in value if isinstance(item, int))


def _kv_heads_total(metadata: Mapping[str, Value], name: str, layers: int) -> int | None:
    """Return the sum over the layers where they are stated one by one; some have no cache at all."""
    value = metadata.get(f"{name}.attention.head_count_kv")
    if not isinstance(value, tuple):
        return None
    return sum(item for item in value[:layers] if isinstance(item, int))


def _vocabulary(metadata: Mapping[str, Value], name: str) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Skipped):
        return tokens.count
    if isinstance(tokens, tuple):
        return len(tokens)
    return _number(metadata, f"{name}.vocab_size", 0, _WIDTH_MAX)


def _capabilities(header: GgufHeader, name: str, template: str) -> frozenset[str]:
    metadata = header.metadata
    pooling = metadata.get(f"{name}.pooling_type", _POOLING_NONE)
    # Rerankers of before 2025 state no rank pooling; only their classifier tells.
    if pooling == _POOLING_RANK or (name in _ENCODERS and header.tensors.has_classifier):
        return frozenset({"rerank"})
    if name in _ENCODERS or pooling != _POOLING_NONE:
        return frozenset({"embedding"})
    able = {"completion"}
    if template:
        able.add("chat")
        if "tools" in template or "tokenizer.chat_template.tool_use" in metadata:
            able.add("tools")
    return frozenset(able)


def _display_name(metadata: Mapping[str, Value]) -> str:
    name = _text(metadata, "general.name")
    return "".join(char for char in name[:128] if char.isprintable()).strip()


def _text(metadata: Mapping[str, Value], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""
