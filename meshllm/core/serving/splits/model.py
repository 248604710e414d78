"""What one model takes of each machine that shares it, layer by layer.

Owns the arithmetic of a split: the bytes of a layer with its part of the KV cache, and what every machine needs beside
its layers. Decides nothing. Doesn't know machines.

All numbers are upper bounds, since a header's layers are of different sizes and a split that runs out of memory takes
several machines with it. A layer is counted with a tenth more than its part of the file, which the usual quantisations
stay below; the token table and the output layer with eight and a half bits a weight at least.
"""

from dataclasses import dataclass

from meshllm.core.catalog import ModelSpec
from meshllm.core.ids import ModelId
from meshllm.core.serving.capacity import MICRO_BATCH_TOKENS, PROCESS_BYTES, USEFUL_CONTEXT_TOKENS

_FLOAT_BYTES = 4
"""Of one number in a computation buffer or on its way to another machine."""
_END_WEIGHT_BYTES = 1.0625
"""Of one weight of the token table or the output layer, at least: they are often kept finer than the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitModel:
    """A model as machines may share it. Without `layers`, only its size is known."""

    model: ModelId
    digest: str = ""
    size_bytes: int
    """Of its file."""
    layers: int = 0
    layer_bytes: int = 0
    """One layer with its part of the KV cache."""
    worker_beside_bytes: int = 0
    """What a worker needs beside its layers: computation buffers and a process."""
    host_beside_bytes: int = 0
    """The same of the host, with the token table, the output layer and its logits."""
    context_tokens: int = 0
    """Of the one request that is computed at a time."""
    hop_bytes: int = 0
    """What one token sends to one worker and back."""


def split_model(spec: ModelSpec, context_tokens: int | None = None) -> SplitModel:
    """Return what a file on disk takes when it is shared, for one request of so much context."""
    shape = spec.architecture
    useful = min(shape.context_tokens or USEFUL_CONTEXT_TOKENS, USEFUL_CONTEXT_TOKENS)
    context = useful if context_tokens is None else context_tokens
    kv_layer = shape.kv_heads * (shape.key_length + shape.value_length) * 2 * context  # the largest layer's
    weights = -(-spec.size_bytes * 11 // (10 * max(shape.layers, 1)))
    buffers = PROCESS_BYTES + MICRO_BATCH_TOKENS * _FLOAT_BYTES * 8 * shape.embedding
    weight_bytes = max(spec.size_bytes / spec.parameters if spec.parameters else 0.0, _END_WEIGHT_BYTES)
    ends = 2 * int(shape.vocabulary * shape.embedding * weight_bytes)
    logits = MICRO_BATCH_TOKENS * _FLOAT_BYTES * shape.vocabulary
    return SplitModel(
        model=spec.id, digest=spec.digest, size_bytes=spec.size_bytes, layers=shape.layers,
        layer_bytes=weights + kv_layer, worker_beside_bytes=buffers, host_beside_bytes=buffers + ends + logits,
        context_tokens=context, hop_bytes=2 * _FLOAT_BYTES * shape.embedding,
    )  # fmt: skip
