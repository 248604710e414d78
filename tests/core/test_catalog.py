"""Ids follow from file names, and the cache's size from the architecture."""

import pytest

from meshllm.core.catalog import Architecture, CatalogFile, model_id_of, shard_of


def architecture(**changes) -> Architecture:
    """Return a small architecture."""
    numbers = {"layers": 4, "embedding": 64, "heads": 8, "kv_heads": 2, "key_length": 8, "value_length": 16}
    return Architecture(name="llama", vocabulary=100, context_tokens=2048, **(numbers | changes))


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("Foo-Q4_0.gguf", "Foo-Q4_0"),
        ("dir/sub/Foo.GGUF", "Foo"),
        ("Foo-00001-of-00003.gguf", "Foo"),
        ("Foo", "Foo"),
        ("Foo-1-of-3.gguf", "Foo-1-of-3"),
        ("Foo.v1.gguf", "Foo.v1"),
    ],
)
def test_the_id_is_the_stem_without_the_shard(filename: str, expected: str) -> None:
    """All files of a set share one id."""
    assert model_id_of(filename) == expected
    assert CatalogFile(quantization="Q", filename=filename, size_bytes=1).stem == expected


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("Foo-00002-of-00003", ("Foo", 2, 3)),
        ("a-b-00001-of-00001", ("a-b", 1, 1)),
        ("Foo-0001-of-00003", None),
        ("Foo-0000x-of-00003", None),
        ("Foo-00001-to-00003", None),
        ("Foo-\u0661\u0661\u0661\u0661\u0661-of-00003", None),
        ("00001-of-00003", None),
    ],
)
def test_shards_are_recognised_strictly(stem: str, expected: tuple[str, int, int] | None) -> None:
    """Five digits each, as llama.cpp writes them."""
    assert shard_of(stem) == expected


def test_the_cache_takes_what_all_heads_of_all_layers_take() -> None:
    """Sixteen bits for each number."""
    plain = architecture()

    assert plain.kv_bytes_per_token == 4 * 2 * (8 + 16) * 2


def test_layers_that_differ_are_counted_by_their_sum() -> None:
    """A hybrid model's other layers keep no cache."""
    hybrid = architecture(kv_heads_total=2)

    assert hybrid.kv_bytes_per_token == 2 * (8 + 16) * 2
    assert architecture(kv_heads_total=0).kv_bytes_per_token == 0
