"""What a model takes of each machine that shares it."""

from dataclasses import replace

from meshllm.core.limits import MIB
from meshllm.core.serving.splits.model import split_model
from tests.core.builders import a_spec


def test_a_layer_is_its_part_of_the_file_and_a_tenth_with_its_part_of_the_cache() -> None:
    """Layers differ, and the cache lies where its layer does."""
    model = split_model(a_spec(size_bytes=300 * MIB, layers=30))

    kv_layer = 3 * (64 + 64) * 2 * 4096
    assert (model.layers, model.layer_bytes) == (30, 11 * MIB + kv_layer)
    assert (model.model, model.digest, model.size_bytes) == ("tiny", "sha256:tiny", 300 * MIB)


def test_the_context_is_useful_or_what_the_model_was_trained_for_or_as_wished() -> None:
    """One request is computed at a time."""
    assert split_model(a_spec(context_tokens=131_072)).context_tokens == 4096
    assert split_model(a_spec(context_tokens=2048)).context_tokens == 2048
    assert split_model(a_spec(context_tokens=0)).context_tokens == 4096
    wide = split_model(a_spec(), 8192)
    assert wide.context_tokens == 8192
    assert wide.layer_bytes > split_model(a_spec()).layer_bytes


def test_the_host_has_the_token_table_the_output_layer_and_the_logits() -> None:
    """Of the vocabulary; a worker has none of them."""
    model = split_model(a_spec())

    weights = 49152 * 576
    logits = 512 * 4 * 49152
    assert model.host_beside_bytes - model.worker_beside_bytes == 2 * int(weights * 1.0625) + logits
    assert model.worker_beside_bytes == 64 * MIB + 512 * 4 * 8 * 576


def test_the_ends_of_a_fine_model_are_as_fine_as_its_layers() -> None:
    """Two bytes a weight throughout."""
    half = a_spec(size_bytes=270_000_000)

    assert split_model(half).host_beside_bytes > split_model(a_spec()).host_beside_bytes
    assert split_model(replace(half, parameters=0)).host_beside_bytes == split_model(a_spec()).host_beside_bytes


def test_a_token_sends_its_activations_to_a_worker_and_back() -> None:
    """Some kilobytes, and no logits."""
    assert split_model(a_spec()).hop_bytes == 2 * 4 * 576


def test_a_file_without_layers_can_be_asked_about() -> None:
    """The plan says then that it cannot be split."""
    assert split_model(a_spec(layers=0)).layers == 0
