"""A GGUF file of random numbers: real enough for llama.cpp to load, small enough to write in a test."""

from pathlib import Path

import gguf
import numpy as np

EMBEDDING, FEED_FORWARD, LAYERS = 32, 64, 1
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{number:02X}>" for number in range(256)]
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
TOKENS = [*SPECIAL, *BYTES, *LETTERS]
TYPES = [2, 3, 3, *[6] * len(BYTES), *[1] * len(LETTERS)]  # unknown, control, byte, normal


def write_tiny_model(
    path: Path, *, architecture: str = "llama", embeds: bool = False, name: str = "", layers: int = LAYERS,
    embedding: int = EMBEDDING, feed_forward: int = FEED_FORWARD,
) -> Path:  # fmt: skip
    """Write a model, of one small layer unless told; `embeds` gives it what an embedding model has. Return the path.

    Files with different names in them are different models.
    """
    writer = gguf.GGUFWriter(str(path), architecture)
    if name:
        writer.add_name(name)
    writer.add_block_count(layers)
    writer.add_context_length(128)
    writer.add_embedding_length(embedding)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    if embeds:
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types(TYPES)
    numbers = np.random.default_rng(0)
    for tensor, shape in _shapes(layers, embedding, feed_forward).items():
        writer.add_tensor(tensor, (numbers.standard_normal(shape, dtype=np.float32) * np.float32(0.02)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes(layers: int, embedding: int, feed_forward: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by name."""
    square, tall, wide = (embedding, embedding), (feed_forward, embedding), (embedding, feed_forward)
    layer = {
        "attn_norm": (embedding,), "attn_q": square, "attn_k": square, "attn_v": square, "attn_output": square,
        "ffn_norm": (embedding,), "ffn_gate": tall, "ffn_up": tall, "ffn_down": wide,
    }  # fmt: skip
    words = (len(TOKENS), embedding)
    whole: dict[str, tuple[int, ...]] = {
        "token_embd.weight": words, "output_norm.weight": (embedding,), "output.weight": words,
    }  # fmt: skip
    blocks = {f"blk.{n}.{name}.weight": shape for n in range(layers) for name, shape in layer.items()}
    return whole | blocks
