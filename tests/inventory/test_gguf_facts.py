"""What a header says is read from the header, never guessed from the file's name."""

import io

import pytest

from meshllm.inventory.gguf import parse_header
from meshllm.inventory.gguf_facts import ModelFacts, facts, is_projector
from meshllm.inventory.invalid import InvalidModel, InvalidModelError
from tests.inventory.gguf_builder import Tensor, build, llama


def facts_of(metadata: dict[str, object], tensors: tuple[Tensor, ...] = (Tensor(),)) -> ModelFacts:
    """Return the facts of a file in memory."""
    content = build(metadata, tensors)
    return facts(parse_header(io.BytesIO(content), len(content)))


def code_of(metadata: dict[str, object]) -> InvalidModel:
    """Return why the facts are refused."""
    with pytest.raises(InvalidModelError) as caught:
        facts_of(metadata)
    return caught.value.code


def bert(**changes: object) -> dict[str, object]:
    """Return the metadata of a small embedding model."""
    plain = {key.replace("llama.", "bert."): value for key, value in llama(tokenizer__chat_template=None).items()}
    return {
        **plain,
        "general.architecture": "bert",
        **{key.replace("__", "."): value for key, value in changes.items()},
    }


def test_the_numbers_of_the_memory_arithmetic_are_read() -> None:
    """Lengths of keys and values follow from the embedding where they are not stated."""
    found = facts_of(llama())

    shape = found.architecture
    assert (shape.name, shape.layers, shape.embedding, shape.heads, shape.kv_heads) == ("llama", 2, 64, 4, 2)
    assert (shape.key_length, shape.value_length, shape.vocabulary, shape.context_tokens) == (16, 16, 3, 2048)
    assert shape.kv_bytes_per_token == 2 * 2 * (16 + 16) * 2
    assert (found.parameters, found.display_name) == (128, "Test Model")


def test_stated_lengths_win_over_derived_ones() -> None:
    """Gemma's heads are wider than embedding divided by heads."""
    found = facts_of(llama(llama__attention__key_length=256, llama__attention__value_length=128))

    assert (found.architecture.key_length, found.architecture.value_length) == (256, 128)


def test_heads_that_differ_between_layers_are_summed() -> None:
    """Hybrid models have layers without any cache."""
    found = facts_of(llama(llama__attention__head_count_kv=[0, 3]))

    assert found.architecture.kv_heads == 3
    assert found.architecture.kv_bytes_per_token == 3 * (16 + 16) * 2


def test_without_kv_heads_every_head_has_its_own() -> None:
    """That is what the format says of a missing key."""
    found = facts_of(llama(llama__attention__head_count_kv=None))

    assert found.architecture.kv_heads == 4


@pytest.mark.parametrize(
    ("changes", "tensors", "expected"),
    [
        ({}, (Tensor(),), "Q4_K_M"),
        ({"general__file_type": 7}, (Tensor(),), "Q8_0"),
        ({"general__file_type": 1024}, (Tensor(), Tensor("b", kind=8, dimensions=(32, 64), size_bytes=2176)), "Q8_0"),
        ({"general__file_type": None}, (Tensor(),), "F32"),
        ({"general__file_type": "x"}, (Tensor(),), "F32"),
    ],
)
def test_the_quantisation_is_stated_or_that_of_most_weights(
    changes: dict[str, object], tensors: tuple[Tensor, ...], expected: str
) -> None:
    """Names are those of llama.cpp."""
    found = facts_of(llama(**changes), tensors)

    assert found.quantization == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (llama(), {"chat", "completion"}),
        (llama(tokenizer__chat_template="{% if tools %}"), {"chat", "completion", "tools"}),
        (llama(tokenizer__chat_template__tool_use="x"), {"chat", "completion", "tools"}),
        (llama(tokenizer__chat_template=None), {"completion"}),
        (llama(llama__pooling_type=3), {"embedding"}),
        (llama(llama__pooling_type=4), {"rerank"}),
        (bert(), {"embedding"}),
        (bert(bert__pooling_type=4), {"rerank"}),
    ],
)
def test_capabilities_follow_from_the_header(metadata: dict[str, object], expected: set[str]) -> None:
    """A model that pools gives vectors, and no text."""
    found = facts_of(metadata)

    assert found.capabilities == expected


def test_an_encoder_with_a_classifier_is_a_reranker() -> None:
    """Files of before 2025 do not state it otherwise."""
    found = facts_of(bert(), (Tensor(), Tensor("cls.output.weight")))

    assert found.capabilities == {"rerank"}


@pytest.mark.parametrize(
    "metadata",
    [
        llama(general__type="mmproj"),
        llama(general__type="adapter"),
        llama(general__type="imatrix"),
        llama(general__type=7),
        llama(general__architecture="clip"),
    ],
)
def test_what_is_no_model_is_said_to_be_none(metadata: dict[str, object]) -> None:
    """Projectors, adapters and importance matrices are GGUF files too."""
    assert code_of(metadata) is InvalidModel.NOT_A_MODEL


@pytest.mark.parametrize(("kind", "expected"), [("mmproj", True), ("adapter", False)])
def test_projectors_are_told_apart(kind: str, expected: bool) -> None:
    """They are used beside their model."""
    content = build(llama(general__type=kind))

    header = parse_header(io.BytesIO(content), len(content))

    assert is_projector(header) is expected


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"general__architecture": None}, InvalidModel.MISSING_METADATA),
        ({"general__architecture": 5}, InvalidModel.MISSING_METADATA),
        ({"general__architecture": "a\nb"}, InvalidModel.MISSING_METADATA),
        ({"llama__block_count": None}, InvalidModel.MISSING_METADATA),
        ({"llama__block_count": 0}, InvalidModel.BAD_VALUE),
        ({"llama__block_count": "two"}, InvalidModel.BAD_VALUE),
        ({"llama__block_count": True}, InvalidModel.BAD_VALUE),
        ({"llama__block_count": 5000}, InvalidModel.BAD_VALUE),
        ({"llama__embedding_length": 2**31}, InvalidModel.BAD_VALUE),
        ({"llama__attention__head_count": -1.0}, InvalidModel.BAD_VALUE),
        ({"llama__attention__head_count_kv": []}, InvalidModel.BAD_VALUE),
        ({"llama__attention__head_count_kv": [1, -1]}, InvalidModel.BAD_VALUE),
        ({"llama__attention__head_count_kv": list(range(1025))}, InvalidModel.BAD_VALUE),
    ],
)
def test_numbers_that_make_no_sense_are_refused(changes: dict[str, object], code: InvalidModel) -> None:
    """The memory arithmetic divides by some of them."""
    assert code_of(llama(**changes)) is code


def test_the_vocabulary_may_be_stated_as_a_number() -> None:
    """Files without a tokenizer state its size only."""
    found = facts_of(llama(tokenizer__ggml__tokens=None, llama__vocab_size=77))

    assert found.architecture.vocabulary == 77


def test_control_characters_are_left_out_of_the_name() -> None:
    """The name is shown in terminals."""
    found = facts_of(llama(general__name="Evil\x1b[2J\nName"))

    assert found.display_name == "Evil[2JName"
