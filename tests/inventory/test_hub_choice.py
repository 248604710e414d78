"""Names of hub models are taken apart strictly, and the choice among files is the one people expect."""

import pytest

from meshllm.core.catalog import ModelReference
from meshllm.inventory.download_errors import DownloadCode, DownloadError
from meshllm.inventory.hub_choice import HubFile, HubName, choose, listing, parse

GB = 10**9


def files(*sizes: tuple[str, float]) -> list[HubFile]:
    """Return a repository's files from names and gigabytes."""
    return [HubFile(path=path, size_bytes=int(size * GB), sha256=f"sha of {path}") for path, size in sizes]


USUAL = files(
    ("Foo-7B-Q2_K.gguf", 3), ("Foo-7B-Q4_K_M.gguf", 5), ("Foo-7B-Q8_0.gguf", 8), ("Foo-7B-f16.gguf", 15),
    ("mmproj-Foo-7B-f16.gguf", 1), ("Foo-7B-imatrix.gguf", 1),
)  # fmt: skip


def chosen(asked: str, listed: list[HubFile], usable_gb: float = 100) -> ModelReference:
    """Return the choice for a name."""
    return choose(asked, parse(asked), listed, int(usable_gb * GB))


def refused(asked: str, listed: list[HubFile], usable_gb: float = 100) -> DownloadError:
    """Return why there is no choice."""
    with pytest.raises(DownloadError) as caught:
        chosen(asked, listed, usable_gb)
    return caught.value


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("user/repo", HubName(repository="user/repo")),
        (" user/repo:Q4_K_M ", HubName(repository="user/repo", quantization="Q4_K_M")),
        ("hf.co/user/repo:Q8_0", HubName(repository="user/repo", quantization="Q8_0")),
        ("user/repo/file.gguf", HubName(repository="user/repo", path="file.gguf")),
        ("user/repo/Q4/file.gguf", HubName(repository="user/repo", path="Q4/file.gguf")),
        ("https://huggingface.co/user/repo/resolve/main/f.gguf", HubName(repository="user/repo", path="f.gguf")),
    ],
)
def test_the_accepted_forms_are_taken_apart(asked: str, expected: HubName) -> None:
    """Also what is copied from a browser."""
    assert parse(asked) == expected


@pytest.mark.parametrize(
    "asked",
    [
        "", "name", "user/", "/repo", "user/../repo", "user/repo/dir", "user/repo/f.bin", "user/repo/f.gguf:Q4_0",
        "us er/repo", "user/re\npo", "user/repo:Q4;rm", "-x/repo", "user/" + "r" * 100, "a--b/c",
    ],
)  # fmt: skip
def test_other_names_are_refused_with_the_forms(asked: str) -> None:
    """Nothing of the kind reaches the hub."""
    with pytest.raises(DownloadError) as caught:
        parse(asked)

    assert caught.value.code is DownloadCode.UNSUPPORTED
    assert "user/repo:Q4_K_M" in caught.value.message


@pytest.mark.parametrize(
    ("usable_gb", "expected"),
    [(100, "Foo-7B-Q8_0"), (7, "Foo-7B-Q4_K_M"), (4, "Foo-7B-Q2_K"), (0, "Foo-7B-Q4_K_M")],
)
def test_without_a_quantisation_the_best_sensible_one_that_fits_is_taken(usable_gb: float, expected: str) -> None:
    """Never sixteen bits while eight fit; less than four bits only where nothing else does."""
    found = chosen("user/repo", USUAL, usable_gb)

    assert found.id == expected
    assert (found.repository, found.filename, found.asked_as) == ("user/repo", f"{expected}.gguf", "user/repo")
    assert found.sha256 == f"sha of {expected}.gguf"


def test_sixteen_bits_are_taken_where_there_is_nothing_else() -> None:
    """Small embedding models often come so."""
    found = chosen("user/repo", files(("Foo-f16.gguf", 1)))

    assert found.id == "Foo-f16"


def test_where_nothing_fits_both_numbers_are_said() -> None:
    """And how to have it anyway."""
    error = refused("user/repo", USUAL, 2)

    assert error.code is DownloadCode.UNSUPPORTED
    assert "3.0 GB" in error.message
    assert "user/repo:Q2_K" in error.message


@pytest.mark.parametrize("asked", ["user/repo:Q4_K_M", "user/repo:q4_k_m", "user/repo/Foo-7B-Q4_K_M.gguf"])
def test_a_named_file_is_taken_whatever_its_size(asked: str) -> None:
    """The name is the decision."""
    found = chosen(asked, USUAL, 1)

    assert (found.filename, found.size_bytes) == ("Foo-7B-Q4_K_M.gguf", 5 * GB)


@pytest.mark.parametrize("asked", ["user/repo:Q5_K_M", "user/repo/Bar.gguf"])
def test_what_is_not_there_is_not_found_and_the_others_are_named(asked: str) -> None:
    """People see what they can have."""
    error = refused(asked, USUAL)

    assert error.code is DownloadCode.NOT_FOUND
    assert "Q8_0" in error.message


def test_a_plain_quantisation_wins_over_a_dynamic_one() -> None:
    """`UD-` files are taken only where they are the only ones of that kind."""
    listed = files(("Foo-Q4_K_M.gguf", 2), ("Foo-UD-Q4_K_M.gguf", 2), ("Foo-UD-Q2_K_XL.gguf", 1))

    assert chosen("user/repo:Q4_K_M", listed).id == "Foo-Q4_K_M"
    assert chosen("user/repo:UD-Q4_K_M", listed).id == "Foo-UD-Q4_K_M"
    assert chosen("user/repo:Q2_K_XL", listed).id == "Foo-UD-Q2_K_XL"


@pytest.mark.parametrize("asked", ["user/repo", "user/repo:Q8_0"])
def test_a_repository_of_several_models_is_ambiguous(asked: str) -> None:
    """The message lists the files."""
    error = refused(asked, files(("Foo-Q8_0.gguf", 1), ("Bar-Q8_0.gguf", 2)))

    assert error.code is DownloadCode.AMBIGUOUS
    assert "Bar-Q8_0.gguf, Foo-Q8_0.gguf" in error.message


def test_a_shard_set_is_one_choice_with_the_size_of_all() -> None:
    """Sets that are incomplete on the hub are none."""
    listed = files(
        ("Q8_0/Foo-Q8_0-00001-of-00002.gguf", 4), ("Q8_0/Foo-Q8_0-00002-of-00002.gguf", 3),
        ("Q6_K/Foo-Q6_K-00001-of-00002.gguf", 4),
    )  # fmt: skip

    found = chosen("user/repo", listed)

    assert (found.id, found.filename, found.size_bytes, found.sha256) == (
        "Foo-Q8_0", "Q8_0/Foo-Q8_0-00001-of-00002.gguf", 7 * GB, "",
    )  # fmt: skip


def test_a_repository_without_models_is_not_found() -> None:
    """Only a projector is no model."""
    error = refused("user/repo", files(("mmproj-F16.gguf", 1)))

    assert error.code is DownloadCode.NOT_FOUND


def test_rows_of_another_shape_are_left_out() -> None:
    """The hub's answer is not ours to trust."""
    rows = [["a.gguf", 1, "x"], ["b.gguf", "1", "x"], 5, [], None]

    assert listing(rows) == [HubFile(path="a.gguf", size_bytes=1, sha256="x")]
    assert listing("nonsense") == []
