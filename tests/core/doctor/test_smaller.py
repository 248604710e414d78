"""Smaller files of the same model."""

import pytest

from meshllm.core.doctor.smaller import FileOnDisk, smaller_that_fits
from meshllm.core.limits import GIB


def a_file(model: str, size_bytes: int) -> FileOnDisk:
    """Return a file on this disk."""
    return FileOnDisk(model=model, size_bytes=size_bytes, quantization="")


DISK = (
    a_file("Foo-7B-F16", 14 * GIB),
    a_file("Foo-7B.Q8_0", 7 * GIB),
    a_file("foo-7b-UD-Q4_K_XL", 4 * GIB),
    a_file("Bar-7B-Q4_K_M", 4 * GIB),
)


@pytest.mark.rows("OPS-5")
@pytest.mark.parametrize(
    ("room_gib", "found"),
    [(16, "Foo-7B.Q8_0"), (8, "Foo-7B.Q8_0"), (7, "foo-7b-UD-Q4_K_XL"), (5, "foo-7b-UD-Q4_K_XL"), (4, None), (0, None)],
)
def test_the_largest_that_fits_is_suggested(room_gib: int, found: str | None) -> None:
    """An eighth more than the file; never another model's, nor a larger one."""
    suggestion = smaller_that_fits("Foo-7B-F16", 14 * GIB, room_gib * GIB, DISK)

    assert (suggestion.name if suggestion is not None else None) == found


@pytest.mark.rows("OPS-5")
def test_the_catalogue_is_searched_too() -> None:
    """By a name that it knows: of its own files, the largest that fits."""
    suggestion = smaller_that_fits("Qwen2.5-Coder-7B-Instruct-Q8_0", 8_098_525_152, 8 * GIB, ())

    assert suggestion is not None
    assert (suggestion.name, suggestion.is_here) == ("qwen2.5-coder-7b:Q6_K", False)


def test_of_two_alike_the_one_that_lies_here_is_suggested() -> None:
    """It need not be fetched."""
    here = a_file("Qwen2.5-Coder-7B-Instruct-Q6_K", 6_254_198_752)

    suggestion = smaller_that_fits("Qwen2.5-Coder-7B-Instruct-Q8_0", 8_098_525_152, 8 * GIB, (here,))

    assert suggestion is not None
    assert (suggestion.name, suggestion.is_here) == (here.model, True)


def test_a_model_that_nobody_knows_has_no_smaller_one() -> None:
    """Nothing is made up."""
    assert smaller_that_fits("mine", 8 * GIB, 8 * GIB, DISK) is None
