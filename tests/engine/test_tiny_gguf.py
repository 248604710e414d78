"""The model of the self-test: a GGUF file that others can read."""

from pathlib import Path

import gguf

from meshllm.engine.tiny_gguf import LAYERS, TOKENS, tiny_model


def test_file_is_what_the_format_says(tmp_path: Path) -> None:
    """Read by the reference implementation; that llama.cpp computes it is shown with the real engine."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_model())

    read = gguf.GGUFReader(path)

    assert read.fields["general.architecture"].contents() == "llama"
    assert read.fields["llama.block_count"].contents() == LAYERS
    assert len(read.fields["tokenizer.ggml.tokens"].contents()) == len(TOKENS)
    shapes = {tensor.name: tuple(int(size) for size in tensor.shape) for tensor in read.tensors}
    assert shapes["blk.1.ffn_down.weight"] == (64, 32)
    assert shapes["output.weight"] == (32, len(TOKENS))
    assert all(0 < abs(float(tensor.data.flat[0])) < 1 for tensor in read.tensors)


def test_file_is_the_same_every_time() -> None:
    """A self-test that fails today fails tomorrow."""
    assert tiny_model() == tiny_model()
