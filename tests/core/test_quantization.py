"""Levels of quantisation choose files that have them."""

import pytest

from meshllm.core.ids import ModelId
from meshllm.core.known_models import find
from meshllm.core.names import NameIndex
from meshllm.core.quantization import best_of, bits_of, level_of, nearest_of, without_level


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("4", "4"), (" 8 ", "8"), ("4bit", "4"), ("6-bit", "6"), ("Q4K", "Q4_K_M"), ("q6k", "Q6_K"), ("Q8_0", "Q8_0"),
        ("q4_k_m", "Q4_K_M"), ("bf16", "BF16"), ("IQ4_XS", "IQ4_XS"), ("UD-Q4_K_XL", "UD-Q4_K_XL"), ("TQ1_0", "TQ1_0"),
    ],
)  # fmt: skip
def test_level_is_read_in_every_spelling(text: str, level: str) -> None:
    """Bits stay bits: which file has them is seen when the files are known."""
    assert level_of(text) == level


@pytest.mark.parametrize(
    ("text", "words"), [("HQQ4", "Q4_K_M"), ("fp8", "Q8_0"), ("afq3", "Q3_K_M"), ("7", "expected bits"), ("", "bits")]
)
def test_level_of_another_format_is_refused_with_the_nearest(text: str, words: str) -> None:
    """Somebody who brings a configuration from elsewhere learns what to write."""
    with pytest.raises(ValueError, match=words):
        level_of(text)


@pytest.mark.parametrize(
    ("level", "available", "best"),
    [
        ("4", ["Q8_0", "Q4_0", "Q4_K_M"], "Q4_K_M"),
        ("4", ["Q8_0", "Q4_0"], "Q4_0"),
        ("4", ["IQ4_XS", "UD-Q4_K_XL"], "IQ4_XS"),
        ("4", ["UD-Q4_K_M", "IQ4_XS"], "UD-Q4_K_M"),
        ("4", ["Q8_0", ""], None),
        ("16", ["F16", "BF16"], "BF16"),
        ("q4_k_m", ["Q4_K_S", "Q4_K_M"], "Q4_K_M"),
        ("Q4_K_M", ["Q4_K_S"], None),
    ],
)
@pytest.mark.rows("CFG-11")
def test_best_file_of_a_level_is_chosen(level: str, available: list[str], best: str | None) -> None:
    """A named one exactly; bits by what answers best for its size."""
    assert best_of(level, available) == best


def test_advice_names_a_quantisation_that_exists() -> None:
    """Also where the level says nothing about bits."""
    assert [nearest_of(text) for text in ("4", "Q8_0", "HQQ2", "odd")] == ["Q4_K_M", "Q8_0", "Q2_K", "Q4_K_M"]
    assert [bits_of(text) for text in ("Q4_K_M", "BF16", "F32", "instruct-4b")] == ["4", "16", "", ""]


@pytest.mark.rows("CFG-11")
def test_level_finds_a_catalogue_file_and_one_on_disk() -> None:
    """`name:4` is a name like any other."""
    found = find("qwen3-8b:4")
    on_disk = NameIndex(
        map(ModelId, ("Foo-7B-Q4_0", "Foo-7B-Q4_K_M", "Foo-7B-Q8_0")), {"foo:Q8_0": [ModelId("Foo-7B-Q8_0")]}
    )

    assert found is not None
    assert found[1] is not None
    assert found[1].quantization == "Q4_K_M"
    assert on_disk.resolve("foo-7b:4") == "Foo-7B-Q4_K_M"
    assert on_disk.resolve("Foo-7B:q8_0") == "Foo-7B-Q8_0"
    assert on_disk.resolve("foo:8") == "Foo-7B-Q8_0"
    assert on_disk.resolve("user/Foo-7B-GGUF:4") == "Foo-7B-Q4_K_M"
    assert on_disk.resolve("user/repo/Foo-7B-Q8_0.gguf") == "Foo-7B-Q8_0"
    for path in ("user/repo/other.gguf", "/models/x/Foo-7B-Q8_0.gguf", "../../Foo-7B-Q8_0.gguf", "x/Foo-7B-Q8_0.gguf"):
        assert not isinstance(on_disk.resolve(path), str)
    assert not isinstance(on_disk.resolve("foo-7b:6"), str)
    assert not isinstance(on_disk.resolve(":6"), str)


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("Foo-7B-Q4_K_M", "foo-7b"), ("Foo-7B.Q8_0", "foo-7b"), ("Foo-7B-UD-Q4_K_XL", "foo-7b"), ("Foo-F16", "foo"),
        ("foo-7b:4", "foo-7b:4"), ("mine", "mine"), ("Q4_0", "q4_0"),
    ],
)  # fmt: skip
def test_the_level_at_the_end_of_a_name_is_taken_off(model: str, base: str) -> None:
    """What is left is the same for all files of one model."""
    assert without_level(model) == base
